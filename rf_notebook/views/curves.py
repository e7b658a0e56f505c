"""What does the chart of curves show? A figure as plain values: traces of arrays, and a layout."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from rf_notebook.core.events import OperationObeyed
from rf_notebook.core.operations import CloneRun, DeleteRun, ResumeRun, StopRun
from rf_notebook.core.run import RunState
from rf_notebook.views.palette import colour, dash
from rf_notebook.views.series import X_AXES, Array, CurveSettings, ExperimentSeries
from rf_notebook.views.words import (
    NAME_LENGTH,
    config_value,
    knob_name,
    plain_for_plotly,
    run_name,
    shortened,
)

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState
    from rf_notebook.views.groups import Group

#: Up to this many curves, hovering compares all at one x, and each is labelled where it ends.
_FEW_RUNS = 12
#: Height of the plot and of a label, for placing labels; a little off does no harm.
_PLOT_PIXELS = 250
_LABEL_PIXELS = 12
_MARKS = {StopRun: "square", ResumeRun: "triangle-right", CloneRun: "diamond", DeleteRun: "x"}


@dataclass(slots=True)
class Trace:
    """One line or set of marks."""

    props: dict[str, Any]
    """Of a plotly scatter trace, without x and y."""
    x_N: Array
    y_N: Array
    key: str = ""
    """Tells it from the others of a figure, also while they change; its place when empty."""


@dataclass(slots=True)
class Figure:
    """What is drawn; made into plotly's terms by whatever draws it."""

    traces: list[Trace] = field(default_factory=list)
    layout: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Emphasis:
    """Which runs stand out."""

    selected: Collection[int] = ()
    hidden: Collection[int] = ()


def curves_figure(
    state: ExperimentState,
    series: ExperimentSeries,
    settings: CurveSettings,
    *,
    log_scale: bool = False,
    y_range: tuple[float, float] | None = None,
    emphasis: Emphasis | None = None,
    groups: Sequence[Group] = (),
) -> Figure:
    """The curves of one metric.

    Args:
        state: The experiment's state.
        series: Up to date.
        settings: Metric, x axis, smoothing and zoom.
        log_scale: Whether the y axis is logarithmic.
        y_range: Lowest and highest value that is seen; None for all.
        emphasis: Selected and hidden runs.
        groups: Each is drawn as its mean in a band, those of its runs that are selected by
            themselves, too; without groups every run is.
    """
    emphasis = emphasis or Emphasis()
    shown = [
        run_id
        for run_id, record in list(state.runs.items())
        if record.state is not RunState.DELETED and run_id not in emphasis.hidden
    ]
    many = (len(groups) or len(shown)) > _FEW_RUNS
    figure = Figure(layout=_layout(settings, log_scale=log_scale, y_range=y_range, many=many))
    if groups:
        means = [trace for one in groups for trace in _mean(series, one, settings, emphasis)]
        # Bands are drawn first, so that every mean can be seen.
        figure.traces.extend(sorted(means, key=lambda trace: "meta" in trace.props))
        shown = [run_id for run_id in shown if run_id in emphasis.selected]
    curves, drawn = series.curves(shown, settings), series.drawn(settings)
    # Selected runs are drawn last, so that they lie on top.
    for run_id in sorted(curves, key=lambda one: (one in emphasis.selected, one)):
        figure.traces.append(_curve(state, drawn, run_id, curves[run_id], emphasis))
    figure.traces.extend(_connectors(state, series, curves, settings.x))
    marks = _marks(state, series, curves, settings.x)
    if marks is not None:
        figure.traces.append(marks)
    figure.layout["annotations"] = list(_labels(curves, emphasis, log_scale=log_scale))
    return figure


