"""A figure in the page, drawn by plotly.js. An update sends the traces that changed, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import anywidget
import numpy as np
import traitlets

from rf_notebook.views.curves import Figure, Trace
from rf_notebook.widgets.elements import STATIC


class Chart(anywidget.AnyWidget):
    """See the module. Pages ask for the whole figure when they show the chart or have missed an update."""

    _esm = (STATIC / "chart.js").read_text(encoding="utf-8")
    label = traitlets.Unicode("chart").tag(sync=True)
    """What a screen reader says."""
    height = traitlets.Int(320).tag(sync=True)
    zoom = traitlets.List(traitlets.Float()).tag(sync=True)
    """[low, high] of the x axis, or empty for everything."""
    hover_group = traitlets.Unicode("").tag(sync=True)
    """Charts of one group show what is at one x together; "" for a chart by itself."""

    def __init__(
        self,
        on_click: Callable[[int], None] = lambda _run_id: None,
        on_brush: Callable[[list[int]], None] = lambda _run_ids: None,
        **kwargs: Any,
    ) -> None:
        """An empty figure.

        Args:
            on_click: Called with the run whose curve or point was clicked.
            on_brush: Called with the runs that boxes leave which the user has drawn, where the figure's
                ``dragmode`` is "select"; with none when they are taken away.
            kwargs: Traits.
        """
        super().__init__(**kwargs)
        self._on_click, self._on_brush = on_click, on_brush
        self._figure = Figure()
        self._seq = 0
        self._is_seen = False
        self._showing = threading.Lock()
        self.on_msg(self._received)

    @property
    def frame(self) -> dict[str, Any]:
        """The whole figure as a page gets it, its arrays as two buffers of float32."""
        message, (x, y) = changes(Figure(), self._figure)
        return {"layout": {}, "keys": [], "traces": [], **message, "x": x, "y": y}

    def show(self, figure: Figure) -> None:
        """Draw a figure, in every page that shows this chart."""
        with self._showing:
            before, self._figure = self._figure, figure
            if not self._is_seen:
                return
            message, buffers = changes(before, figure)
            if message:
                self._seq += 1
                self.send({"kind": "figure", "seq": self._seq, **message}, buffers)

    def _received(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        if content.get("kind") == "library":
            self.send({"kind": "library"}, [(STATIC / "plotly-basic.min.js").read_bytes()])
        elif content.get("kind") == "whole":
            with self._showing:
                self._is_seen = True
                message, buffers = changes(Figure(), self._figure)
                self.send({"kind": "figure", "seq": self._seq, "whole": True, **message}, buffers)
        elif content.get("kind") == "click" and isinstance(content.get("run"), int):
            self._on_click(content["run"])
        elif content.get("kind") == "brush" and isinstance(content.get("runs"), list):
            self._on_brush([one for one in content["runs"] if isinstance(one, int)])


def changes(before: Figure, after: Figure) -> tuple[dict[str, Any], Sequence[bytes]]:
    """What a page that shows one figure needs to show another one.

    Args:
        before: What it shows.
        after: What it is to show.

    Returns:
        A message, empty when nothing differs: ``layout`` and ``keys`` (of all traces, in the order
        in which they are drawn) where they differ; ``traces`` that are new or differ, each with its
        key and number of points. And the x and y of those traces, as float32, one after the other.
    """
    known = {_key(place, trace): trace for place, trace in enumerate(before.traces)}
    keyed = {_key(place, trace): trace for place, trace in enumerate(after.traces)}
    changed = {
        key: trace
        for key, trace in keyed.items()
        if key not in known or not _is_same(known[key], trace)
    }
    message: dict[str, Any] = {}
    if before.layout != after.layout:
        message["layout"] = after.layout
    if [*known] != [*keyed] or (changed and not known):
        message["keys"] = [*keyed]
    if changed:
        message["traces"] = [
            {**trace.props, "key": key, "n": len(trace.x_N)} for key, trace in changed.items()
        ]
    return message, [
        _floats([trace.x_N for trace in changed.values()]),
        _floats([trace.y_N for trace in changed.values()]),
    ]


def _key(place: int, trace: Trace) -> str:
    return trace.key or f"#{place}"


def _is_same(one: Trace, other: Trace) -> bool:
    return one is other or (
        one.props == other.props
        and np.array_equal(one.x_N, other.x_N)
        and np.array_equal(one.y_N, other.y_N)
    )


def _floats(arrays: Sequence[Any]) -> bytes:
    if not arrays:
        return b""
    return bytes(np.concatenate(arrays).astype(np.float32).tobytes())
