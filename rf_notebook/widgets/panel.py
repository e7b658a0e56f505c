"""The live panel: curves, runs, and the buttons that change the experiment while it trains.

One panel an experiment and kernel. Shown twice (a second tab, a cell run again) it is the same
widgets twice, so that all views agree. Handlers run on the kernel's main thread or on a subshell's,
updates on the pump's; one lock orders them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets

from rf_notebook.core.errors import RFNotebookError
from rf_notebook.core.run import RunState
from rf_notebook.core.status import Refusal, Status
from rf_notebook.results.log_lines import log_lines
from rf_notebook.views.arrangement import Arrangement
from rf_notebook.views.automation import automation
from rf_notebook.views.csv_text import points_csv, table_csv
from rf_notebook.views.curves import Emphasis
from rf_notebook.views.document import Node, element
from rf_notebook.views.header import header as experiment_header
from rf_notebook.views.lineage import lineage
from rf_notebook.views.messages import failure_line, log_of, messages
from rf_notebook.views.run_page import run_page
from rf_notebook.views.runs_table import RunsView, runs_view
from rf_notebook.views.samples import samples
from rf_notebook.views.schedule import schedule
from rf_notebook.views.series import ExperimentSeries
from rf_notebook.views.words import shortened
from rf_notebook.widgets.beside import BesideAnother
from rf_notebook.widgets.clone_form import CloneForm
from rf_notebook.widgets.controls import (
    KEYS,
    VERBS,
    VIEW_VERBS,
    allowed_runs,
    selection_words,
    why_not,
)
from rf_notebook.widgets.curves_page import CurvesPage
from rf_notebook.widgets.elements import (
    Document,
    StyledDocument,
    Tabs,
    button,
    reachable_while_busy,
    set_changed,
)
from rf_notebook.widgets.figure_pages import ComparePage, page_box
from rf_notebook.widgets.label_form import LabelForm
from rf_notebook.widgets.pump import Pump
from rf_notebook.widgets.question import Question
from rf_notebook.widgets.runs_grid import RunsGrid

if TYPE_CHECKING:
    from rf_notebook.core.receipt import Receipt
    from rf_notebook.views.groups import Group
    from rf_notebook.widgets.protocols import PanelCommands, PanelSession

PAGES = (
    "Curves",
    "Compare",
    "Run",
    "Lineage",
    "Automation",
    "Schedule",
    "Samples",
    "Log",
    "Messages",
)
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
        self._offered: tuple[list[str], str] | None = None
        self._opened: int | None = None
        """The run whose page is shown."""
        self._said: Node = element("span")
        self._make_widgets()
        self._kept = Arrangement.from_json(session.arrangement())
        self.grid.arrange(self._kept)
        self.curves.arrange(self._kept.charts, self._kept.x)
        self._pump = self._new_pump()
        self.update()

    # ---- widgets

    def _make_widgets(self) -> None:
        live = reachable_while_busy
        self.header = live(StyledDocument())
        self.header.add_class("rf-header")
        self.pause = button("Pause all", tooltip="no run gets a turn until you resume")
        self.label = button("✎ Note…", tooltip="tags and a note of the experiment")
        self.end = button("End…", tooltip="stop training and close; everything is kept")
        top = ipywidgets.HBox([self.header, ipywidgets.HBox([self.label, self.pause, self.end])])
        top.add_class("rf-top")

        self.tabs = live(Tabs(pages=list(PAGES), page=PAGES[0]))
        self.page = PAGES[0]
        self.documents: dict[str, Document] = {}
        self.grid = RunsGrid(
            self._session.name, self.update, csv_of=self._csv_of, on_verb=self._asked
        )
        self.table, self.shown = self.grid.table, self.grid.shown
        self.curves = CurvesPage(self.update, self._toggle)
        self.compare = ComparePage(self.update, self._toggle, self.grid.select_all)
        self.beside = BesideAnother(self._session.name, self._commands)
        self._page_boxes = {
            "Curves": self.curves.box,
            "Compare": ipywidgets.VBox([self.compare.box, self.beside.box]),
            **{name: self._text_page(name) for name in PAGES[2:]},
        }

        self.selection_label = live(Document())
        self.buttons = {verb: button(words, tooltip=verb) for verb, words in VERBS.items()}
        self.buttons["clone"].button_style = "primary"
        controls = ipywidgets.HBox([self.selection_label, *self.buttons.values()])
        controls.add_class("rf-row")
        controls.add_class("rf-controls")

        self.question = Question()
        self.clone_form = CloneForm(
            self._session, self._commands, lambda receipt: self._follow(receipt, "clone")
        )
        self.label_form = LabelForm(self._session, self._label)
        self.toast = live(Document(on_action=self.act))
        self.toast.add_class("rf-toast")
        self.widget = ipywidgets.VBox(
            [
                top,
                self.tabs,
                *self._page_boxes.values(),
                controls,
                self.question.box,
                self.label_form.box,
                self.toast,
                self.clone_form.box,
                self.grid.box,
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
        self.tabs.observe(self._tab_chosen, names="page")
        for verb, control in self.buttons.items():
            control.on_click(lambda _button, verb=verb: self.clicked(verb))
        self.label.on_click(lambda _button: self.label_form.open(()))
        self.pause.on_click(lambda _button: self._toggle_pause())
        self.end.on_click(lambda _button: self._ask_end())

    # ---- life

    def start(self) -> None:
        """Go on by itself from now on."""
        with self._lock:
            if not self._pump.is_alive:
                self._pump = self._new_pump()
                self._pump.start()

    def _new_pump(self) -> Pump:
        def turn() -> bool:
            is_behind = self.update_in_turn()
            self._after_update()
            return is_behind

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
        self._bring_up_to_date()

    def update_in_turn(self) -> bool:
        """Bring up to date what is due: of many charts with many curves a few each time.

        Returns:
            Whether some have waited.
        """
        self._bring_up_to_date(in_turn=True)
        return self.page == "Curves" and self.curves.is_behind

    def _bring_up_to_date(self, *, in_turn: bool = False) -> None:
        with self._lock:
            state, status = self._session.recent_state, self._session.status()
            self.series.update(state)
            self._offer_metrics()
            metric = self.curves.metric.value if self.series.metrics else None
            view = self._view = runs_view(state, self.series, metric, self.table.chosen)
            self._settle_receipts()
            self.header.show(experiment_header(self._session.name, state, status))
            set_changed(
                self.pause,
                description="Resume all" if status.paused else "Pause all",
                disabled=not status.open,
            )
            set_changed(self.end, disabled=not status.open)
            set_changed(
                self.label, disabled=status.read_only or bool(status.damage) or not state.runs
            )
            shown, groups = self.grid.show(view, self.series.configs.varying(state))
            self._show_controls(status)
            self._show_toast()
            self._show_page_content(view, shown, groups, in_turn=in_turn)
            self._remember()

    def show_page(self, name: str) -> None:
        """Turn to one of PAGES."""
        with self._lock:
            self.page = name
            for other, box in self._page_boxes.items():
                set_changed(box.layout, display=None if other == name else "none")
            set_changed(self.tabs, page=name)
            if self._view is not None:
                self.update()

    def _offer_metrics(self) -> None:
        """Offer the metrics that there are."""
        metrics, usual = self.series.metrics, self.series.usual_metric
        if usual is not None and self._offered != (metrics, usual):
            self._offered = (metrics, usual)
            self.curves.offer(metrics, usual)
            self.compare.offer(metrics)

    def _show_controls(self, status: Status) -> None:
        state = self._session.recent_state
        selected = self.table.selected
        self.selection_label.show(element("b", selection_words(selected, state)))
        actions = [
            {"verb": verb, "words": words, "key": KEYS[verb], "why": ""}
            for verb, words in VIEW_VERBS.items()
        ]
        for verb, control in self.buttons.items():
            reason = why_not(verb, selected, state, status)
            tip = shortened(reason, 300) if reason else f"{verb} {_names(selected)}"
            set_changed(control, disabled=reason is not None, tooltip=tip)
            actions.append(
                {
                    "verb": verb,
                    "words": VERBS[verb],
                    "key": KEYS[verb],
                    "why": shortened(reason or "", 300),
                }
            )
        set_changed(self.table, actions=actions)

    def _remember(self) -> None:
        """How the user has arranged everything, for the next panel of this experiment."""
        now = Arrangement(
            charts=self.curves.arrangement(), x=self.curves.x_axis.value, **self.grid.arrangement()
        )
        if now != self._kept:
            self._kept = now
            self._session.keep_arrangement(now.as_json())

    @property
    def arrangement(self) -> Arrangement:
        """How the user has arranged everything."""
        return self._kept

    def _show_page_content(
        self, view: RunsView, shown: RunsView, groups: list[Group], *, in_turn: bool = False
    ) -> None:
        """Draw the page that is open.

        Args:
            view: Of all runs.
            shown: Of those that the user looks at.
            groups: Of those, where they are grouped.
            in_turn: See CurvesPage.
        """
        state, selected = self._session.recent_state, self.table.selected
        runs = [row.run_id for row in shown.rows]
        match self.page:
            case "Curves":
                hidden = {row.run_id for row in view.rows}.difference(runs)
                emphasis = Emphasis(selected=selected, hidden=hidden)
                self.curves.show(state, self.series, shown, emphasis, groups, in_turn=in_turn)
            case "Compare":
                self.compare.show(shown, selected)
                self.beside.look()
            case "Run":
                run_id = selected[0] if selected else self._opened
                self.documents["Run"].show(run_page(state, self.series, view, run_id))
            case "Lineage":
                self.documents["Lineage"].show(lineage(state, view.metric, view, runs))
            case "Automation":
                self.documents["Automation"].show(automation(state, self._session.status()))
            case "Schedule":
                self.documents["Schedule"].show(schedule(state, runs))
            case "Samples":
                self.documents["Samples"].show(samples(state, selected, runs))
            case "Log":
                lines = {run_id: log_lines(state, run_id) for run_id in runs}
                self.documents["Log"].show(log_of(state, selected, lines))
            case "Messages":
                self.documents["Messages"].show(messages(state, list(self._refusals)))

    def _csv_of(self, what: str) -> str:
        with self._lock:
            assert self._view is not None
            shown = self.shown.of(self._view)
            if what == "table":
                return table_csv(shown)
            return points_csv(self._session.recent_state, [row.run_id for row in shown.rows])

    def _draw_failed(self, text: str) -> None:
        self._refuse(f"the panel could not be drawn: {text.strip().splitlines()[-1]}")

    # ---- acting

    def _tab_chosen(self, change: Any) -> None:
        if change["new"] in PAGES and change["new"] != self.page:
            self.show_page(change["new"])

    def _toggle(self, run_id: int) -> None:
        self.grid.toggle(run_id)

    def _asked(self, verb: str, run_id: int) -> None:
        """By a key or the menu of a run."""
        if verb == "open":
            self.open_run(run_id)
        elif verb in VERBS:
            self.clicked(verb)

    def open_run(self, run_id: int) -> None:
        """Turn to the page of one run."""
        if run_id in self._session.recent_state.runs:
            self._opened = run_id
            self.show_page("Run")

    def act(self, action: str) -> None:
        """An action of a document: "select 3", "clone 3", "undo 3", "pin 3", "unpin 3", "wheel"."""
        verb, _, number = action.partition(" ")
        if action == "wheel":
            self._ask("take the wheel", lambda: self._commands.automate(None, "button"))
        if not number.isdigit() or int(number) not in self._session.recent_state.runs:
            return
        if verb == "select":
            self.grid.select(int(number))
        elif verb == "clone":
            self.grid.select(int(number))
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
                self.question.ask(
                    f"Delete {_names(chosen)}? Checkpoints and memory go; the figures stay in the record.",
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
            elif verb == "label":
                self.label_form.open(chosen)
            else:
                self.clone_form.open(chosen[0], warm=verb == "warm start")

    def _operate(self, verb: str, run_ids: list[int]) -> None:
        self._ask(verb, lambda: self._commands.operate(verb, run_ids, "button"))

    def _label(self, run_id: int | None, given: dict[str, Any]) -> None:
        words = "label the experiment" if run_id is None else f"label run {run_id}"
        runs = None if run_id is None else [run_id]
        self._ask(words, lambda: self._commands.label(runs, "button", **given))

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


def _names(run_ids: Sequence[int]) -> str:
    return ", ".join(f"run {run_id}" for run_id in run_ids)


def _run_name(text: str) -> str:
    return f"run {text}" if text.isdigit() else text
