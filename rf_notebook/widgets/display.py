"""How does an experiment appear in a notebook?

A live panel where widgets work, and a static twin that outlives the kernel.

Two outputs of one cell: the live widget, and the static bundle under a display id of its own,
refreshed at milestones. The stylesheet hides the second where the first is alive. Front ends
without live widgets get the second alone.
"""

from __future__ import annotations

import sys
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from rf_notebook.core.run import READY
from rf_notebook.views.arrangement import Arrangement
from rf_notebook.views.document import element, to_html
from rf_notebook.views.saved import PANEL_MIME, live_content, static_bundle
from rf_notebook.views.series import ExperimentSeries
from rf_notebook.widgets.front_end import FrontEnd, front_end
from rf_notebook.widgets.panel import Panel

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState
    from rf_notebook.session.session import Session
    from rf_notebook.widgets.protocols import PanelCommands, PanelSession

WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
#: Between two refreshes of the static twin: while the panel is live, and where the twin is all
#: there is.
_MILESTONE_SECONDS = 20.0
_WAITING_SECONDS = 2.0
_AS_OF_NOW = (
    "The figures are those of when this cell ran; run it again for newer ones. The live panel needs JupyterLab "
    "or VS Code."
)
_NOBODY_WAITS = (
    "Where a notebook runs without a page, as in nbconvert and papermill, the kernel ends with the last cell, "
    "and training with it: call experiment.wait() in a later cell."
)


class ExperimentDisplay:
    """What a notebook shows of one experiment."""

    def __init__(self, session: PanelSession, commands: PanelCommands) -> None:
        """Nothing is shown yet.

        Args:
            session: The experiment.
            commands: What its panel asks for.
        """
        self._session, self._commands = session, commands
        self._lock = threading.RLock()
        self._series = ExperimentSeries()
        self._panel: Panel | None = None
        self._static_id: str | None = None
        self._cell: int | None = None
        self._refreshed_at = 0.0
        self._is_waited_for = False
        self.saved_seq = 0
        """The newest event that the static twin shows."""
        self._milestone: Any = None

    @property
    def is_shown(self) -> bool:
        """Whether a notebook shows it, live or not."""
        return self._static_id is not None

    @property
    def panel(self) -> Panel:
        """The live panel; made when it is first asked for."""
        with self._lock:
            if self._panel is None:
                self._panel = Panel(self._session, self._commands, after_update=self._at_milestone)
            self._panel.start()
            return self._panel

    def show(self, *, once_a_cell: bool = False) -> None:
        """Show it below the running cell.

        Args:
            once_a_cell: Not when the same cell showed it already.
        """
        cell = _running_cell()
        if once_a_cell and cell is not None and cell == self._cell:
            return
        self._cell = cell
        from IPython.display import display

        with self._lock:
            if front_end().shows_widgets:
                self.panel.widget.layout.display = None
                display(self.live_bundle(), raw=True)
            self._static_id = f"rf-notebook-{uuid.uuid4().hex}"
            display(self._bundle(), raw=True, display_id=self._static_id)
            self._refreshed_at = time.monotonic()

    def refresh(self) -> None:
        """Bring the static twin up to date; it is what the saved notebook shows."""
        with self._lock:
            if self._static_id is None:
                return
            from IPython.display import update_display

            self._refreshed_at = time.monotonic()
            update_display(self._bundle(), raw=True, display_id=self._static_id)

    def refresh_while_waiting(self) -> None:
        """Called again and again by a cell that waits.

        Where nothing else moves, the static twin does.
        """
        self._is_waited_for = True
        if front_end() in (FrontEnd.JUPYTER, FrontEnd.HEADLESS):
            return  # the live panel moves by itself; nobody looks on
        if time.monotonic() - self._refreshed_at > _WAITING_SECONDS:
            self.refresh()

    def withdraw(self) -> None:
        """Take away what ``show`` showed last: the cell's ``run_fit`` was refused."""
        from IPython.display import update_display

        if self._panel is not None:
            self._panel.widget.layout.display = "none"
        if self._static_id is not None:
            update_display(
                {"text/html": "", "text/plain": ""}, raw=True, display_id=self._static_id
            )
        self._static_id, self._cell = None, None

    def close(self) -> None:
        """End the updates of the live panel."""
        if self._panel is not None:
            self._panel.close()

    def live_bundle(self) -> dict[str, Any]:
        """What the first of the two outputs holds."""
        name = self._session.name
        model_id = self.panel.widget.model_id
        return {
            PANEL_MIME: live_content(self._session.name, model_id),
            WIDGET_MIME: {"version_major": 2, "version_minor": 0, "model_id": model_id},
            "text/html": "",  # for viewers without widgets: the static twin follows
            "text/plain": f"live panel of {name!r}",
        }

    def _bundle(self) -> dict[str, Any]:
        with self._lock:
            state = self._session.recent_state
            self._series.update(state)
            metric = self._panel.curves.metric.value if self._panel is not None else None
            known = metric if metric in self._series.metrics else None
            model_id = None if self._panel is None else self._panel.widget.model_id
            self.saved_seq = state.last_seq
            arranged = (
                Arrangement.from_json(self._session.arrangement())
                if self._panel is None
                else self._panel.arrangement
            )
            bundle = static_bundle(
                self._session.name,
                state,
                self._series,
                known,
                model_id=model_id,
                arrangement=arranged,
                notice=self._notice(state),
            )
            return {**bundle, **self._session.also_saved()}

    def _notice(self, state: ExperimentState) -> str:
        is_over = bool(state.runs) and not state.ready()
        if front_end() is not FrontEnd.HEADLESS or self._is_waited_for or is_over:
            return ""
        return _NOBODY_WAITS

    def saved_bundle(self) -> dict[str, Any]:
        """The static twin as it is now, for a page that does not get what ``refresh`` sends.

        It was loaded again since.
        """
        return self._bundle()

    def _at_milestone(self) -> None:
        """Called by the panel's pump.

        Refresh when a run changed its state, or a while after something was trained.
        """
        with self._lock:
            state = self._session.recent_state
            states = tuple(record.state for record in list(state.runs.values()))
            over = not any(one in READY for one in states)
            milestone = (states, state.last_seq if not over else None)
            if milestone == self._milestone:
                return
            waited = time.monotonic() - self._refreshed_at
            is_first = self.saved_seq == 0  # it was shown before there were runs
            if waited < (1.0 if over or is_first else _MILESTONE_SECONDS):
                return
            self._milestone = milestone
            self.refresh()

    def html(self) -> str:
        """The figures as they are now, for a front end that shows neither the panel nor updates."""
        note = element("p", _AS_OF_NOW, class_="rf-dim")
        return f"{self._bundle()['text/html']}{to_html(note)}"

    def _ipython_display_(self) -> None:
        self.show(once_a_cell=True)

    def _mime_(self) -> tuple[str, str]:
        """What marimo shows."""
        return "text/html", self.html()

    def __repr__(self) -> str:
        return f"<panel of experiment {self._session.name!r}>"


def display_of(session: Session, commands: PanelCommands) -> ExperimentDisplay:
    """What a notebook shows of an open experiment; made when it is first asked for.

    Args:
        session: The experiment.
        commands: What its panel asks for.
    """
    if session.display is None:
        session.display = ExperimentDisplay(session, commands)
    assert isinstance(session.display, ExperimentDisplay)
    return session.display


def _running_cell() -> int | None:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "execution_count", None)
