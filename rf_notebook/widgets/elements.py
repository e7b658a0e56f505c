"""The panel's own widgets: a table, a document, tabs, each a script beside its Python side."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import ipywidgets
import traitlets

if TYPE_CHECKING:
    from rf_notebook.views.document import Node

#: Scripts and styles.
STATIC = Path(__file__).parent / "static"
#: Text of the panel's stylesheet.
STYLE = (STATIC / "panel.css").read_text(encoding="utf-8")


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


class Document(anywidget.AnyWidget):
    """A tree of nodes, updated in place."""

    _esm = (STATIC / "document.js").read_text(encoding="utf-8")
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


class Tabs(anywidget.AnyWidget):
    """Names of pages, one of which is shown."""

    _esm = (STATIC / "tabs.js").read_text(encoding="utf-8")
    pages = traitlets.List(traitlets.Unicode()).tag(sync=True)
    page = traitlets.Unicode("").tag(sync=True)


class Slider(anywidget.AnyWidget):
    """A number between two others."""

    _esm = (STATIC / "slider.js").read_text(encoding="utf-8")
    name = traitlets.Unicode("").tag(sync=True)
    value = traitlets.Float(0.0).tag(sync=True)
    min = traitlets.Float(0.0).tag(sync=True)
    max = traitlets.Float(1.0).tag(sync=True)
    step = traitlets.Float(0.01).tag(sync=True)


class RunsTable(anywidget.AnyWidget):
    """Rows of runs; what is selected, hidden and sorted by comes back."""

    _esm = "\n".join(
        (STATIC / name).read_text(encoding="utf-8") for name in ("popups.js", "runs_table.js")
    )
    columns: Any = traitlets.List().tag(sync=True)
    """Those that are shown."""
    available: Any = traitlets.List().tag(sync=True)
    """Those that could be, besides the run's number."""
    chosen = traitlets.List(traitlets.Unicode()).tag(sync=True)
    """Keys of the columns that the user wants; empty for the usual ones."""
    pinned = traitlets.List(traitlets.Unicode()).tag(sync=True)
    """Keys of those that stay while the others scroll."""
    widths: Any = traitlets.Dict().tag(sync=True)
    """Pixels of columns that were made wider or narrower, by key."""
    actions: Any = traitlets.List().tag(sync=True)
    """What can be asked of runs by key and by menu: verb, words, key, and why not."""
    folded = traitlets.List(traitlets.Unicode()).tag(sync=True)
    """Groups whose runs have no rows."""
    rows: Any = traitlets.List().tag(sync=True, to_json=lambda rows, _widget: json.dumps(rows))
    """Sent as one text: ipywidgets would look for buffers in every cell."""
    metric = traitlets.Unicode("").tag(sync=True)
    sort = traitlets.List(["run", False]).tag(sync=True)
    """[column, whether descending]."""
    selected = traitlets.List(traitlets.Int()).tag(sync=True)
    hidden = traitlets.List(traitlets.Int()).tag(sync=True)
    """Runs whose eye is closed."""
    empty = traitlets.Unicode("").tag(sync=True)
    """What is said where there is no row."""
    name = traitlets.Unicode("runs").tag(sync=True)
    """Of the files that are taken away."""

    def __init__(
        self,
        csv_of: Callable[[str], str] = lambda _what: "",
        on_verb: Callable[[str, int], None] = lambda _verb, _run_id: None,
        **kwargs: Any,
    ) -> None:
        """An empty table.

        Args:
            csv_of: Gives "table" or "points" as CSV.
            on_verb: Called with what was asked for, and the run that had the focus.
            kwargs: Traits.
        """
        super().__init__(**kwargs)
        self._csv_of, self._on_verb = csv_of, on_verb
        self.on_msg(self._received)

    def _received(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        """A page asks for something, or for a file.

        All pages that show this table hear the answer, and the one that asked takes it.
        """
        what, verb, run_id = content.get("what"), content.get("verb"), content.get("run")
        if content.get("kind") == "verb" and isinstance(verb, str) and type(run_id) is int:
            self._on_verb(verb, run_id)
        elif content.get("kind") == "csv" and what in ("table", "points"):
            self.send(
                {"kind": "csv", "what": what, "id": content.get("id"), "text": self._csv_of(what)}
            )


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
