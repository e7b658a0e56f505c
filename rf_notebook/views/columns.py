"""Which columns can the table of runs have?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rf_notebook.views.words import ICONS, config_value, duration, knob_name, number, size

if TYPE_CHECKING:
    from rf_notebook.views.run_row import RunRow

#: Metrics besides the one that is looked at, and knobs, that are shown unasked.
_MORE_METRICS = 3
_MOST_KNOBS = 8
#: Metrics that have a column before others.
_TELLING = ("reward", "kl", "rewards/margins", "rewards/accuracies")
#: Metrics that have no column of their own unless they are looked at or chosen.
_DETAILS = (
    "learning_rate",
    "grad_norm",
    "num_tokens",
    "entropy",
    "mean_token_accuracy",
    "total_flos",
    "train_loss",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of the table."""

    key: str
    title: str
    value: Callable[[RunRow], Any]
    """What sorting and filters compare."""
    text: Callable[[RunRow], str]
    is_text: bool = False
    """Left-aligned."""
    hint: Callable[[RunRow], str] = lambda _row: ""
    """More words, for whoever points at it."""
    of: str = ""
    """"knobs" or "metrics"; empty for what every table has."""
    is_usual: bool = True
    """Whether it is shown while the user has chosen no columns."""


def _is_detail(metric: str) -> bool:
    return metric.endswith(_DETAILS) or "logits/" in metric


def _joint_word(row: RunRow) -> str:
    """One word for what ``RunRow.joint`` tells; 23 numbers would push the rest of the table away."""
    return "joint" if row.joint.startswith("with ") else row.joint.partition(":")[0]


#: Columns, by their titles, and the figures that they show.
_SPEEDS = {
    "samples/s": "samples_per_second",
    "tokens/s": "tokens_per_second",
    "trained (s)": "train_seconds",
    "evaluated (s)": "eval_seconds",
    "writes tokens/s": "generated_tokens_per_second",
    "first token (s)": "first_token_seconds",
}


def columns_of(
    rows: Sequence[RunRow], knobs: Sequence[str], metrics: Sequence[str], metric: str | None
) -> Iterator[Column]:
    """Every column that a table of these runs can have, in their usual order.

    Args:
        rows: The runs.
        knobs: Dotted keys of the arguments in which the runs differ.
        metrics: That are logged.
        metric: The one that is looked at; None before anything was logged.
    """
    yield Column(
        key="run", title="run", value=lambda r: r.run_id, text=lambda r: str(r.run_id), is_text=True
    )
    yield Column(
        key="name",
        title="name",
        value=lambda r: r.label.name,
        text=lambda r: f"{r.label.name}{' …' if r.label.note else ''}".strip(),
        is_text=True,
        hint=lambda r: r.label.note or r.label.name,
        is_usual=any(row.label.name or row.label.note for row in rows),
    )
    yield Column(
        key="tags",
        title="tags",
        value=lambda r: ", ".join(r.label.tags),
        text=lambda r: ", ".join(r.label.tags),
        is_text=True,
        is_usual=any(row.label.tags for row in rows),
    )
    yield Column(
        key="state",
        title="state",
        value=lambda r: r.state_word,
        text=lambda r: f"{ICONS[r.state]} {r.state_word}",
        is_text=True,
    )
    yield from _knob_columns(rows, knobs)
    yield from _metric_columns(metrics, metric)
    yield Column(
        key="progress",
        title="progress",
        value=lambda r: r.progress,
        text=lambda r: f"{r.progress:.0%}",
    )
    yield Column(
        key="left",
        title="left",
        value=lambda r: r.eta_seconds,
        text=lambda r: duration(r.eta_seconds),
    )
    for key, name in _SPEEDS.items():
        yield Column(
            key=key,
            title=key,
            value=_metric_value(name),
            text=_metric_text(name),
            is_usual=key == "samples/s",
        )
    yield Column(
        key="memory",
        title="memory",
        value=lambda r: r.own_bytes or None,
        text=lambda r: size(r.own_bytes),
    )
    yield Column(
        key="on",
        title="on",
        value=lambda r: r.device,
        text=lambda r: r.device,
        is_text=True,
        is_usual=any(row.device for row in rows),
    )
    yield Column(
        key="joint",
        title="joint",
        value=lambda r: r.joint,
        text=_joint_word,
        is_text=True,
        hint=lambda r: r.joint,
        is_usual=any(row.joint for row in rows),
    )
    yield Column(
        key="parent",
        title="parent",
        value=lambda r: r.parent_id,
        text=lambda r: (
            "" if r.parent_id is None else f"{r.parent_id}{', warm' if r.is_warm else ''}"
        ),
        is_text=True,
    )


def _knob_columns(rows: Sequence[RunRow], knobs: Sequence[str]) -> Iterator[Column]:
    """Those in which the runs differ first; of them, the first few are usual."""
    every = dict.fromkeys([*knobs, *(key for row in rows for key in row.config)])
    short = Counter(map(knob_name, every))
    for place, key in enumerate(every):
        yield Column(
            key=key,
            title=knob_name(key) if short[knob_name(key)] == 1 else key,
            value=_knob_value(key),
            text=_knob_text(key),
            of="knobs",
            is_usual=place < min(len(knobs), _MOST_KNOBS),
        )


def _metric_columns(metrics: Sequence[str], metric: str | None) -> Iterator[Column]:
    """The one that is looked at and its best value, losses, what a method is about, the rest."""
    if metric is None:
        return
    first = [metric, *(n for n in metrics if n in ("loss", "eval_loss") and n != metric)]
    rest = sorted(
        (n for n in metrics if n not in first),
        key=lambda n: (_is_detail(n), _TELLING.index(n) if n in _TELLING else len(_TELLING), n),
    )
    telling = [n for n in rest if not _is_detail(n)][: max(0, 1 + _MORE_METRICS - len(first))]
    usual = {*first, *telling}
    for name in (*first, *rest):
        yield Column(
            key=name,
            title=name,
            value=_metric_value(name),
            text=_metric_text(name),
            of="metrics",
            is_usual=name in usual,
        )
        if name == metric:
            yield Column(
                key="best", title="best", value=lambda r: r.best, text=lambda r: number(r.best)
            )


def _knob_value(key: str) -> Callable[[RunRow], Any]:
    return lambda row: row.config.get(key)


def _knob_text(key: str) -> Callable[[RunRow], str]:
    return lambda row: config_value(row.config.get(key))


def _metric_value(metric: str) -> Callable[[RunRow], Any]:
    """For sorting: a run that diverged comes last, whatever it logged before."""
    return lambda row: (
        math.nan if row.has_diverged and metric in row.latest else row.latest.get(metric)
    )


def _metric_text(metric: str) -> Callable[[RunRow], str]:
    return lambda row: number(row.latest.get(metric))
