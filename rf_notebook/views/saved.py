"""What does a saved notebook show of an experiment, without a kernel and without scripts?

One bundle: our own mime type for front ends that draw it live, HTML with a picture of the curves and
the table, a PNG for viewers that strip HTML, and text. The picture is SVG inside a data: URL, for
JupyterLab's sanitizer removes inline SVG from notebooks that it does not trust, and an image cannot
run anything.
"""

from __future__ import annotations

import base64
import io
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rf_notebook.core.run import RunState
from rf_notebook.views.arrangement import Arrangement
from rf_notebook.views.document import Node, element, to_html
from rf_notebook.views.groups import Group, group_text, groupings, groups_of
from rf_notebook.views.palette import colour, dash
from rf_notebook.views.runs_table import RunsView, runs_view
from rf_notebook.views.series import Array, CurveSettings, ExperimentSeries
from rf_notebook.views.words import number, shortened

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState

#: Of the bundle's own part. Raise the version in its content when older readers would misread it.
PANEL_MIME = "application/vnd.rf-notebook.panel+json"
PANEL_VERSION = 1
_MOST_RUNS = 64
_MOST_COLUMNS = 60
_POINTS = 120
#: Of all curves of a bundle together.
_MOST_POINTS = 6000
#: Whose curves are in the bundle's own part; the pictures show the first.
_MOST_METRICS = 3
_CELL = 80
_COLOURS = 48


def static_bundle(
    name: str,
    state: ExperimentState,
    series: ExperimentSeries,
    metric: str | None,
    *,
    model_id: str | None = None,
    arrangement: Arrangement = Arrangement(),  # noqa: B008 - a value
    notice: str = "",
) -> dict[str, Any]:
    """The mime bundle of an experiment as it stands; below 300 kB whatever its size.

    Args:
        name: The experiment's name.
        state: The experiment's state.
        series: Up to date.
        metric: The curves'; the first that there is when None.
        model_id: Id of the live panel's widget model, for a reader that can show it.
        arrangement: Its columns, charts and groups.
        notice: What else is to be said, a sentence.
    """
    metric = metric or series.usual_metric
    view = runs_view(state, series, metric, arrangement.columns)
    view = replace(view, columns=view.columns[:_MOST_COLUMNS])
    summary = f"{_summary(view, metric)}{_age(state)}{f' {notice}' if notice else ''}"
    arranged = [one.metric for one in arrangement.charts if one.metric is not None]
    charts = [one for one in dict.fromkeys(arranged) if one in series.metrics and one != metric]
    metrics = [*dict.fromkeys([metric, *charts, *series.metrics])] if metric else []
    metrics = metrics[:_MOST_METRICS]
    by = arrangement.group_by
    groups = (
        groups_of(view.rows[:_MOST_RUNS], by)
        if by in groupings(series.configs.varying(state))
        else []
    )
    all_curves = {one: _curves(view, series, one, len(metrics)) for one in metrics}
    curves = all_curves[metric] if metric else {}
    bundle = {
        PANEL_MIME: {
            **_content(name, state, view, summary, all_curves, model_id),
            **({"charts": [0, *_places(charts, metrics)]} if charts else {}),
            **({"groups": _groups(groups, view, series, metrics)} if groups else {}),
        },
        "text/html": _html(name, view, summary, curves, metric),
        "text/plain": _text(name, view, summary),
    }
    if curves:
        bundle["image/png"] = _png(curves, metric)
    return bundle


def live_content(name: str, model_id: str) -> dict[str, Any]:
    """The bundle's own part for the output that holds the live panel.

    Who draws it, nothing of what is drawn.
    """
    return {
        "version": PANEL_VERSION,
        "live": True,
        "experiment": shortened(name, 200),
        "model_id": model_id,
    }


