"""How are figures, durations and values written in the panel?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rf_notebook.core.run import RunState, object_words

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState
    from rf_notebook.core.values import Json

#: Of a run's number and name.
NAME_LENGTH = 80
#: State as a sign, so that it is not told by colour alone.
ICONS = {
    RunState.QUEUED: "○",
    RunState.RUNNING: "●",
    RunState.STOPPED: "■",
    RunState.COMPLETED: "✓",
    RunState.DIVERGED: "△",
    RunState.FAILED: "▲",
    RunState.DELETED: "✕",
}


def number(value: float | None) -> str:
    """Four significant digits; "–" for nothing."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if value and not 1e-3 <= abs(value) < 1e4:
        return short_exponent(f"{value:.3e}")
    return f"{value:.4g}"


def short_exponent(text: str) -> str:
    """The shortest form: 1e-4 for 1.000e-04."""
    mantissa, _, exponent = text.partition("e")
    if not exponent:
        return text
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}"


def config_value(value: Json) -> str:
    """A value of a config, as a person would type it."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, float):
        small = value and not 1e-2 <= abs(value) < 1e6
        return (
            short_exponent(f"{value:e}")
            if small
            else f"{value:g}"
            if float(f"{value:g}") == value
            else repr(value)
        )
    if isinstance(value, list):
        return ", ".join(map(config_value, value))
    if isinstance(value, dict):
        if "$object" in value:
            return object_words(str(value["$object"]))
        if "$secret" in value:
            return "(secret)"
        if "$tuple" in value:
            return config_value(list(value["$tuple"]))
    return str(value)


def knob_name(key: str) -> str:
    """The last part of a dotted key."""
    return key.rpartition(".")[2]


def duration(seconds: float | None) -> str:
    """A time in words, such as 4 m 10 s; "–" for nothing."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} m"


def size(count: float | None) -> str:
    """Bytes as MB or GB (powers of 1000, as disks and model cards count)."""
    if not count:
        return "–"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"


def shortened(text: str, length: int) -> str:
    """At most this many characters, on one line."""
    if len(text) <= length and text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def run_name(state: ExperimentState, run_id: int) -> str:
    """How a run is called above a column or beside a curve: "run 3 · small rate"."""
    return shortened(state.words(run_id), NAME_LENGTH)


def plain_for_plotly(text: str) -> str:
    """Text that plotly shows as it stands.

    Plotly reads a small HTML of its own in names and labels.
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
