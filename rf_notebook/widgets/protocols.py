"""What does a panel need of the experiment that it shows?

A session and its commands; tests have doubles of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rf_notebook.core.receipt import Receipt
    from rf_notebook.core.run import RunConfig
    from rf_notebook.core.state import ExperimentState
    from rf_notebook.core.status import Status
    from rf_notebook.core.values import Json
    from rf_notebook.record.differences import Difference


class PanelSession(Protocol):
    """The experiment as its panel reads it.

    May be read from any thread; everything returns at once.
    """

    @property
    def name(self) -> str:
        """Of the experiment."""

    @property
    def recent_state(self) -> ExperimentState:
        """At most two seconds old."""

    def status(self) -> Status:
        """How it stands now."""

    def arrangement(self) -> Json:
        """How its panel was arranged last; None where that is not known."""

    def keep_arrangement(self, arrangement: Mapping[str, Json]) -> None:
        """Remember how its panel is arranged."""

    def also_saved(self) -> Mapping[str, Json]:
        """What the saved output carries besides its pictures, by mime type."""

    def wait_for_change(self, seen: int, timeout: float) -> int:
        """Wait until something changed since ``seen``, or the seconds are over.

        Returns what to pass next.
        """


class PanelCommands(Protocol):
    """What a panel asks for.

    May be used from any thread; what takes effect at a step returns a receipt at once.

    ``origin`` is who asks, as the record tells.
    """

    def operate(self, verb: str, runs: Sequence[int], origin: str) -> Receipt[Any]:
        """Stop, resume or delete. Raises RFNotebookError when it is refused at once."""

    def clone_all(
        self, run_id: int, edits: Sequence[Mapping[str, Any]], warm_start: bool, origin: str
    ) -> Receipt[Any]:
        """A clone for each edit."""

    def check_edits(
        self, run_id: int, edits: Mapping[str, Any]
    ) -> tuple[RunConfig, dict[str, Json]]:
        """The config of a clone, and what differs. Raises ConfigError."""

    def set_paused(self, paused: bool, origin: str) -> Receipt[Any]:
        """Pause, or resume."""

    def undo(self, run: int, origin: str) -> Receipt[Any]:
        """Take back what a policy did last to a run.

        Raises RFNotebookError when none did anything.
        """

    def pin(self, runs: int, pinned: bool, origin: str) -> Receipt[Any]:
        """Let policies leave a run alone, or no longer."""

    def label(
        self,
        runs: Sequence[int] | None,
        origin: str,
        *,
        name: str | None = None,
        tags: Sequence[str] | None = None,
        note: str | None = None,
    ) -> Receipt[Any]:
        """Change names, tags or notes; None for ``runs`` is the experiment. Raises ConfigError."""

    def automate(self, policy: None, origin: str) -> Receipt[Any]:
        """Let no policy decide any more."""

    def retry(self, run: int, origin: str) -> Receipt[Any]:
        """Add a clone with half the batch of a run that ran out of memory."""

    def export(self, run: int, path: str | Path, *, origin: str) -> Path:
        """Write a run's adapter; takes a while."""

    def names_beside(self) -> Sequence[str]:
        """The other experiments that are recorded in the same folder."""

    def differences_from(self, name: str) -> Sequence[Difference]:
        """In what this experiment and another differ; may take a while. Raises RFNotebookError."""

    def end_soon(self, on_done: Callable[[BaseException | None], None]) -> None:
        """End now, keeping everything, in a thread of its own."""
