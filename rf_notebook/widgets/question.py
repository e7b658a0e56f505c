"""A question before something that cannot be taken back, asked in the panel."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets

from rf_notebook.views.document import element
from rf_notebook.views.words import shortened
from rf_notebook.widgets.elements import Document, button, reachable_while_busy, set_changed
from rf_notebook.widgets.figure_pages import tools_row

_SENTENCE = 500


class Question:
    """Hidden until something is asked; ``box`` is what is shown."""

    def __init__(self) -> None:
        self._then: Callable[[], None] | None = None
        self._words = reachable_while_busy(Document())
        self.answer = reachable_while_busy(
            ipywidgets.Text(continuous_update=True, tooltip="folder to write to")
        )
        self.yes = button("Yes", style="danger")
        self.no = button("No", tooltip="leave everything as it is")
        self.box = tools_row(self._words, self.answer, self.yes, self.no)
        self.box.layout.display = "none"
        self.yes.on_click(lambda _button: self._answered(True))
        self.no.on_click(lambda _button: self._answered(False))

    def ask(
        self, words: str, yes: str, then: Callable[[], None], *, answer: str | None = None
    ) -> None:
        """Ask; an earlier question that was not answered is forgotten.

        Args:
            words: The question.
            yes: On the button that agrees.
            then: Called when that is clicked.
            answer: What stands in the text field; without it there is none, and the button is red.
        """
        self._then = then
        self._words.show(element("span", shortened(words, _SENTENCE), role="alert"))
        set_changed(self.answer, value=answer or "")
        set_changed(self.answer.layout, display=None if answer is not None else "none")
        set_changed(
            self.yes, description=yes, button_style="primary" if answer is not None else "danger"
        )
        set_changed(self.box.layout, display=None)

    def _answered(self, agreed: bool) -> None:
        then, self._then = self._then, None
        set_changed(self.box.layout, display="none")
        if agreed and then is not None:
            then()