def _curve(
    state: ExperimentState,
    drawn: dict[int, Any],
    run_id: int,
    curve: tuple[Array, Array],
    emphasis: Emphasis,
) -> Trace:
    """The same trace as long as nothing of it changes."""
    record, selected = state.runs[run_id], run_id in emphasis.selected
    aside = bool(emphasis.selected) and not selected
    out = record.state in (RunState.STOPPED, RunState.FAILED, RunState.DIVERGED)
    label, ink = state.label(run_id), colour(run_id)
    look = (selected, aside, out, ink)
    held = drawn.get(run_id)
    if held is not None and held[0] is curve and held[1] is label and held[2] == look:
        known: Trace = held[3]
        return known
    made = Trace(
        {
            "mode": "lines" if len(curve[0]) > 1 else "markers",
            "name": plain_for_plotly(run_name(state, run_id)),
            "meta": {"run": run_id},
            "line": {
                "color": ink,
                "dash": _plotly_dash(run_id),
                "width": 3 if run_id in emphasis.selected else 1.7,
            },
            "marker": {"color": ink, "size": 7},
            "opacity": 0.45 if aside else 0.55 if out else 1.0,
        },
        *curve,
        key=f"run {run_id}",
    )
    drawn[run_id] = (curve, label, look, made)
    return made


def _connectors(
    state: ExperimentState, series: ExperimentSeries, curves: dict[int, tuple[Array, Array]], x: str
) -> Iterator[Trace]:
    """A dashed line from where a parent was when it was cloned to where its warm clone begins."""
    obeyed = _clonings(state)
    for run_id in curves:
        record = state.runs[run_id]
        parent = record.parent_id
        if parent not in curves or run_id not in obeyed or record.warm_start is None:
            continue  # a clone that begins anew does not continue its parent's curve
        x_N, y_N = curves[run_id]
        at = _place(series, parent, obeyed[run_id].samples, x, *curves[parent])
        yield Trace(
            {
                "mode": "lines",
                "name": f"run {run_id} from run {parent}",
                "hoverinfo": "skip",
                "line": {"color": colour(run_id), "dash": "dash", "width": 1},
                "opacity": 0.6,
            },
            np.array([at[0], x_N[0]]),
            np.array([at[1], y_N[0]]),
            key=f"from {run_id}",
        )


def _clonings(state: ExperimentState) -> dict[int, OperationObeyed]:
    """The operation that made each clone: the n-th clone of a run came from its n-th CloneRun."""
    asked: dict[int, list[OperationObeyed]] = {}
    for recorded in list(state.operations):
        event = recorded.event
        if isinstance(event, OperationObeyed) and isinstance(event.operation, CloneRun):
            asked.setdefault(event.operation.run_id, []).append(event)
    made: dict[int, OperationObeyed] = {}
    for run_id, record in list(state.runs.items()):
        if record.parent_id is not None and asked.get(record.parent_id):
            made[run_id] = asked[record.parent_id].pop(0)
    return made


def _place(
    series: ExperimentSeries, run_id: int, samples: int, x: str, x_N: Array, y_N: Array
) -> tuple[float, float]:
    """Where on its drawn curve a run was when it had trained on this many samples."""
    at = float(np.clip(series.x_at(run_id, samples, x), x_N[0], x_N[-1]))
    return at, float(np.interp(at, x_N, y_N))


def _marks(
    state: ExperimentState, series: ExperimentSeries, curves: dict[int, tuple[Array, Array]], x: str
) -> Trace | None:
    """A sign on the curve where an operation was obeyed."""
    xs, ys, symbols, colours, texts = [], [], [], [], []
    for recorded in list(state.operations):
        event = recorded.event
        if not isinstance(event, OperationObeyed) or event.operation.run_id not in curves:
            continue
        run_id = event.operation.run_id
        place = _place(series, run_id, event.samples, x, *curves[run_id])
        xs.append(place[0])
        ys.append(place[1])
        symbols.append(_MARKS[type(event.operation)])
        colours.append(colour(run_id))
        texts.append(plain_for_plotly(operation_words(event)))
    if not xs:
        return None
    return Trace(
        {
            "mode": "markers",
            "name": "operations",
            "text": texts,
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {
                "symbol": symbols,
                "color": colours,
                "size": 9,
                "line": {"width": 1, "color": "ground"},
            },
        },
        np.array(xs),
        np.array(ys),
        key="operations",
    )


