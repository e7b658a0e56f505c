"""One run by itself: what it is, what came of it, where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rf_notebook.results.log_lines import log_lines
from rf_notebook.views.document import Node, element
from rf_notebook.views.marks import dot
from rf_notebook.views.samples import samples
from rf_notebook.views.saved import curves_svg
from rf_notebook.views.series import CurveSettings, ExperimentSeries
from rf_notebook.views.words import config_value, number, run_name, shortened

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState
    from rf_notebook.views.run_row import RunRow
    from rf_notebook.views.runs_table import RunsView

_MOST_CHARTS = 24
_POINTS = 120
_LOG_LINES = 60
_SENTENCE = 300


def run_page(
    state: ExperimentState, series: ExperimentSeries, view: RunsView, run_id: int | None
) -> Node:
    """Everything of one run.

    Args:
        state: The experiment's state.
        series: Up to date.
        view: Of all runs.
        run_id: The run; None while none was opened.
    """
    row = next((row for row in view.rows if row.run_id == run_id), None)
    if run_id is None or row is None:
        words = (
            "Select a run, or click twice on its row, to see its config, curves, samples and log."
        )
        return element("p", words, class_="rf-dim")
    label = row.label
    return element(
        "div",
        element("p", dot(run_id), element("b", run_name(state, run_id)), f"  {row.state_word}"),
        element("p", *(element("span", tag, class_="rf-chip") for tag in label.tags))
        if label.tags
        else None,
        element("p", label.note, class_="rf-note") if label.note else None,
        element("p", row.error, class_="rf-failed") if row.error else None,
        _descent(state, run_id),
        _curves(series, run_id),
        _config(row),
        element("h4", "Samples"),
        samples(state, [run_id], [run_id]),
        element(
            "details",
            element("summary", "Log"),
            element("pre", "\n".join(log_lines(state, run_id, most=_LOG_LINES)) or "nothing yet"),
        ),
        class_="rf-run-page",
    )


def _descent(state: ExperimentState, run_id: int) -> Node:
    """The run's ancestors, oldest first, what was edited at each clone, and its clones."""
    chain, at = [run_id], state.record(run_id).parent_id
    while at is not None and at in state.runs and at not in chain:
        chain.append(at)
        at = state.record(at).parent_id
    parts: list[Node] = []
    for one in reversed(chain):
        record = state.record(one)
        edits = [f"{key} → {config_value(value)}" for key, value in record.edits.items()]
        words = f" → {'warm, ' if record.warm_start is not None else ''}{', '.join(edits)} → "
        parts += [shortened(words, _SENTENCE) + " "] if parts else []
        parts.append(_link(state, one))
    clones = [one.run_id for one in list(state.runs.values()) if one.parent_id == run_id]
    if clones:
        parts += [" · clones: ", *(node for one in clones for node in (_link(state, one), " "))]
    return element("p", *parts) if len(parts) > 1 else ""


def _link(state: ExperimentState, run_id: int) -> Node:
    return element(
        "button",
        run_name(state, run_id),
        class_="rf-link",
        data_action=f"select {run_id}",
        aria_label=f"select run {run_id}",
    )


def _curves(series: ExperimentSeries, run_id: int) -> Node:
    own = series.runs.get(run_id)
    if own is None or not own.metrics:
        return element("p", "Nothing was logged yet.", class_="rf-dim")
    charts = []
    for metric in own.metrics[:_MOST_CHARTS]:
        curve = series.curve(run_id, CurveSettings(metric=metric, max_points=_POINTS))
        words = f"{shortened(metric, 60)} {number(own.latest(metric))}"
        charts.append(
            element(
                "div",
                element("div", words, class_="rf-dim"),
                curves_svg({run_id: curve}, metric, width=360, height=160)
                if len(curve[0]) > 1
                else None,
            )
        )
    return element("div", *charts, class_="rf-small-charts")


def _config(row: RunRow) -> Node:
    """The knobs in which the runs differ first, then everything."""

    def line(key: str) -> Node:
        value = config_value(row.config.get(key))
        return element("tr", element("th", key, scope="row"), element("td", shortened(value, 500)))

    varying = [line(key) for key in row.knobs]
    rest = [line(key) for key in row.config if key not in row.knobs]
    return element(
        "div",
        element("h4", "Config"),
        element("table", element("tbody", *varying)) if varying else None,
        element(
            "details",
            element("summary", f"{len(rest)} arguments that all runs have alike"),
            element("table", element("tbody", *rest)),
        ),
        class_="rf-config",
    )
