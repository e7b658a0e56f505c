"""What one experiment has and another has not, on the page that compares."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from rf_notebook.views.differences import differences_table
from rf_notebook.views.document import element
from rf_notebook.views.words import shortened
from rf_notebook.widgets.elements import Document, reachable_while_busy
from rf_notebook.widgets.figure_pages import Choice, page_box, tools_row

if TYPE_CHECKING:
    from rf_notebook.widgets.protocols import PanelCommands

_NONE = "no other experiment"
_LOOK_SECONDS = 3.0
_LONGEST = 500


class BesideAnother:
    """A choice of the experiments in the same folder, and a table; ``box`` is what is shown."""

    def __init__(self, name: str, commands: PanelCommands) -> None:
        """Nothing is compared yet.

        Args:
            name: Of the experiment whose panel it is.
            commands: What it asks.
        """
        self._name, self._commands = name, commands
        self._looked_at = float("-inf")
        self._asked = 0
        self.other = Choice("beside", [_NONE], self._chosen)
        self.table = reachable_while_busy(Document())
        self.box = page_box(tools_row(self.other.widget), self.table)

    def look(self) -> None:
        """Offer what lies there now; called whenever the page is drawn."""
        if time.monotonic() - self._looked_at > _LOOK_SECONDS:
            self._looked_at = time.monotonic()
            names = self._commands.names_beside()
            chosen = [self.other.value] if self.other.is_chosen else []
            self.other.offer([*dict.fromkeys([_NONE, *names, *chosen])], _NONE)

    def _chosen(self) -> None:
        """A record may be large, so it is read in a thread; of several choices the last one is shown."""
        self._asked += 1
        name = self.other.value
        if name == _NONE:
            self.table.show(element("span"))
            return
        self.table.show(element("p", f"reading {name} …", class_="rf-dim"))
        asked = (self._asked, name)
        threading.Thread(target=self._compare, args=asked, name="rf-beside", daemon=True).start()

    def _compare(self, asked: int, name: str) -> None:
        found: Any
        try:
            found = differences_table(
                self._commands.differences_from(name), first=self._name, second=name
            )
        except Exception as refusal:  # noqa: BLE001 - a folder from elsewhere may hold anything; it is told
            words = f"{name} cannot be compared: {shortened(str(refusal), _LONGEST)}"
            found = element("p", words, class_="rf-warning", role="alert")
        if asked == self._asked:
            self.table.show(found)
