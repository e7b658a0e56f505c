"""What does the table of runs show?

Rows and columns as values; sorting and filtering as functions of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.metrics import cost_of, direction, judged_by, scale_of
from rf_notebook.core.run import READY, RunState
from rf_notebook.core.values import Json, flatten
from rf_notebook.results.frames import varying_knobs
from rf_notebook.results.metrics import best_of, can_lead, diverged_at
from rf_notebook.results.times import etas
from rf_notebook.views.series import ExperimentSeries
from rf_notebook.views.words import ICONS, config_value, duration, knob_name, number, size

if TYPE_CHECKING:
    import pandas as pd

    from rf_notebook.core.state import ExperimentState, LiveRun, RunRecord

#: Columns of metrics besides the one that is looked at.
_MORE_METRICS = 3
_MOST_KNOBS = 8
#: Metrics that have a column before others.
_TELLING = ("reward", "rewards/margins", "rewards/accuracies")
#: Metrics that have no column of their own unless they are looked at.
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
class RunRow:
    """One run at one moment."""

    run_id: int
    state: RunState
    state_word: str
    """The state, or what a run in the rotation does: "training", "catching up", "diverged at step
    12"."""
    knobs: dict[str, Json]
    """Values of the arguments in which the runs differ, by dotted key."""
    latest: dict[str, float]
    best: float | None
    """Of the metric looked at."""
    progress: float
    eta_seconds: float | None
    samples_per_second: float | None
    own_bytes: int
    parent_id: int | None
    is_warm: bool
    joint: str
    """With which runs it trains in joint steps, or why alone; empty where all train in turns."""
    error: str | None
    has_diverged: bool = False
    """Whether its loss or gradients are NaN or infinite."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsView:
    """The table: rows in the order of the runs, and the columns."""

    rows: tuple[RunRow, ...]
    columns: tuple[Column, ...]
    metric: str | None
    best_runs: frozenset[int]
    """The run whose latest value of the metric is the best; one for each scale on which the metric
    lies."""
    scales: tuple[str, ...]
    """On which the metric lies; several when runs of different methods or losses cannot be compared
    by it."""


def runs_view(state: ExperimentState, series: ExperimentSeries, metric: str | None) -> RunsView:
    """The table of an experiment, deleted runs left out.

    Args:
        state: The experiment's state.
        series: Up to date.
        metric: What is looked at; None before anything was logged.
    """
    records = [r for r in list(state.runs.values()) if r.state is not RunState.DELETED]
    knobs = varying_knobs(state)[:_MOST_KNOBS]
    left = etas(state)
    rows = tuple(_row(state, series, record, knobs, metric, left) for record in records)
    names = series.metrics
    metrics = (
        [metric, *(n for n in names if n in ("loss", "eval_loss") and n != metric)]
        if metric
        else []
    )
    more = sorted(
        (n for n in names if n not in metrics and not _is_detail(n)),
        key=lambda n: (n not in _TELLING, n),
    )
    metrics += more[: max(0, 1 + _MORE_METRICS - len(metrics))]
    scales: set[str] = set()
    scored: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for row, record in zip(rows, records, strict=True):
        if metric is None:
            break
        if math.isfinite(row.latest.get(metric, math.nan)):
            scales.add(scale_of(record.config, metric))
        judged = judged_by(record.config.method, metric, row.latest)
        cost = cost_of(row.latest.get(judged), direction(judged))
        if math.isfinite(cost) and can_lead(state, row.run_id):
            scored.setdefault((judged, scale_of(record.config, judged)), []).append(
                (cost, row.run_id)
            )
    return RunsView(
        rows=rows,
        columns=tuple(_columns(knobs, metrics, shows_joint=any(row.joint for row in rows))),
        metric=metric,
        best_runs=frozenset(best_of(scored).values()),
        scales=tuple(sorted(scales)),
    )


def sorted_rows(view: RunsView, key: str, *, descending: bool) -> list[RunRow]:
    """The rows by a column; those without a value last, ties by id."""
    column = next((c for c in view.columns if c.key == key), view.columns[0])

    def rank(row: RunRow) -> tuple[Any, ...]:
        value = column.value(row)
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            return (1, 0.0, row.run_id)
        if isinstance(value, bool | int | float):
            return (0, -value if descending else value, row.run_id)
        return (0, 0.0, row.run_id)

    if all(isinstance(column.value(row), bool | int | float | None) for row in view.rows):
        return sorted(view.rows, key=rank)
    by_id = sorted(view.rows, key=lambda row: row.run_id)
    return sorted(by_id, key=lambda row: str(column.text(row)), reverse=descending)


_CONDITION = re.compile(r"\s*([\w./ -]+?)\s*(>=|<=|!=|==|=|>|<|~)\s*(.+?)\s*")
#: What people call the usual knobs.
SHORT_NAMES = {
    "learning_rate": "lr",
    "per_device_train_batch_size": "batch",
    "num_train_epochs": "epochs",
}
_LONG_NAMES = {short: name for name, short in SHORT_NAMES.items()} | {"id": "run"}
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
}


def filtered(view: RunsView, text: str) -> set[int]:
    """Ids of the runs that meet all conditions, such as ``lr > 1e-4, r = 32`` or ``stopped``.

    Raises:
        ConfigError: for a column that the table does not have, naming those that there are.
    """
    tests = [_test(view, part) for part in text.split(",") if part.strip()]
    return {row.run_id for row in view.rows if all(test(row) for test in tests)}


def _test(view: RunsView, part: str) -> Callable[[RunRow], bool]:
    matched = _CONDITION.fullmatch(part)
    if matched is None:
        word = part.strip().lower()
        return lambda row: any(word in column.text(row).lower() for column in view.columns)
    name, sign, wanted = matched.groups()
    name = _LONG_NAMES.get(name, name)
    column = next((c for c in view.columns if name in (c.key, knob_name(c.key), c.title)), None)
    if column is None:
        known = ", ".join(knob_name(c.key) for c in view.columns)
        raise ConfigError(f"the filter's {name!r} is not a column; there are: {known}.")
    if sign == "~":
        return lambda row: wanted.lower() in column.text(row).lower()
    try:
        limit = float(wanted)
    except ValueError:
        if sign not in ("=", "==", "!="):
            raise ConfigError(
                f"the filter's {part.strip()!r} compares with {wanted!r}, which is not a number."
            ) from None
        equal = sign != "!="
        return lambda row: (column.text(row).lower() == wanted.strip("'\"").lower()) is equal
    compare = _COMPARISONS[sign]

    def holds(row: RunRow) -> bool:
        value = column.value(row)
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and compare(float(value), limit)
        )

    return holds


def _is_detail(metric: str) -> bool:
    return metric.endswith(_DETAILS) or "logits/" in metric


def _row(
    state: ExperimentState,
    series: ExperimentSeries,
    record: RunRecord,
    knobs: Sequence[str],
    metric: str | None,
    left: dict[int, float],
) -> RunRow:
    run_id = record.run_id
    live = state.live.get(run_id)
    progress = record.progress if live is None else live.progress
    flat = flatten(record.config.as_json())
    own = series.runs.get(run_id)
    names = own.metrics if own is not None else []
    latest = {
        name: value for name in names if own is not None and (value := own.latest(name)) is not None
    }
    spent = record.train_seconds + record.overhead_seconds
    word = str(record.state)
    current = record.state
    if record.state is RunState.RUNNING or (record.state is RunState.QUEUED and live is not None):
        current = RunState.RUNNING
        word = (
            "catching up"
            if record.parent_id is not None and _is_behind(state, record)
            else "training"
        )
    if record.state in READY and state.ended is not None:
        word = "unfinished"
    bad_step = diverged_at(state, run_id)
    if bad_step is not None:
        diverged = f"diverged at step {bad_step}"
        is_alone = record.state in (*READY, RunState.DIVERGED)
        word, current = (
            (diverged, RunState.DIVERGED) if is_alone else (f"{word}, {diverged}", current)
        )
    return RunRow(
        run_id=run_id,
        state=current,
        state_word=word,
        knobs={key: flat.get(key) for key in knobs},
        latest=latest,
        best=own.best(metric, direction(metric)) if own is not None and metric else None,
        progress=progress.fraction,
        eta_seconds=left.get(run_id),
        samples_per_second=record.progress.samples / spent
        if spent > 0 and record.progress.samples
        else None,
        own_bytes=record.own_bytes,
        parent_id=record.parent_id,
        is_warm=record.warm_start is not None,
        joint=_joint(record, live),
        error=None if record.failure is None else record.failure.message,
        has_diverged=bad_step is not None,
    )


def _joint(record: RunRecord, live: LiveRun | None) -> str:
    others = live.fused_with if live is not None and live.fused_with else record.fused_with
    if others:
        return "with " + ", ".join(map(str, others))
    if record.alone_because:
        return f"alone: {record.alone_because}"
    return "by itself" if record.is_joint else ""


def _is_behind(state: ExperimentState, record: RunRecord) -> bool:
    others = [r.progress.samples for r in state.ready() if r.run_id != record.run_id]
    return bool(others) and record.progress.samples < min(others)


def _columns(
    knobs: Sequence[str], metrics: Sequence[str], *, shows_joint: bool
) -> Iterable[Column]:
    yield Column(
        key="run", title="run", value=lambda r: r.run_id, text=lambda r: str(r.run_id), is_text=True
    )
    yield Column(
        key="state",
        title="state",
        value=lambda r: r.state_word,
        text=lambda r: f"{ICONS[r.state]} {r.state_word}",
        is_text=True,
    )
    short = [knob_name(key) for key in knobs]
    for key in knobs:
        title = knob_name(key) if short.count(knob_name(key)) == 1 else key
        yield Column(key=key, title=title, value=_knob_value(key), text=_knob_text(key))
    for place, metric in enumerate(metrics):
        yield Column(
            key=metric, title=metric, value=_metric_value(metric), text=_metric_text(metric)
        )
        if place == 0:
            yield Column(
                key="best", title="best", value=lambda r: r.best, text=lambda r: number(r.best)
            )
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
    yield Column(
        key="samples/s",
        title="samples/s",
        value=lambda r: r.samples_per_second,
        text=lambda r: number(r.samples_per_second),
    )
    yield Column(
        key="memory",
        title="memory",
        value=lambda r: r.own_bytes or None,
        text=lambda r: size(r.own_bytes),
    )
    if shows_joint:
        yield Column(
            key="joint",
            title="joint",
            value=lambda r: r.joint,
            text=lambda r: r.joint,
            is_text=True,
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


def _knob_value(key: str) -> Callable[[RunRow], Any]:
    return lambda row: row.knobs.get(key)


def _knob_text(key: str) -> Callable[[RunRow], str]:
    return lambda row: config_value(row.knobs.get(key))


def _metric_value(metric: str) -> Callable[[RunRow], Any]:
    """For sorting: a run that diverged comes last, whatever it logged before."""
    return lambda row: (
        math.nan if row.has_diverged and metric in row.latest else row.latest.get(metric)
    )


def _metric_text(metric: str) -> Callable[[RunRow], str]:
    return lambda row: number(row.latest.get(metric))


def runs_table_frame(state: ExperimentState) -> pd.DataFrame:
    """The table as a frame, a row a run: what ``%rapidfire status`` gives."""
    import pandas as pd

    series = ExperimentSeries()
    series.update(state)
    view = runs_view(state, series, series.usual_metric)
    rows = [{column.title: column.value(row) for column in view.columns} for row in view.rows]
    return pd.DataFrame(rows, columns=[column.title for column in view.columns]).set_index("run")
