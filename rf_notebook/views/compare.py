"""How do the runs compare? Two metrics against each other, and the knobs against a metric."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rf_notebook.core.metrics import cost_of, direction, dominates
from rf_notebook.views.curves import Figure, Trace
from rf_notebook.views.palette import colour
from rf_notebook.views.words import (
    NAME_LENGTH,
    config_value,
    knob_name,
    number,
    plain_for_plotly,
    shortened,
)

if TYPE_CHECKING:
    from rf_notebook.views.run_row import RunRow
    from rf_notebook.views.runs_table import RunsView

#: Between two labels of an axis, as a share of its length.
_LABEL_GAP = 0.06
#: Of a number beside a point: its width and height, as shares of the chart's.
_NAME_GAP = (0.025, 0.07)


def scatter_figure(view: RunsView, x: str, y: str, selected: Collection[int] = ()) -> Figure:
    """Each run's latest values of two metrics, and the Pareto front.

    The runs that no other beats in both.

    Args:
        view: The table's.
        x: A metric or "own memory (bytes)".
        y: A metric.
        selected: Runs that stand out.
    """
    rows = [row for row in view.rows if _finite(value_of(row, x)) and _finite(value_of(row, y))]
    figure = Figure(layout=_axes(x, y))
    if not rows:
        return figure
    front = sorted(pareto_front(rows, x, y), key=lambda row: value_of(row, x) or 0.0)
    if len(front) > 1:
        figure.traces.append(
            Trace(
                {
                    "mode": "lines",
                    "name": "front",
                    "hoverinfo": "skip",
                    "line": {"color": "ink", "dash": "dot", "width": 1},
                },
                *_points(front, x, y),
            )
        )
    on_front = {row.run_id for row in front}
    figure.traces.append(
        Trace(
            {
                "mode": "markers+text",
                "name": "runs",
                "meta": {"runs": [row.run_id for row in rows]},
                "text": _names(rows, x, y, selected),
                "textposition": "top center",
                "hovertext": [_hover(row, x, y) for row in rows],
                "hoverinfo": "text",
                "cliponaxis": False,
                "marker": {
                    "color": [colour(row.run_id) for row in rows],
                    "size": [14 if row.run_id in selected else 10 for row in rows],
                    "symbol": ["star" if row.run_id in on_front else "circle" for row in rows],
                },
            },
            *_points(rows, x, y),
        )
    )
    return figure


def _names(rows: Sequence[RunRow], x: str, y: str, selected: Collection[int]) -> list[str]:
    """The numbers beside the points, the selected ones' first; none lies over another."""
    x_R, y_R = _points(rows, x, y)
    spans = [float(np.ptp(values)) or 1.0 for values in (x_R, y_R)]
    places = np.stack([x_R / spans[0], y_R / spans[1]], axis=1)
    names = [""] * len(rows)
    taken: list[Any] = []
    for at in sorted(range(len(rows)), key=lambda one: rows[one].run_id not in selected):
        apart = [np.abs(places[at] - other) for other in taken]
        if all(gap[0] > _NAME_GAP[0] or gap[1] > _NAME_GAP[1] for gap in apart):
            names[at] = str(rows[at].run_id)
            taken.append(places[at])
    return names


def pareto_front(rows: Sequence[RunRow], x: str, y: str) -> list[RunRow]:
    """The rows that no other equals or beats in both and beats in one."""
    modes = [(name, "min" if _less_is_better(name) else "max") for name in (x, y)]
    costs = {
        row.run_id: [cost_of(value_of(row, name), mode) for name, mode in modes] for row in rows
    }
    return [
        row
        for row in rows
        if not any(dominates(other, costs[row.run_id]) for other in costs.values())
    ]


