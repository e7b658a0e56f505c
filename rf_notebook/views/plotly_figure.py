"""The curves as an ordinary plotly Figure, for export and for people's own pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rf_notebook.core.errors import ConfigError
from rf_notebook.views.curves import Figure, curves_figure
from rf_notebook.views.series import X_AXES, CurveSettings, ExperimentSeries

if TYPE_CHECKING:
    import plotly.graph_objects

    from rf_notebook.core.state import ExperimentState

_ALL = 10**9


def plotly_figure(figure: Figure) -> plotly.graph_objects.Figure:
    """A figure in plotly's classes.

    Whole numbers of points, nothing thinned beyond what the figure holds.
    """
    import plotly.graph_objects as go

    made = go.Figure()
    for trace in figure.traces:
        props = {**trace.props}
        line = (props.get("marker") or {}).get("line")
        if line is not None:
            props["marker"] = {**props["marker"], "line": {**line, "color": "white"}}
        made.add_trace(go.Scatter(**props, x=trace.x_N, y=trace.y_N))
    layout = {key: value for key, value in figure.layout.items() if key != "uirevision"}
    made.update_layout(**layout, template="plotly_white")
    return made


def experiment_figure(
    state: ExperimentState, metric: str | None, *, x: str, smoothing: float, log_scale: bool
) -> plotly.graph_objects.Figure:
    """The curves of an experiment, every point of them.

    Raises:
        ConfigError: for a metric, an x axis or a smoothing that there is not.
    """
    series = ExperimentSeries()
    series.update(state)
    metrics = series.metrics
    if not metrics:
        raise ConfigError("nothing has been logged yet; wait for the first step.")
    metric = metric or metrics[0]
    if metric not in metrics:
        raise ConfigError(
            f"figure(metric={metric!r}): no run has it; there are: {', '.join(metrics)}."
        )
    if x not in X_AXES:
        raise ConfigError(f"figure(x={x!r}): x is one of {', '.join(map(repr, X_AXES))}.")
    if not 0 <= smoothing <= 0.99:
        raise ConfigError(f"figure(smoothing={smoothing!r}): smoothing lies between 0 and 0.99.")
    settings = CurveSettings(metric=metric, x=x, smoothing=smoothing, max_points=_ALL)
    return plotly_figure(curves_figure(state, series, settings, log_scale=log_scale))
