"""The live panel: curves, runs, and the buttons that change the experiment while it trains.

One panel an experiment and kernel. Shown twice (a second tab, a cell run again) it is the same
widgets twice, so that all views agree. Handlers run on the kernel's main thread or on a subshell's,
updates on the pump's; one lock orders them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets

from rf_notebook.core.errors import ConfigError, RFNotebookError
from rf_notebook.core.metrics import direction
from rf_notebook.core.run import RunState
from rf_notebook.core.status import Refusal, Status
from rf_notebook.results.log_lines import log_lines
from rf_notebook.views.automation import automation
from rf_notebook.views.curves import Emphasis
from rf_notebook.views.document import Node, element
from rf_notebook.views.header import header as experiment_header
from rf_notebook.views.lineage import lineage
from rf_notebook.views.messages import failure_line, log_of, messages
from rf_notebook.views.palette import colour
from rf_notebook.views.runs_table import RunsView, filtered, runs_view, sorted_rows
from rf_notebook.views.samples import samples
from rf_notebook.views.schedule import schedule
from rf_notebook.views.series import ExperimentSeries
from rf_notebook.views.words import shortened
from rf_notebook.widgets.clone_form import CloneForm
from rf_notebook.widgets.controls import VERBS, allowed_runs, selection_words, why_not
from rf_notebook.widgets.elements import (
    Document,
    OwnSetting,
    RunsTable,
    StyledDocument,
    button,
    reachable_while_busy,
    set_changed,
)
from rf_notebook.widgets.figure_pages import ComparePage, CurvesPage, page_box
from rf_notebook.widgets.pump import Pump
from rf_notebook.widgets.question import Question

if TYPE_CHECKING:
    from rf_notebook.core.receipt import Receipt
    from rf_notebook.widgets.protocols import PanelCommands, PanelSession

PAGES = ("Curves", "Compare", "Lineage", "Automation", "Schedule", "Samples", "Log", "Messages")
_SENTENCE = 500


class Panel:
    """See the module. ``widget`` is what is displayed."""

    def __init__(
        self,
        session: PanelSession,
        commands: PanelCommands,
        after_update: Callable[[], None] = lambda: None,
    ) -> None:
        """A panel that shows the experiment as it is now; ``start`` makes it live.

        Args:
            session: The experiment.
            commands: What its buttons ask for.
            after_update: Called after each update that the panel made by itself, by the thread that
                made it.
        """
        self._after_update = after_update
        self._session, self._commands = session, commands
        self._lock = threading.RLock()
        self.series = ExperimentSeries()
        self._view: RunsView | None = None
        self._refusals: deque[Refusal] = deque(maxlen=50)
        self._pending: list[tuple[Receipt[Any], str]] = []
        self._sort_is_default = True
        self._offered: tuple[list[str], str] | None = None
        self._setting = OwnSetting()
        self._said: Node = element(
            "span", "Select runs in the table to act on them.", class_="rf-dim"
        )
        self._make_widgets()
        self._pump = self._new_pump()
        self.update()

    # ---- widgets

    def _make_widgets(self) -> None:
        live = reachable_while_busy
        self.header = live(StyledDocument())
        self.header.add_class("rf-header")
        self.pause = button("Pause all", tooltip="no run gets a turn until you resume")
        self.end = button("End…", tooltip="stop training and close; everything is kept")
        top = ipywidgets.HBox([self.header, ipywidgets.HBox([self.pause, self.end])])
        top.add_class("rf-top")

        self.tabs = {
            name: button(name, tooltip=f"show {name.lower()}", class_="rf-tab") for name in PAGES
        }
        tabs = ipywidgets.HBox(list(self.tabs.values()))
        tabs.add_class("rf-tabs")
        self.page = PAGES[0]
        self.documents: dict[str, Document] = {}
        self.curves = CurvesPage(self.update, self._toggle)
        self.compare = ComparePage(self.update, self._toggle)
        self._page_boxes = {
            "Curves": self.curves.box,
            "Compare": self.compare.box,
            **{name: self._text_page(name) for name in PAGES[2:]},
        }

        self.selection_label = live(Document())
        self.buttons = {verb: button(words, tooltip=verb) for verb, words in VERBS.items()}
        self.buttons["clone"].button_style = "primary"
        self.filter = live(
            ipywidgets.Text(
                placeholder="filter: lr > 1e-4, r = 32", description="", continuous_update=True
            )
        )
        self.filter.tooltip = "conditions on columns, separated by commas"
        self.filter.layout.width = "210px"
        controls = ipywidgets.HBox([self.selection_label, *self.buttons.values(), self.filter])
        controls.add_class("rf-row")
        controls.add_class("rf-controls")

        self.question = Question()
        self.table = live(RunsTable())
        self.clone_form = CloneForm(
            self._session, self._commands, lambda receipt: self._follow(receipt, "clone")
        )
        self.toast = live(Document(on_action=self.act))
        self.toast.add_class("rf-toast")
        self.widget = ipywidgets.VBox(
            [
                top,
                tabs,
                *self._page_boxes.values(),
                controls,
                self.question.box,
                self.toast,
                self.table,
                self.clone_form.box,
            ]
        )
        self.widget.add_class("rf-panel")
        self._connect()
        self.show_page(PAGES[0])

    def _text_page(self, name: str) -> ipywidgets.VBox:
        document = reachable_while_busy(Document(on_action=self.act))
        self.documents[name] = document
        return page_box(document)

    def _connect(self) -> None:
        for name, tab in self.tabs.items():
            tab.on_click(lambda _button, name=name: self.show_page(name))
        for verb, control in self.buttons.items():
            control.on_click(lambda _button, verb=verb: self.clicked(verb))
        self.pause.on_click(lambda _button: self._toggle_pause())
        self.end.on_click(lambda _button: self._ask_end())
        self.table.observe(self._table_changed, names=["selected", "hidden", "sort"])
        self.filter.observe(lambda _change: self.update(), names="value")

    # ---- life

    def start(self) -> None:
        """Go on by itself from now on."""
        with self._lock:
            if not self._pump.is_alive:
                self._pump = self._new_pump()
                self._pump.start()

    def _new_pump(self) -> Pump:
        def turn() -> None:
            self.update()
            self._after_update()

        return Pump(
            self._session.wait_for_change, turn, name=self._session.name, on_error=self._draw_failed
        )

    def close(self) -> None:
        """End the updates; what is shown stays."""
        self._pump.end()

    @property
    def is_live(self) -> bool:
        """Whether it goes on by itself."""
        return self._pump.is_alive

    # ---- showing

    def update(self) -> None:
        """Bring everything that can be seen up to date; any thread."""
        with self._lock:
            state, status = self._session.recent_state, self._session.status()
            self.series.update(state)
            self._offer_metrics()
            metric = self.curves.metric.value if self.series.metrics else None
            view = self._view = runs_view(state, self.series, metric)
            self._settle_receipts()
            self.header.show(experiment_header(self._session.name, state, status))
            set_changed(
                self.pause,
                description="Resume all" if status.paused else "Pause all",
                disabled=not status.open,
            )
            set_changed(self.end, disabled=not status.open)
            self._show_table(view)
            self._show_controls(status)
            self._show_toast()
            self._show_page_content(view)

    def show_page(self, name: str) -> None:
        """Turn to one of PAGES."""
        with self._lock:
            self.page = name
            for other, box in self._page_boxes.items():
                set_changed(box.layout, display=None if other == name else "none")
                tab = self.tabs[other]
                (tab.add_class if other == name else tab.remove_class)("rf-on")
            if self._view is not None:
                self.update()

    def _offer_metrics(self) -> None:
        """Offer the metrics that there are."""
        metrics, usual = self.series.metrics, self.series.usual_metric
        if usual is not None and self._offered != (metrics, usual):
            self._offered = (metrics, usual)
            self.curves.metric.offer(metrics, usual)
            self.compare.offer(metrics)

    def _show_table(self, view: RunsView) -> None:
        key, descending = self.table.sort
        if self._sort_is_default and view.metric is not None:
            key, descending = view.metric, direction(view.metric) == "max"
            with self._setting:
                set_changed(self.table, sort=[key, descending])
        rows = sorted_rows(view, key, descending=descending)
        try:
            wanted = filtered(view, self.filter.value)
            self.filter.remove_class("rf-wrong")
            set_changed(self.filter, tooltip="conditions on columns, separated by commas")
        except ConfigError as error:
            wanted = {row.run_id for row in rows}
            self.filter.add_class("rf-wrong")
            set_changed(self.filter, tooltip=shortened(str(error), _SENTENCE))
        alive = {row.run_id for row in rows}
        if not alive.issuperset(self.table.selected):
            with self._setting:
                set_changed(self.table, selected=[i for i in self.table.selected if i in alive])
        columns = [
            {"key": c.key, "title": shortened(c.title, 40), "text": c.is_text} for c in view.columns
        ]
        made = [
            {
                "run": row.run_id,
                "state": str(row.state),
                "colour": colour(row.run_id),
                "best": row.run_id in view.best_runs,
                "cells": [shortened(c.text(row), 120) for c in view.columns],
                **({"error": shortened(row.error, _SENTENCE)} if row.error else {}),
            }
            for row in rows
            if row.run_id in wanted
        ]
        with self.table.hold_sync():
            set_changed(self.table, columns=columns, rows=made, metric=view.metric or "")

    def _show_controls(self, status: Status) -> None:
        state = self._session.recent_state
        selected = self.table.selected
        self.selection_label.show(element("b", selection_words(selected, state)))
        for verb, control in self.buttons.items():
            reason = why_not(verb, selected, state, status)
            tip = (
                shortened(reason, 300)
                if reason
                else f"{verb} {', '.join(f'run {i}' for i in selected)}"
            )
            set_changed(control, disabled=reason is not None, tooltip=tip)

    def _show_page_content(self, view: RunsView) -> None:
        state, selected = self._session.recent_state, self.table.selected
        match self.page:
            case "Curves":
                self.curves.show(
                    state, self.series, view, Emphasis(selected=selected, hidden=self.table.hidden)
                )
            case "Compare":
                self.compare.show(view, selected)
            case "Lineage":
                self.documents["Lineage"].show(lineage(state, view.metric, view))
            case "Automation":
                self.documents["Automation"].show(automation(state, self._session.status()))
            case "Schedule":
                self.documents["Schedule"].show(schedule(state))
            case "Samples":
                self.documents["Samples"].show(samples(state, selected))
            case "Log":
                lines = {row.run_id: log_lines(state, row.run_id) for row in view.rows}
                self.documents["Log"].show(log_of(selected, lines))
            case "Messages":
                self.documents["Messages"].show(messages(state, list(self._refusals)))

    def _draw_failed(self, text: str) -> None:
        self._refuse(f"the panel could not be drawn: {text.strip().splitlines()[-1]}")

    # ---- acting

    def _table_changed(self, change: Any) -> None:
        if self._setting.is_on:
            return
        if change["name"] == "sort":
            self._sort_is_default = False
        self.update()

    def _toggle(self, run_id: int) -> None:
        chosen = set(self.table.selected) ^ {run_id}
        self.table.selected = sorted(chosen)

    def act(self, action: str) -> None:
        """An action of a document: "select 3", "clone 3", "undo 3", "pin 3", "unpin 3", "wheel"."""
        verb, _, number = action.partition(" ")
        if action == "wheel":
            self._ask("take the wheel", lambda: self._commands.automate(None, "button"))
        if not number.isdigit() or int(number) not in self._session.recent_state.runs:
            return
        if verb == "select":
            self.table.selected = [int(number)]
        elif verb == "clone":
            self.table.selected = [int(number)]
            self.clicked("clone")
        elif verb == "undo":
            self._ask(f"undo run {number}", lambda: self._commands.undo(int(number), "button"))
        elif verb in ("pin", "unpin"):
            self._ask(
                f"{verb} run {number}",
                lambda: self._commands.pin(int(number), verb == "pin", "button"),
            )

    def _ask(self, words: str, ask: Callable[[], Receipt[Any]]) -> None:
        try:
            self._follow(ask(), words)
        except RFNotebookError as error:
            self._refuse(str(error))

    def clicked(self, verb: str) -> None:
        """A button, or an action of a page, was clicked."""
        with self._lock:
            state, status = self._session.recent_state, self._session.status()
            chosen = allowed_runs(verb, self.table.selected, state, status)
            reason = why_not(verb, self.table.selected, state, status)
            if reason is not None:
                self._refuse(reason)
                return
            if verb in ("stop", "resume"):
                self._operate(verb, chosen)
            elif verb == "delete":
                names = ", ".join(f"run {run_id}" for run_id in chosen)
                self.question.ask(
                    f"Delete {names}? Checkpoints and memory go; the figures stay in the record.",
                    "Delete",
                    lambda: self._operate("delete", chosen),
                )
            elif verb == "export":
                default = f"{self._session.name}-run-{chosen[0]}"
                self.question.ask(
                    f"Export run {chosen[0]} to the folder",
                    "Export",
                    lambda: self._export(chosen[0], self.question.answer.value.strip()),
                    answer=default,
                )
            else:
                self.clone_form.open(chosen[0], warm=verb == "warm start")

    def _operate(self, verb: str, run_ids: list[int]) -> None:
        self._ask(verb, lambda: self._commands.operate(verb, run_ids, "button"))

    def _export(self, run_id: int, path: str) -> None:
        """In a thread of its own: writing takes a while."""
        self._say(element("span", f"exporting run {run_id} to {path} …"))

        def export() -> None:
            try:
                written = self._commands.export(run_id, Path(path), origin="button")
                self._say(element("span", f"✓ run {run_id} is in {written}", class_="rf-completed"))
            except Exception as error:  # noqa: BLE001 - told where it was asked
                self._refuse(f"run {run_id} was not exported: {error}")

        threading.Thread(target=export, name="rf-export", daemon=True).start()

    def _toggle_pause(self) -> None:
        paused = self._session.status().paused
        self._ask(
            "resume all" if paused else "pause all",
            lambda: self._commands.set_paused(not paused, "button"),
        )

    def _ask_end(self) -> None:
        self.question.ask(
            "End the experiment now? Everything trained is kept, and running its cell again continues it.",
            "End",
            self._end,
        )

    def _end(self) -> None:
        def ended(error: BaseException | None) -> None:
            if error is not None:
                self._refuse(f"the experiment could not be ended: {error}")
            else:
                self._say(
                    element("span", "✓ the experiment has ended; run its cell again to continue")
                )
            self.update()

        self._say(element("span", "ending …"))
        self._commands.end_soon(ended)

    # ---- telling

    def _follow(self, receipt: Receipt[Any], words: str) -> None:
        """Tell how an operation went, as soon as it is known."""
        with self._lock:
            self._pending.append((receipt, words))
            if not receipt.done():
                self._say(element("span", f"{words}: waiting for the next step …", class_="rf-dim"))
            self.update()

    def _settle_receipts(self) -> None:
        for pair in [pair for pair in self._pending if pair[0].done()]:
            self._pending.remove(pair)
            receipt, words = pair
            try:
                made = receipt.result(timeout=0)
            except Exception as error:  # noqa: BLE001 - a refusal is told where it was asked
                self._refuse(str(error))
                continue
            names = [
                str(getattr(one, "id", one))
                for one in (made if isinstance(made, list) else [made])
                if one is not None
            ]
            self._say(
                element(
                    "span",
                    f"✓ {words}: {', '.join(map(_run_name, names))}" if names else f"✓ {words}",
                )
            )

    def _refuse(self, text: str) -> None:
        with self._lock:
            self._refusals.append(Refusal(at=time.time(), text=text))
        self._say(
            element(
                "span",
                element("b", "✕ "),
                shortened(text, _SENTENCE),
                class_="rf-failed",
                role="alert",
            )
        )

    def _say(self, node: Node) -> None:
        with self._lock:
            self._said = node
            self._show_toast()

    def _show_toast(self) -> None:
        """What was said last, and the newest failure with what to do about it."""
        failed = [
            r for r in list(self._session.recent_state.runs.values()) if r.failure is not None
        ]
        failed = [record for record in failed if record.state is RunState.FAILED]
        newest = failure_line(failed[-1]) if failed else None
        self.toast.show(element("div", self._said, newest, role="status"))


def _run_name(text: str) -> str:
    return f"run {text}" if text.isdigit() else text