def parallel_figure(view: RunsView, metric: str, selected: Collection[int] = ()) -> Figure:
    """A line a run through its knobs to its metric; every axis is scaled to its own values."""
    knobs = [c.key for c in view.columns if view.rows and c.key in view.rows[0].knobs]
    rows = [row for row in view.rows if _finite(row.latest.get(metric))]
    axes = [*knobs, metric]
    figure = Figure(layout=_parallel_layout(axes))
    if not rows or not knobs:
        return figure
    places = {axis: _scale(rows, axis, metric) for axis in axes}
    for row in sorted(rows, key=lambda one: one.run_id in selected):
        aside = bool(selected) and row.run_id not in selected
        figure.traces.append(
            Trace(
                {
                    "mode": "lines+markers",
                    "name": plain_for_plotly(shortened(row.words, NAME_LENGTH)),
                    "meta": {"run": row.run_id},
                    "hovertext": [_axis_text(row, axis, metric) for axis in axes],
                    "hoverinfo": "text+name",
                    "line": {
                        "color": colour(row.run_id),
                        "width": 3 if row.run_id in selected else 1.7,
                    },
                    "opacity": 0.25 if aside else 1.0,
                },
                np.arange(len(axes), dtype=np.float64),
                np.array([places[axis][_axis_key(row, axis, metric)] for axis in axes]),
            )
        )
    # Values that lie too close to be read side by side share the first one's label.
    figure.layout["annotations"] = [
        {
            "x": i,
            "y": place,
            "text": plain_for_plotly(shortened(key, 24)),
            "showarrow": False,
            "xanchor": "left",
            "xshift": 6,
        }
        for i, axis in enumerate(axes)
        for key, place in _apart(places[axis])
    ]
    return figure


def value_of(row: RunRow, name: str) -> float | None:
    """A metric's latest value, or the run's own memory."""
    return float(row.own_bytes) if name == MEMORY else row.latest.get(name)


#: What a run costs besides its time; may stand on an axis like a metric.
MEMORY = "own memory (bytes)"


def _less_is_better(name: str) -> bool:
    return name == MEMORY or direction(name) == "min"


def _points(rows: Sequence[RunRow], x: str, y: str) -> tuple[Any, Any]:
    return np.array([value_of(row, x) for row in rows]), np.array(
        [value_of(row, y) for row in rows]
    )


def _hover(row: RunRow, x: str, y: str) -> str:
    knobs = ", ".join(f"{knob_name(key)} {config_value(value)}" for key, value in row.knobs.items())
    words = f"{row.words}: {x} {number(value_of(row, x))}, {y} {number(value_of(row, y))}; {knobs}"
    return plain_for_plotly(shortened(words, 300))


def _axis_key(row: RunRow, axis: str, metric: str) -> str:
    return number(row.latest.get(axis)) if axis == metric else config_value(row.knobs.get(axis))


def _axis_text(row: RunRow, axis: str, metric: str) -> str:
    return plain_for_plotly(shortened(f"{knob_name(axis)} {_axis_key(row, axis, metric)}", 120))


def _scale(rows: Sequence[RunRow], axis: str, metric: str) -> dict[str, float]:
    """Each value's place between 0 and 1.

    Numbers by size (the metric in proportion), others in order.
    """
    if axis == metric:
        numbers = [row.latest[metric] for row in rows]
        low, high = min(numbers), max(numbers)
        return {number(v): (v - low) / (high - low) if high > low else 0.5 for v in sorted(numbers)}
    values = {config_value(row.knobs.get(axis)): row.knobs.get(axis) for row in rows}
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values.values())
    ordered = sorted(values, key=lambda text: (values[text] if numeric else 0, text))
    return {
        text: i / (len(ordered) - 1) if len(ordered) > 1 else 0.5 for i, text in enumerate(ordered)
    }


def _apart(places: dict[str, float]) -> list[tuple[str, float]]:
    shown: list[tuple[str, float]] = []
    for text, place in sorted(places.items(), key=lambda item: item[1]):
        if not shown or place - shown[-1][1] >= _LABEL_GAP:
            shown.append((text, place))
    return shown


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _axes(x: str, y: str) -> dict[str, Any]:
    return {
        "xaxis": {"title": {"text": plain_for_plotly(x)}},
        "yaxis": {"title": {"text": plain_for_plotly(y)}},
        "hovermode": "closest",
        "dragmode": "select",
        "showlegend": False,
        "uirevision": f"{x} {y}",
    }


def _parallel_layout(axes: Sequence[str]) -> dict[str, Any]:
    titles = [plain_for_plotly(shortened(knob_name(axis), 28)) for axis in axes]
    return {
        "xaxis": {
            "tickvals": list(range(len(axes))),
            "ticktext": titles,
            "range": [-0.2, len(axes) - 0.4],
            "zeroline": False,
        },
        "yaxis": {"visible": False, "range": [-0.08, 1.08]},
        "hovermode": "closest",
        "dragmode": "select",
        "showlegend": False,
        "uirevision": " ".join(axes),
    }
