"""The runs as rows: sorted, grouped, compared with a baseline, in the columns that the user wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets

from rf_notebook.core.metrics import direction
from rf_notebook.views.baseline import against
from rf_notebook.views.groups import Group, group_text, group_value, groupings, groups_of
from rf_notebook.views.palette import colour, dash
from rf_notebook.views.runs_table import RunsView, sorted_rows
from rf_notebook.views.words import knob_name, shortened
from rf_notebook.widgets.elements import (
    OwnSetting,
    RunsTable,
    button,
    reachable_while_busy,
    set_changed,
)
from rf_notebook.widgets.shown import ShownRuns

if TYPE_CHECKING:
    from rf_notebook.views.arrangement import Arrangement
    from rf_notebook.views.run_row import RunRow

_NOT_GROUPED = "not grouped"
_SENTENCE = 500
_LONGEST_CELL = 120
#: What the user changes in the table.
_OBSERVED = ("selected", "hidden", "sort", "chosen", "pinned", "widths", "folded")


class RunsGrid:
    """The table with what is above it; ``box`` is what is shown."""

    def __init__(
        self,
        name: str,
        on_change: Callable[[], None],
        *,
        csv_of: Callable[[str], str],
        on_verb: Callable[[str, int], None],
    ) -> None:
        """No rows yet.

        Args:
            name: The experiment's.
            on_change: Called when something is to be shown otherwise.
            csv_of: See RunsTable.
            on_verb: Called with what was asked for by key or menu and this grid does not do itself.
        """
        self._on_change, self._on_verb = on_change, on_verb
        self._setting = OwnSetting()
        self._sort_is_default = True
        self._varying: list[str] = []
        self.on_top: list[int] = []
        """Runs whose rows come first."""
        self.baseline: int | None = None
        """The run to which the others are compared."""
        self.table = reachable_while_busy(RunsTable(csv_of, self.do, name=name))
        self.shown = ShownRuns(self.table, on_change)
        self.group_by = reachable_while_busy(
            ipywidgets.Dropdown(
                description="group by",
                options=[(_NOT_GROUPED, "")],
                layout={"width": "max-content", "max_width": "300px"},
            )
        )
        self._wanted_group = ""
        self.fold_all = button("Fold", tooltip="show the groups without their runs")
        self.shown.box.children = (*self.shown.box.children, self.group_by, self.fold_all)
        self.box = ipywidgets.VBox([self.shown.box, self.table])
        self.table.observe(self._changed, names=list(_OBSERVED))
        self.group_by.observe(self._grouped, names="value")
        self.fold_all.on_click(lambda _button: self._fold_all())
        self._groups: list[Group] = []
        self._shape: tuple[Any, ...] = ()
        self._made: dict[int, tuple[RunRow, tuple[Any, ...], dict[str, Any]]] = {}

    @property
    def selected(self) -> list[int]:
        """The selected runs, in order of their ids."""
        return list(self.table.selected)

    # ---- showing

    def show(self, view: RunsView, varying: Sequence[str]) -> tuple[RunsView, list[Group]]:
        """Bring rows and columns up to date.

        Args:
            view: Of all runs.
            varying: Keys of the knobs in which they differ.

        Returns:
            The view of the runs that are shown, and their groups where they are grouped.
        """
        with self._setting:
            shown = self.shown.settle(view)
            self._offer_groups(varying)
        listed = [row for row in self._sorted(view) if row.run_id in self.shown.listed]
        by = self.group_by.value
        self._groups = groups_of(listed, by) if by else []
        columns = view.columns
        pinned = [c for c in columns if c.key in self.table.pinned and c.key != "run"]
        if pinned:
            columns = (columns[0], *pinned, *(c for c in columns[1:] if c not in pinned))
        base = next((row for row in view.rows if row.run_id == self.baseline), None)

        shape = (tuple(column.key for column in columns), base)
        if self._shape != shape:
            self._shape, self._made = shape, {}

        def made(row: RunRow) -> dict[str, Any]:
            """A row as it is sent; what does not change is not written anew."""
            marks = (row.run_id in view.best_runs, row.run_id in self.on_top, colour(row.run_id))
            held = self._made.get(row.run_id)
            if held is None or held[0] != row or held[1] != marks:
                held = self._made[row.run_id] = (row, marks, written(row))
            return held[2]

        def written(row: RunRow) -> dict[str, Any]:
            texts = [column.text(row) + against(column, row, base) for column in columns]
            hints = {
                place: shortened(hint, _SENTENCE)
                for place, column in enumerate(columns)
                if (hint := column.hint(row))
            }
            mark = "⚑ baseline" if row.run_id == self.baseline else ""
            mark = mark or ("⤒" if row.run_id in self.on_top else "")
            return {
                "run": row.run_id,
                "state": str(row.state),
                "colour": colour(row.run_id),
                "dash": list(dash(row.run_id)),
                "best": row.run_id in view.best_runs,
                "cells": [shortened(text, _LONGEST_CELL) for text in texts],
                **({"mark": mark} if mark else {}),
                **({"hints": hints} if hints else {}),
                **({"error": shortened(row.error, _SENTENCE)} if row.error else {}),
            }

        rows: list[dict[str, Any]] = []
        if by:
            self._sort_groups(view)
            for group in self._groups:
                rows.append(
                    {
                        "group": group.key,
                        "title": shortened(f"{group.title} ({len(group.rows)})", _LONGEST_CELL),
                        "colour": colour(group.first_run),
                        "folded": group.key in self.table.folded,
                        "cells": [
                            shortened(group_text(group, column), _LONGEST_CELL)
                            for column in columns
                        ],
                    }
                )
                if group.key not in self.table.folded:
                    rows += map(made, group.rows)
        else:
            rows += map(made, listed)
        described = [
            {"key": c.key, "title": shortened(c.title, 40), "text": c.is_text} for c in columns
        ]
        available = [
            {"key": c.key, "title": shortened(c.title, 60)}
            for c in view.available
            if c.key != "run"
        ]
        with self.table.hold_sync():
            set_changed(
                self.table,
                columns=described,
                available=available,
                rows=rows,
                metric=view.metric or "",
                empty="no run meets the filter" if view.rows else "no runs yet",
            )
        set_changed(self.fold_all.layout, display=None if by else "none")
        unfolded = any(group.key not in self.table.folded for group in self._groups)
        set_changed(self.fold_all, description="Fold" if unfolded else "Unfold")
        there = {row.run_id for row in shown.rows}
        groups = [
            Group(key=group.key, title=group.title, rows=rows_there)
            for group in self._groups
            if (rows_there := tuple(row for row in group.rows if row.run_id in there))
        ]
        return shown, groups

    def _sorted(self, view: RunsView) -> list[RunRow]:
        key, descending = self.table.sort
        if self._sort_is_default and view.metric is not None:
            key, descending = view.metric, direction(view.metric) == "max"
            with self._setting:
                set_changed(self.table, sort=[key, descending])
        rows = sorted_rows(view, key, descending=descending)
        first = [one for one in self.on_top if one != self.baseline]
        first = [*([] if self.baseline is None else [self.baseline]), *first]
        place = {run_id: number for number, run_id in enumerate(first)}
        return sorted(rows, key=lambda row: place.get(row.run_id, len(place)))

    def _sort_groups(self, view: RunsView) -> None:
        """By the mean of the column by which the runs are sorted; where it has none, as they come."""
        key, descending = self.table.sort
        column = next((c for c in view.available if c.key == key), None)
        if column is None or column.is_text:
            return

        def rank(group: Group) -> tuple[bool, float]:
            value = group_value(group, column)
            return (value is None, 0.0 if value is None else -value if descending else value)

        self._groups.sort(key=rank)

    def _offer_groups(self, varying: Sequence[str]) -> None:
        possible = groupings(varying)
        if possible == self._varying:
            return
        self._varying = possible
        options = [(_NOT_GROUPED, ""), *((shortened(knob_name(one), 40), one) for one in possible)]
        wanted = self._wanted_group if self._wanted_group in possible else ""
        set_changed(self.group_by, options=options)
        set_changed(self.group_by, value=wanted)

    # ---- acting

    def toggle(self, run_id: int) -> None:
        """Select a run, or no longer."""
        self.table.selected = sorted(set(self.table.selected) ^ {run_id})

    def select_all(self, run_ids: Sequence[int]) -> None:
        """Select these runs and no others; those that are not shown are left out."""
        self.table.selected = sorted(set(run_ids))

    def select(self, run_id: int) -> None:
        """Select a run alone, and have it shown."""
        self.shown.show(run_id)
        self.table.selected = [run_id]

    def do(self, verb: str, run_id: int) -> None:
        """What was asked for by a key or the menu of a run."""
        chosen = self.selected if run_id in self.table.selected else [run_id]
        match verb:
            case "hide":
                hidden = set(self.table.hidden)
                gone = hidden.union(chosen) if run_id not in hidden else hidden.difference(chosen)
                self.table.hidden = sorted(gone)
            case "keep on top":
                is_kept = run_id in self.on_top
                others = [one for one in self.on_top if one not in chosen]
                self.on_top = others if is_kept else [*others, *chosen]
                self._on_change()
            case "baseline":
                self.baseline = None if self.baseline == run_id else run_id
                self._on_change()
            case _:
                self._on_verb(verb, run_id)

    def _changed(self, change: Any) -> None:
        if self._setting.is_on:
            return
        if change["name"] == "sort":
            self._sort_is_default = False
        self._on_change()

    def _grouped(self, change: Any) -> None:
        if not self._setting.is_on:
            self._wanted_group = change["new"]
            self._on_change()

    def _fold_all(self) -> None:
        keys = [group.key for group in self._groups]
        is_folded = all(key in self.table.folded for key in keys)
        others = [key for key in self.table.folded if key not in keys]
        self.table.folded = others if is_folded else [*others, *keys]

    # ---- remembering

    def arrangement(self) -> dict[str, Any]:
        """Its part of an ``Arrangement``."""
        table = self.table
        return {
            "columns": tuple(table.chosen),
            "pinned": tuple(table.pinned),
            "widths": dict(table.widths),
            "sort": None if self._sort_is_default else (table.sort[0], bool(table.sort[1])),
            "group_by": self._wanted_group,
            "folded": tuple(table.folded),
            "hidden": tuple(table.hidden),
            "on_top": tuple(self.on_top),
            "baseline": self.baseline,
        }

    def arrange(self, given: Arrangement) -> None:
        """Have rows and columns as they were."""
        widths: Mapping[str, int] = given.widths
        with self._setting:
            set_changed(
                self.table,
                chosen=list(given.columns),
                pinned=list(given.pinned),
                widths=dict(widths),
                folded=list(given.folded),
                hidden=list(given.hidden),
            )
            if given.sort is not None:
                self._sort_is_default = False
                set_changed(self.table, sort=list(given.sort))
        self._wanted_group = given.group_by
        self.on_top, self.baseline = list(given.on_top), given.baseline