def _curves(
    view: RunsView, series: ExperimentSeries, metric: str, metrics: int
) -> dict[int, tuple[Array, Array]]:
    rows = view.rows[:_MOST_RUNS]
    points = max(20, min(_POINTS, _MOST_POINTS // max(len(rows) * metrics, 1)))
    settings = CurveSettings(metric=metric, max_points=points)
    return {
        row.run_id: curve for row in rows if len((curve := series.curve(row.run_id, settings))[0])
    }


def _content(
    name: str,
    state: ExperimentState,
    view: RunsView,
    summary: str,
    curves: dict[str, dict[int, tuple[Array, Array]]],
    model_id: str | None,
) -> dict[str, Any]:
    """What labextension/src/savedPanel.ts reads."""
    return {
        "version": PANEL_VERSION,
        "live": False,
        "experiment": shortened(name, 200),
        "identity": state.started.identity if state.started else None,
        "seq": state.last_seq,
        "summary": summary,
        "model_id": model_id,
        "columns": [shortened(column.title, _CELL) for column in view.columns],
        "runs": [
            {
                "id": row.run_id,
                "state": str(row.state),
                "best": row.run_id in view.best_runs,
                "cells": [shortened(column.text(row), _CELL) for column in view.columns],
                "values": [_sortable(column.value(row)) for column in view.columns],
            }
            for row in view.rows[:_MOST_RUNS]
        ],
        "curves": [
            {
                "metric": shortened(metric, _CELL),
                "runs": [
                    {
                        "id": run_id,
                        "samples": [round(float(x)) for x in x_N],
                        "values": [_rounded(y) for y in y_N],
                    }
                    for run_id, (x_N, y_N) in of_runs.items()
                ],
            }
            for metric, of_runs in curves.items()
        ],
    }


def _places(charts: Sequence[str], metrics: Sequence[str]) -> list[int]:
    return [place for place, metric in enumerate(metrics) if metric in charts]


def _groups(
    groups: Sequence[Group], view: RunsView, series: ExperimentSeries, metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """Their rows, and their means for each metric, in the order of the curves."""
    points = max(20, min(_POINTS, _MOST_POINTS // max(len(groups) * len(metrics), 1)))
    written = []
    for group in groups:
        runs = [row.run_id for row in group.rows]
        means = []
        for metric in metrics:
            x_N, mean_N, _ = series.mean(runs, CurveSettings(metric=metric, max_points=points))
            samples, values = [round(float(x)) for x in x_N], [_rounded(y) for y in mean_N]
            means.append({"id": group.first_run, "samples": samples, "values": values})
        written.append(
            {
                "title": shortened(f"{group.title} ({len(runs)})", _CELL),
                "runs": runs,
                "cells": [shortened(group_text(group, c), _CELL) for c in view.columns],
                "means": means,
            }
        )
    return written


def _sortable(value: Any) -> float | str | None:
    """A cell's value as a number where it is one, so that 5e-4 comes before 1e-3."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None if value is None else shortened(str(value), _CELL)
    return _rounded(value) if math.isfinite(value) else None


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


# ---- HTML


def _html(
    name: str,
    view: RunsView,
    summary: str,
    curves: dict[int, tuple[Array, Array]],
    metric: str | None,
) -> str:
    parts: list[Node] = [element("p", element("b", shortened(name, 200)), f"  {summary}")]
    if curves and metric is not None:
        svg = to_html(curves_svg(curves, metric)).replace(
            "<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1
        )
        address = "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
        alt = f"{metric} of {len(curves)} runs over samples"
        parts.append(element("img", src=address, alt=shortened(alt, 200), width="100%"))
    parts.append(runs_html_table(view))
    if len(view.rows) > _MOST_RUNS:
        parts.append(element("p", f"and {len(view.rows) - _MOST_RUNS} more runs"))
    return to_html(element("div", *parts, class_="rf-static"))


def runs_html_table(view: RunsView) -> Node:
    """The table of runs as a document."""
    heads = [element("th", shortened(column.title, _CELL), scope="col") for column in view.columns]
    rows = []
    for row in view.rows[:_MOST_RUNS]:
        cells: list[Node] = []
        for column in view.columns:
            text = shortened(column.text(row), _CELL)
            if column.key == "run":
                disc = element("span", "● ", style=f"color:{colour(row.run_id)}")
                cells.append(
                    element("td", disc, text + (" ★" if row.run_id in view.best_runs else ""))
                )
            else:
                cells.append(element("td", text))
        rows.append(element("tr", *cells))
    return element("table", element("thead", element("tr", *heads)), element("tbody", *rows))


def _summary(view: RunsView, metric: str | None) -> str:
    states = [row.state for row in view.rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in RunState if state in states)
    best = next((row for row in view.rows if {row.run_id} == view.best_runs), None)
    words = f"{len(states)} runs: {counts}." if states else "no runs."
    if best is not None and metric is not None:
        words += f" Best {shortened(metric, _CELL)}: {number(best.latest.get(metric))}, run {best.run_id}."
    return words


def _age(state: ExperimentState) -> str:
    """Of figures that may not be the last.

    A page that is closed or loaded again no longer brings them up to date.
    """
    if state.runs and (state.ended is not None or not state.ready()):
        return ""
    at = time.strftime("%d %b %Y, %H:%M")
    then = "when it was still training" if state.runs else "before it began to train"
    return f" As of {at}, {then}; run experiment.panel() for what came after."


def curves_svg(
    curves: dict[int, tuple[Array, Array]], metric: str, *, width: int = 900, height: int = 300
) -> Node:
    """Curves as a drawing that needs no script.

    Greys that can be read on light and on dark ground.
    """
    left, right, top, bottom = 60, 40, 12, 34
    x_low, x_high, y_low, y_high = _bounds(curves)

    def px(x: float) -> float:
        return left + (x - x_low) / (x_high - x_low) * (width - left - right)

    def py(y: float) -> float:
        return height - bottom - (y - y_low) / (y_high - y_low) * (height - top - bottom)

    grey = "#888888"
    parts: list[Node] = []
    for k in range(5):
        y = y_low + k / 4 * (y_high - y_low)
        x = x_low + k / 4 * (x_high - x_low)
        parts.append(
            element(
                "line",
                x1=left,
                x2=width - right,
                y1=f"{py(y):.1f}",
                y2=f"{py(y):.1f}",
                stroke=grey,
                opacity=0.35,
            )
        )
        parts.append(_label(number(y), left - 6, py(y) + 4, "end"))
        parts.append(_label(f"{x:,.0f}", px(x), height - bottom + 16, "middle"))
    parts.append(_label("samples", (left + width - right) / 2, height - 4, "middle"))
    parts.append(_label(shortened(metric, 40), left + 4, top + 8, "start"))
    for run_id, (x_N, y_N) in curves.items():
        path = " ".join(
            f"{'L' if i else 'M'}{px(x):.1f} {py(y):.1f}"
            for i, (x, y) in enumerate(zip(x_N, y_N, strict=True))
        )
        parts.append(
            element(
                "path",
                d=path,
                fill="none",
                stroke=colour(run_id),
                stroke_width=1.7,
                stroke_dasharray=" ".join(map(str, dash(run_id))) or None,
            )
        )
        parts.append(_label(str(run_id), px(x_N[-1]) + 4, py(y_N[-1]) + 4, "start", colour(run_id)))
    return element(
        "svg",
        *parts,
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        font_family="sans-serif",
        aria_label=f"{shortened(metric, 40)} of {len(curves)} runs",
    )


def _label(text: str, x: float, y: float, anchor: str, fill: str = "#888888") -> Node:
    return element(
        "text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, font_size=11, fill=fill
    )


def _bounds(curves: dict[int, tuple[Array, Array]]) -> tuple[float, float, float, float]:
    x = np.concatenate([x_N for x_N, _ in curves.values()])
    y = np.concatenate([y_N for _, y_N in curves.values()])
    x_low, x_high, y_low, y_high = map(float, (x.min(), x.max(), y.min(), y.max()))
    if x_high <= x_low:
        x_low, x_high = x_low - 1, x_high + 1
    if y_high <= y_low:
        y_low, y_high = y_low - (abs(y_low) or 1) / 2, y_high + (abs(y_high) or 1) / 2
    return x_low, x_high, y_low, y_high


# ---- PNG and text


def _png(curves: dict[int, tuple[Array, Array]], metric: str | None) -> str:
    """The curves as base64 of a PNG; drawn without pyplot, whose state is the user's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(9, 3.2), dpi=80, layout="constrained")
    axes = figure.add_subplot()
    for run_id, (x_N, y_N) in curves.items():
        style = (0, tuple(length / 2 for length in dash(run_id))) if dash(run_id) else "-"
        axes.plot(x_N, y_N, color=colour(run_id), linestyle=style, linewidth=1.4)
        axes.annotate(f" {run_id}", (x_N[-1], y_N[-1]), color=colour(run_id), fontsize=8)
    axes.set_xlabel("samples")
    # matplotlib reads $ as mathematics.
    axes.set_ylabel(shortened(metric or "", 40).replace("$", r"\$"))
    axes.grid(alpha=0.3)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    # Few colours: a picture of many noisy curves has a third of the size then.
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(_COLOURS)
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def _text(name: str, view: RunsView, summary: str) -> str:
    lines = [f"{shortened(name, 200)}: {summary}"]
    shown = [c for c in view.columns if c.key not in ("left", "samples/s", "memory")]
    cells = [[shortened(c.title, 24) for c in shown]]
    cells += [[shortened(c.text(row), 24) for c in shown] for row in view.rows[:_MOST_RUNS]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(shown))]
    lines += [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join(lines)
