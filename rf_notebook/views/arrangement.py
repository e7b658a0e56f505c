"""How has the user arranged the panel? Charts, columns, groups, which runs: remembered for each experiment.

What is read comes from a file that anybody may have written: what is not understood is as if it
had never been chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rf_notebook.views.series import X_AXES

if TYPE_CHECKING:
    from rf_notebook.core.values import Json

_MOST_CHARTS = 12
_MOST_KEYS = 500
_LONGEST_KEY = 500
_WIDEST_PX = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartArrangement:
    """One chart of curves."""

    metric: str | None = None
    """None for the one that the experiment is judged by."""
    smoothing: float = 0.0
    """At least 0, below 1."""
    log: bool = False
    y: tuple[float, float] | None = None
    """Lowest and highest value that is seen; None for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """Of one panel; as it is at first when nothing is given."""

    charts: tuple[ChartArrangement, ...] = (ChartArrangement(),)
    x: str = "samples"
    columns: tuple[str, ...] = ()
    """Keys, in their order; the usual ones when empty."""
    pinned: tuple[str, ...] = ()
    """Keys of columns that stay while the others scroll."""
    widths: Mapping[str, int] = field(default_factory=dict)
    """Pixels, by key."""
    sort: tuple[str, bool] | None = None
    """A column and whether it descends; None for the metric, best first."""
    group_by: str = ""
    """See ``views.groups``."""
    folded: tuple[str, ...] = ()
    hidden: tuple[int, ...] = ()
    """Runs."""
    on_top: tuple[int, ...] = ()
    """Runs whose rows come first."""
    baseline: int | None = None
    """The run to which the others are compared."""

    def as_json(self) -> dict[str, Json]:
        """What is written."""
        written: dict[str, Json] = asdict(self)
        return written

    @classmethod
    def from_json(cls, given: Json) -> Arrangement:
        """What was written, by this version or by anybody."""
        if not isinstance(given, dict):
            return cls()
        x, group_by, baseline = given.get("x"), given.get("group_by"), given.get("baseline")
        return cls(
            charts=tuple(map(_chart, _list(given.get("charts"), dict)[:_MOST_CHARTS]))
            or (ChartArrangement(),),
            x=x if isinstance(x, str) and x in X_AXES else "samples",
            columns=_keys(given.get("columns")),
            pinned=_keys(given.get("pinned")),
            widths=_widths(given.get("widths")),
            sort=_sort(given.get("sort")),
            group_by=str(group_by) if _is_key(group_by) else "",
            folded=_keys(given.get("folded")),
            hidden=_run_ids(given.get("hidden")),
            on_top=_run_ids(given.get("on_top")),
            baseline=baseline if _is_run_id(baseline) else None,
        )


def _chart(given: Mapping[str, Any]) -> ChartArrangement:
    metric, smoothing, y = given.get("metric"), given.get("smoothing"), given.get("y")
    return ChartArrangement(
        metric=metric if _is_key(metric) else None,
        smoothing=_fraction(smoothing),
        log=given.get("log") is True,
        y=_range(y),
    )


def _range(given: Any) -> tuple[float, float] | None:
    if not isinstance(given, list | tuple) or len(given) != 2 or not all(map(_is_number, given)):
        return None
    low, high = map(float, given)
    return (low, high) if low < high else None


def _fraction(given: Any) -> float:
    return float(given) if _is_number(given) and 0 <= given < 1 else 0.0


def _sort(given: Any) -> tuple[str, bool] | None:
    is_sort = isinstance(given, list | tuple) and len(given) == 2 and _is_key(given[0])
    return (given[0], given[1] is True) if is_sort else None


def _widths(given: Any) -> dict[str, int]:
    pairs = list(given.items())[:_MOST_KEYS] if isinstance(given, dict) else []
    return {
        key: width
        for key, width in pairs
        if _is_key(key) and type(width) is int and 0 < width <= _WIDEST_PX
    }


def _keys(given: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(_is_key, _list(given, str))))


def _run_ids(given: Any) -> tuple[int, ...]:
    return tuple(dict.fromkeys(filter(_is_run_id, _list(given, int))))


def _list(given: Any, kind: type) -> Sequence[Any]:
    if not isinstance(given, list | tuple):
        return []
    return [one for one in given[:_MOST_KEYS] if isinstance(one, kind)]


def _is_key(given: Any) -> bool:
    return isinstance(given, str) and 0 < len(given) <= _LONGEST_KEY


def _is_run_id(given: Any) -> bool:
    return type(given) is int and 0 < given < 10**6


def _is_number(given: Any) -> bool:
    return type(given) in (int, float) and abs(given) < 1e30
