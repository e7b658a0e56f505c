"""What the user takes away as CSV: the table that is shown, and every logged point."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from rf_notebook.results.metrics import points_of

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState
    from rf_notebook.views.runs_table import RunsView

#: With these a spreadsheet begins a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def table_csv(view: RunsView) -> str:
    """The rows and columns of a table, numbers in full."""
    heads = [column.key for column in view.columns]
    return _written(heads, ([column.value(row) for column in view.columns] for row in view.rows))


def points_csv(state: ExperimentState, run_ids: Collection[int]) -> str:
    """A row for each logged step of some runs, a column for each metric."""
    points = [(run_id, point) for run_id in run_ids for point in points_of(state, run_id)]
    metrics = list(dict.fromkeys(name for _, point in points for name in point.metrics))
    rows = (
        [run_id, point.step, point.samples, point.epoch, *map(point.metrics.get, metrics)]
        for run_id, point in points
    )
    return _written(["run", "step", "samples", "epoch", *metrics], rows)


def _written(heads: list[str], rows: Iterable[list[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(map(_harmless, heads))
    writer.writerows(map(_harmless, row) for row in rows)
    return text.getvalue()


def _harmless(value: Any) -> Any:
    """A cell that no spreadsheet computes: names and configs are texts of others."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
