"""Where a name, tags and a note are typed: of one run, of several, or of the experiment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets

from rf_notebook.core.labels import UNLABELLED, Label
from rf_notebook.views.document import element
from rf_notebook.widgets.elements import Document, button, reachable_while_busy, set_changed

if TYPE_CHECKING:
    from rf_notebook.widgets.protocols import PanelSession


class LabelForm:
    """Hidden until it is opened; ``box`` is what is shown."""

    def __init__(
        self, session: PanelSession, save: Callable[[int | None, dict[str, Any]], None]
    ) -> None:
        """Not open.

        Args:
            session: The experiment.
            save: Called with each run, or None for the experiment, and what is to differ:
                arguments of ``PanelCommands.label``.
        """
        self._session, self._save = session, save
        self._run_ids: tuple[int | None, ...] = ()
        self._before = UNLABELLED
        live = reachable_while_busy
        self._title = live(Document())
        wide = {"width": "320px"}
        self.name = live(ipywidgets.Text(description="name", placeholder="small rate", layout=wide))
        self.tags = live(
            ipywidgets.Text(description="tags", placeholder="keep, for the paper", layout=wide)
        )
        self.note = live(
            ipywidgets.Textarea(
                description="note", placeholder="what you found", rows=3, layout={"width": "640px"}
            )
        )
        self.tags.tooltip = "separated by commas"
        self.save = button("Save", style="primary")
        self.cancel = button("Cancel", tooltip="leave the label as it is")
        row = ipywidgets.HBox([self.name, self.tags])
        row.add_class("rf-row")
        buttons = ipywidgets.HBox([self.save, self.cancel])
        buttons.add_class("rf-row")
        self.box = ipywidgets.VBox([self._title, row, self.note, buttons])
        self.box.add_class("rf-form")
        self.box.layout.display = "none"
        self.save.on_click(lambda _button: self._saved())
        self.cancel.on_click(lambda _button: self.close())

    def open(self, run_ids: Sequence[int]) -> None:
        """Show what there is, to be changed.

        Args:
            run_ids: Whose label; the experiment's when empty. Of several, what all of them have.
        """
        self._run_ids = tuple(run_ids) or (None,)
        state = self._session.recent_state
        labels = [state.label(run_id) for run_id in self._run_ids]
        first = labels[0]
        self._before = Label(
            name=first.name,
            tags=tuple(tag for tag in first.tags if all(tag in one.tags for one in labels)),
            note=first.note if all(one.note == first.note for one in labels) else "",
        )
        of = ", ".join(f"run {run_id}" for run_id in run_ids) or "the experiment"
        self._title.show(element("b", f"Label {of}"))
        set_changed(self.name, value=self._before.name)
        set_changed(self.tags, value=", ".join(self._before.tags))
        set_changed(self.note, value=self._before.note)
        set_changed(self.name.layout, display=None if len(run_ids) == 1 else "none")
        set_changed(self.box.layout, display=None)

    def close(self) -> None:
        """Hide it."""
        set_changed(self.box.layout, display="none")

    def _saved(self) -> None:
        tags = tuple(tag.strip() for tag in self.tags.value.split(",") if tag.strip())
        typed = Label(name=self.name.value, tags=tags, note=self.note.value)
        before, changed = self._before, dict[str, Any]()
        if typed.name != before.name and len(self._run_ids) == 1:
            changed["name"] = typed.name
        if typed.note != before.note:
            changed["note"] = typed.note
        self.close()
        for run_id in self._run_ids:
            own = self._session.recent_state.label(run_id).tags
            kept = [tag for tag in own if tag not in before.tags or tag in typed.tags]
            given = {**changed, "tags": tuple(dict.fromkeys([*kept, *typed.tags]))}
            if typed.tags == before.tags or given["tags"] == own:
                del given["tags"]
            if given:
                self._save(run_id, given)
