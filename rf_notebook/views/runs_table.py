"""What does the table of runs show?

Rows and columns as values; sorting and filtering as functions of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rf_notebook.core.metrics import cost_of, direction, judged_by, scale_of
from rf_notebook.core.run import RunState
from rf_notebook.results.metrics import best_of, can_lead
from rf_notebook.results.times import etas
from rf_notebook.views.columns import columns_of
from rf_notebook.views.run_row import run_row
from rf_notebook.views.series import ExperimentSeries

if TYPE_CHECKING:
    import pandas as pd

    from rf_notebook.core.state import ExperimentState
    from rf_notebook.views.columns import Column
    from rf_notebook.views.run_row import RunRow


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsView:
    """The table: rows in the order of the runs, and the columns."""

    rows: tuple[RunRow, ...]
    columns: tuple[Column, ...]
    """Those that are shown."""
    available: tuple[Column, ...]
    """All that could be."""
    metric: str | None
    best_runs: frozenset[int]
    """The run whose latest value of the metric is the best; one for each scale on which the metric
    lies."""
    scales: tuple[str, ...]
    """On which the metric lies; several when runs of different methods or losses cannot be compared
    by it."""


def runs_view(
    state: ExperimentState,
    series: ExperimentSeries,
    metric: str | None,
    chosen: Sequence[str] = (),
) -> RunsView:
    """The table of an experiment, deleted runs left out.

    Args:
        state: The experiment's state.
        series: Up to date.
        metric: What is looked at; None before anything was logged.
        chosen: Keys of the columns that the user wants, in this order; the usual ones when empty.
            The run's number comes first in any case; keys of no column are passed over.
    """
    records = [r for r in list(state.runs.values()) if r.state is not RunState.DELETED]
    knobs = series.configs.varying(state)
    left = etas(state)
    rows = tuple(run_row(state, series, record, knobs, metric, left) for record in records)
    available = {c.key: c for c in reversed([*columns_of(rows, knobs, series.metrics, metric)])}
    available = dict(reversed(available.items()))
    if chosen:
        columns = [available[key] for key in ("run", *chosen) if key in available]
        columns = [*dict.fromkeys(columns)]
    else:
        columns = [column for column in available.values() if column.is_usual]
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
        columns=tuple(columns),
        available=tuple(available.values()),
        metric=metric,
        best_runs=frozenset(best_of(scored).values()),
        scales=tuple(sorted(scales)),
    )


def sorted_rows(view: RunsView, key: str, *, descending: bool) -> list[RunRow]:
    """The rows by a column; those without a value last, ties by id."""
    column = next((c for c in view.available if c.key == key), view.columns[0])

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


def runs_table_frame(state: ExperimentState) -> pd.DataFrame:
    """The table as a frame, a row a run: what ``%rapidfire status`` gives."""
    import pandas as pd

    series = ExperimentSeries()
    series.update(state)
    view = runs_view(state, series, series.usual_metric)
    rows = [{column.title: column.value(row) for column in view.columns} for row in view.rows]
    return pd.DataFrame(rows, columns=[column.title for column in view.columns]).set_index("run")
