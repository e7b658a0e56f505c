"""What does the extension's link need of the process that it speaks for?

The registry is one; tests have another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rf_notebook.core.values import Json
    from rf_notebook.session.cells import Sources
    from rf_notebook.widgets.protocols import PanelCommands, PanelSession


class LabExperiment(Protocol):
    """An experiment as the extension sees it.

    What its panel sees and asks for, and a few things more.
    """

    @property
    def session(self) -> PanelSession:
        """What is open."""

    @property
    def commands(self) -> PanelCommands:
        """What can be asked of it."""

    @property
    def folder(self) -> Path:
        """Of the experiment, absolute."""

    @property
    def log_path(self) -> Path:
        """The experiment's log, absolute."""

    @property
    def sources(self) -> Sources | None:
        """The cells that it was made from; None when this process did not launch it."""

    @property
    def saved_seq(self) -> int:
        """Number of the newest event that the saved figures show; 0 when no notebook shows any."""

    def replay(self) -> str:
        """Train everything again under another name, operations included; that name."""

    def export_notebook(self, path: str) -> Path:
        """Write the experiment as a notebook."""

    def saved_bundle(self) -> dict[str, Json]:
        """The saved figures as they are now, by mime type."""

    def panel_model(self) -> str:
        """Id of the live panel's widget; the panel is made when it is first asked for."""

    def panel_bundle(self) -> dict[str, Json]:
        """What an output holds that shows the live panel, by mime type."""

    def clone_form_model(self, run_id: int, *, warm: bool) -> str:
        """Open the panel's form for a run; id of the form's widget."""


class Experiments(Protocol):
    """The experiments that a kernel knows."""

    def known(self) -> Sequence[LabExperiment]:
        """In this process, the one used last at the end."""

    def recorded(self) -> Mapping[str, Mapping[str, Any]]:
        """What lies on disk and is not among the known.

        For each name its ``standing``, ``runs``, and ``words`` about it.
        """

    def remove(self, name: str) -> None:
        """Remove a recorded experiment from the disk.

        Raises:
            RFNotebookError: when there is none, or it cannot be removed.
        """

    def open(self, name: str) -> None:
        """Read a recorded experiment, so that it is known.

        Raises:
            RFNotebookError: when there is none, or it cannot be read.
        """

    def wait_for_change(self, seen: int, timeout: float) -> int:
        """Wait until something changed since ``seen``, or the seconds are over.

        Returns what to pass next.
        """
