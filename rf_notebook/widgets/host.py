"""What does a panel need of the experiment that it shows? The experiment is one; tests have another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rf_notebook.core.run import RunConfig
from rf_notebook.core.state import ExperimentState
from rf_notebook.core.status import HostStatus
from rf_notebook.core.values import Json
from rf_notebook.engine.mailbox import Receipt


class PanelHost(Protocol):
    """The experiment as its panels see it. Every method may be called from any thread and returns at once."""

    @property
    def experiment_name(self) -> str:
        """As given."""

    @property
    def panel_state(self) -> ExperimentState:
        """Up to date."""

    def panel_status(self) -> HostStatus:
        """How it stands now."""

    def also_saved(self) -> Mapping[str, Json]:
        """What the saved output carries besides its pictures, by mime type."""

    def wait_for_change(self, seen: int, timeout: float) -> int:
        """Until something changed since ``seen``, or the seconds are over; returns what to pass next."""

    def operate(self, verb: str, run_ids: Sequence[int], origin: str) -> Receipt[Any]:
        """Stop, resume or delete. Raises RFNotebookError when it is refused at once."""

    def clone_all(self, run_id: int, edits: Sequence[Mapping[str, Any]], warm_start: bool, origin: str) -> Receipt[Any]:
        """A clone for each edit."""

    def check_edits(self, run_id: int, edits: Mapping[str, Any]) -> tuple[RunConfig, dict[str, Json]]:
        """The config of a clone, and what differs. Raises ConfigError."""

    def set_paused(self, paused: bool) -> Receipt[Any]:
        """Pause or go on."""

    def undo(self, run_id: int) -> Receipt[Any]:
        """Take back what a policy did last to a run. Raises RFNotebookError when none did anything."""

    def pin(self, run_id: int, pinned: bool) -> Receipt[Any]:
        """Let policies leave a run alone, or no longer."""

    def take_wheel(self) -> Receipt[Any]:
        """Let no policy decide any more."""

    def export(self, run: int, path: str | Path) -> Path:
        """Write a run's adapter; takes a while."""

    def end_soon(self, on_done: Callable[[BaseException | None], None]) -> None:
        """End now, keeping everything, in a thread of its own."""
