"""Which runs is the user looking at? One answer for the table, the charts, the pages and the buttons.

Those that meet the filter and whose eye is open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ipywidgets

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.run import RunState
from rf_notebook.views.document import element
from rf_notebook.views.runs_filter import filtered
from rf_notebook.views.words import shortened
from rf_notebook.widgets.elements import (
    Document,
    OwnSetting,
    RunsTable,
    button,
    reachable_while_busy,
    set_changed,
)

if TYPE_CHECKING:
    from rf_notebook.views.runs_table import RunsView

_OVER = (RunState.STOPPED, RunState.FAILED, RunState.DIVERGED)
_SENTENCE = 300


class ShownRuns:
    """The filter, and buttons that open and close eyes; ``box`` is what is displayed."""

    def __init__(self, table: RunsTable, on_change: Callable[[], None]) -> None:
        """All runs are shown.

        Args:
            table: Its eyes.
            on_change: Called when other runs are to be shown.
        """
        self._table = table
        self._setting = OwnSetting()
        self._view: RunsView | None = None
        self._listed: set[int] = set()
        self.filter = reachable_while_busy(
            ipywidgets.Text(
                description="filter", placeholder="lr > 1e-4, r = 32", continuous_update=True
            )
        )
        self.filter.tooltip = "conditions on columns, separated by commas"
        self.filter.layout.width = "230px"
        self.words = reachable_while_busy(Document())
        self.only_these = button("Only these", tooltip="hide all runs but the selected ones")
        self.hide_over = button(
            "Hide stopped", tooltip="hide runs that stopped, failed or diverged"
        )
        self.show_all = button("All runs", tooltip="show all runs, and clear the filter")
        self.box = ipywidgets.HBox(
            [self.filter, self.only_these, self.hide_over, self.show_all, self.words]
        )
        self.box.add_class("rf-row")
        self.filter.observe(self._filter_changed, names="value")
        self._on_change = on_change
        self.only_these.on_click(lambda _button: self._hide_others())
        self.hide_over.on_click(lambda _button: self._hide_those_over())
        self.show_all.on_click(lambda _button: self.show_every())

    def settle(self, view: RunsView) -> RunsView:
        """Say which runs are shown, and let the selection be among them.

        Args:
            view: Of all runs.

        Returns:
            That of the runs that are shown.
        """
        self._view = view
        every = {row.run_id for row in view.rows}
        wrong = ""
        try:
            self._listed = filtered(view, self.filter.value)
        except ConfigError as error:
            wrong, self._listed = shortened(str(error), _SENTENCE), every
        (self.filter.add_class if wrong else self.filter.remove_class)("rf-wrong")
        shown = self._listed.difference(self._table.hidden)
        selected = [run_id for run_id in self._table.selected if run_id in shown]
        set_changed(self._table, selected=selected)
        hidden = len(every) - len(shown)
        set_changed(self.only_these, disabled=not selected or len(selected) == len(shown))
        set_changed(
            self.hide_over,
            disabled=not any(row.state in _OVER for row in view.rows if row.run_id in shown),
        )
        set_changed(self.show_all, disabled=not hidden and not self.filter.value)
        if wrong:
            self.words.show(element("span", wrong, class_="rf-failed", role="alert"))
        elif hidden:
            self.words.show(
                element(
                    "span",
                    f"{len(shown)} of {len(every)} runs shown",
                    class_="rf-dim",
                    role="status",
                )
            )
        else:
            self.words.show(element("span"))
        return self.of(view)

    def of(self, view: RunsView) -> RunsView:
        """A view of all runs without those that are not shown."""
        shown = self._listed.difference(self._table.hidden)
        return replace(view, rows=tuple(row for row in view.rows if row.run_id in shown))

    @property
    def listed(self) -> set[int]:
        """The runs that have a row: those that meet the filter, with a closed eye, too."""
        return self._listed

    def show(self, run_id: int) -> None:
        """Have a run shown, whatever hides it."""
        set_changed(self._table, hidden=[one for one in self._table.hidden if one != run_id])
        if run_id not in self._listed:
            self.filter.value = ""

    def show_every(self) -> None:
        """Open all eyes, and clear the filter."""
        with self._setting:
            self.filter.value = ""
        set_changed(self._table, hidden=[])
        self._on_change()

    def _hide_others(self) -> None:
        if self._view is not None and self._table.selected:
            others = {row.run_id for row in self._view.rows}.difference(self._table.selected)
            set_changed(self._table, hidden=sorted(others))

    def _hide_those_over(self) -> None:
        if self._view is not None:
            over = {row.run_id for row in self._view.rows if row.state in _OVER}
            set_changed(self._table, hidden=sorted(over.union(self._table.hidden)))

    def _filter_changed(self, _change: Any) -> None:
        if not self._setting.is_on:
            self._on_change()
