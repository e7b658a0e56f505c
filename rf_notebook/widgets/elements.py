"""The panel's own widgets.

A chart, a table and a document, each a script beside its Python side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import ipywidgets
import numpy as np
import traitlets

if TYPE_CHECKING:
    from rf_notebook.views.curves import Figure
    from rf_notebook.views.document import Node

_STATIC = Path(__file__).parent / "static"
#: Text of the panel's stylesheet.
STYLE = (_STATIC / "panel.css").read_text(encoding="utf-8")


def reachable_while_busy(widget: Any) -> Any:
    """Let a widget's messages be handled while a cell runs; returns the widget."""
    deliver_while_busy(getattr(widget, "comm", None))
    return widget


def deliver_while_busy(comm: Any) -> Any:
    """Let a comm's messages be handled while a cell runs; returns the comm.

    ipykernel 7.4 answers a comm on the subshell that published last (``ipykernel/comm/comm.py``,
    ``_reply_subshell_for``), which blocks behind the running cell; 7.1 to 7.3 answer on the one the
    message came from. This puts the earlier behaviour back, for our own comms only. It can go when
    ipykernel has it.
    """
    if comm is not None and hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda data, default: default  # noqa: SLF001 - ipykernel's, see above
    return comm


class Chart(anywidget.AnyWidget):
    """A figure, drawn by plotly.js in the page."""

    _esm = (_STATIC / "chart.js").read_text(encoding="utf-8")
    frame = traitlets.Dict().tag(sync=True)
    """Traces, layout, and all x and y values as two buffers of float32."""
    label = traitlets.Unicode("chart").tag(sync=True)
    """What a screen reader says."""
    height = traitlets.Int(320).tag(sync=True)
    zoom = traitlets.List(traitlets.Float()).tag(sync=True)
    """[low, high] of the x axis, or empty for everything."""

    def __init__(
        self, on_click: Callable[[int], None] = lambda _run_id: None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._on_click = on_click
        self.on_msg(self._received)

    def show(self, figure: Figure) -> None:
        """Draw a figure, in every page that shows this chart."""
        self.frame = frame_of(figure)

    def _received(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        if content.get("kind") == "library":
            self.send({"kind": "library"}, [(_STATIC / "plotly-basic.min.js").read_bytes()])
        elif content.get("kind") == "click" and isinstance(content.get("run"), int):
            self._on_click(content["run"])


def frame_of(figure: Figure) -> dict[str, Any]:
    """A figure as a message: what is text as JSON, what are numbers as two buffers."""
    arrays = [
        (trace.x_N.astype(np.float32), trace.y_N.astype(np.float32)) for trace in figure.traces
    ]
    empty = [np.empty(0, np.float32)]
    return {
        "traces": [{**trace.props, "n": len(trace.x_N)} for trace in figure.traces],
        "layout": figure.layout,
        "x": np.concatenate([x for x, _ in arrays] or empty).tobytes(),
        "y": np.concatenate([y for _, y in arrays] or empty).tobytes(),
    }


class Document(anywidget.AnyWidget):
    """A tree of nodes, updated in place."""

    _esm = (_STATIC / "document.js").read_text(encoding="utf-8")
    root = traitlets.Any(None, allow_none=True).tag(sync=True)

    def __init__(
        self, on_action: Callable[[str], None] = lambda _action: None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._on_action = on_action
        self.on_msg(self._received)

    def show(self, node: Node) -> None:
        """Show a document."""
        if node != self.root:
            self.root = node

    def _received(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        if content.get("kind") == "action" and isinstance(content.get("action"), str):
            self._on_action(content["action"])


class StyledDocument(Document):
    """The document that brings the panel's stylesheet along; each panel has one."""

    _css = STYLE


class RunsTable(anywidget.AnyWidget):
    """Rows of runs; what is selected, hidden and sorted by comes back."""

    _esm = (_STATIC / "runs_table.js").read_text(encoding="utf-8")
    columns: Any = traitlets.List().tag(sync=True)
    rows: Any = traitlets.List().tag(sync=True)
    metric = traitlets.Unicode("").tag(sync=True)
    sort = traitlets.List(["run", False]).tag(sync=True)
    """[column, whether descending]."""
    selected = traitlets.List(traitlets.Int()).tag(sync=True)
    hidden = traitlets.List(traitlets.Int()).tag(sync=True)


def button(text: str, *, tooltip: str = "", style: str = "", class_: str = "") -> ipywidgets.Button:
    """A button whose clicks arrive while a cell runs."""
    made = ipywidgets.Button(description=text, tooltip=tooltip or text, button_style=style)
    if class_:
        made.add_class(class_)
    return reachable_while_busy(made)


class OwnSetting:
    """Tells what this code sets in a widget from what the page set.

    An observer is called by the thread that set.
    """

    def __init__(self) -> None:
        self._thread: int | None = None

    @property
    def is_on(self) -> bool:
        """Whether the calling thread is the one that sets."""
        return self._thread == threading.get_ident()

    def __enter__(self) -> None:
        self._thread = threading.get_ident()

    def __exit__(self, *_error: object) -> None:
        self._thread = None


def set_changed(widget: Any, **values: Any) -> None:
    """Set what differs, so that nothing is sent for what does not."""
    for name, value in values.items():
        if getattr(widget, name) != value:
            setattr(widget, name, value)