def operation_words(event: OperationObeyed) -> str:
    """An operation in words.

    "run 4 cloned with learning_rate 5e-4, warm, at step 40, by a click".
    """
    operation = event.operation
    match operation:
        case StopRun():
            words = "stopped"
        case ResumeRun():
            words = "resumed"
        case DeleteRun():
            words = "deleted"
        case CloneRun():
            edits = ", ".join(
                f"{knob_name(key)} {config_value(value)}" for key, value in operation.edits.items()
            )
            words = (
                "cloned"
                + (f" with {edits}" if edits else "")
                + (", warm" if operation.warm_start else "")
            )
    who = {"button": "by a click", "magic": "by %rapidfire", "python": "from Python"}.get(
        event.origin, event.origin
    )
    if event.reason:
        return f"run {operation.run_id} {words} at step {event.steps} by the policy {event.origin}: {event.reason}"
    return f"run {operation.run_id} {words} at step {event.steps}, {who}"


def _labels(
    curves: dict[int, tuple[Array, Array]], emphasis: Emphasis, *, log_scale: bool
) -> Iterator[dict[str, Any]]:
    """Each run's number where its curve ends; those that would cover each other are moved apart."""
    few = len(curves) <= _FEW_RUNS
    scaled = {
        run_id: np.log10(y_N[y_N > 0]) if log_scale else y_N
        for run_id, (_, y_N) in curves.items()
        if not log_scale or y_N[-1] > 0
    }
    ends = {i: float(y[-1]) for i, y in scaled.items() if few or i in emphasis.selected}
    if not ends:
        return
    low, high = (
        min(float(y.min()) for y in scaled.values()),
        max(float(y.max()) for y in scaled.values()),
    )
    pixels = _PLOT_PIXELS / (high - low) if high > low else 0.0
    below = -np.inf
    for run_id in sorted(ends, key=lambda one: ends[one]):
        place = (ends[run_id] - low) * pixels
        below = max(place, below + _LABEL_PIXELS)
        yield {
            "x": float(curves[run_id][0][-1]),
            "y": ends[run_id],
            "text": str(run_id),
            "showarrow": False,
            "xanchor": "left",
            "xshift": 4,
            "yshift": round(below - place),
            "font": {"color": colour(run_id), "size": 12},
        }


def _mean(
    series: ExperimentSeries, group: Group, settings: CurveSettings, emphasis: Emphasis
) -> Iterator[Trace]:
    """A group's mean, one standard deviation below and above it where several runs are."""
    run_ids = [row.run_id for row in group.rows if row.run_id not in emphasis.hidden]
    x_N, mean_N, deviation_N = series.mean(run_ids, settings)
    if not len(x_N):
        return
    ink = colour(group.first_run)
    edge = {"mode": "lines", "hoverinfo": "skip", "line": {"color": ink, "width": 0}}
    if deviation_N.any():
        yield Trace({**edge, "name": "below"}, x_N, mean_N - deviation_N, f"below {group.key}")
        fill = {"fill": "tonexty", "fillcolor": ink}
        yield Trace(
            {**edge, **fill, "name": "above"}, x_N, mean_N + deviation_N, f"above {group.key}"
        )
    name = f"{group.title} ({len(run_ids)})"
    yield Trace(
        {
            "mode": "lines" if len(x_N) > 1 else "markers",
            "name": plain_for_plotly(shortened(name, NAME_LENGTH)),
            "meta": {"members": run_ids},
            "line": {"color": ink, "dash": _plotly_dash(group.first_run), "width": 2.5},
            "opacity": 0.45 if emphasis.selected else 1.0,
        },
        x_N,
        mean_N,
        f"mean {group.key}",
    )


def _plotly_dash(run_id: int) -> str:
    return ",".join(f"{length}px" for length in dash(run_id)) or "solid"


def _layout(
    settings: CurveSettings,
    *,
    log_scale: bool,
    y_range: tuple[float, float] | None,
    many: bool,
) -> dict[str, Any]:
    zoomed = {"range": list(settings.x_range)} if settings.x_range else {}
    seen: dict[str, Any] = {}
    if y_range is not None and not (log_scale and y_range[0] <= 0):
        seen = {"range": [math.log10(value) for value in y_range] if log_scale else list(y_range)}
    return {
        "xaxis": {"title": {"text": X_AXES[settings.x]}, **zoomed},
        "yaxis": {
            "title": {"text": plain_for_plotly(settings.metric)},
            "type": "log" if log_scale else "linear",
            **seen,
        },
        "hovermode": "closest" if many else "x unified",
        "showlegend": False,
        "uirevision": f"{settings.metric} {settings.x} {log_scale} {y_range}",
    }
