"""The plan of a replay, and the button that agrees to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets
from IPython.display import display

from rf_notebook.core.errors import RFNotebookError
from rf_notebook.views.document import element
from rf_notebook.views.words import shortened
from rf_notebook.widgets.elements import Document, button, reachable_while_busy


def show_plan(
    text: str, *, can_start: bool, start: Callable[[Callable[[str], None]], Any]
) -> ipywidgets.Widget:
    """Show the plan below the running cell.

    Args:
        text: What would happen, the code included.
        can_start: Whether there is a button.
        start: Called when it is clicked, with a function that takes what there is to tell later;
            shows the replay's panel by itself.
    """
    words = reachable_while_busy(Document())
    words.show(element("div", element("pre", text)))
    told = reachable_while_busy(Document())
    agree = button(
        "Run this code and replay",
        style="danger",
        tooltip="runs the code above, which its author wrote",
    )
    agree.layout.width = "max-content"
    output = ipywidgets.Output()

    def tell(sentence: str) -> None:
        told.show(element("span", shortened(sentence, 1000), role="alert"))

    def clicked(_button: Any) -> None:
        agree.disabled = True
        try:
            with output:
                start(tell)
        except RFNotebookError as error:
            tell(str(error))
            agree.disabled = False

    agree.on_click(clicked)
    box = ipywidgets.VBox([words, agree, told, output] if can_start else [words])
    display(box)
    return box
