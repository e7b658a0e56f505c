"""Where does a replay step in?

While it runs a notebook's cells, the experiment that they launch is the replay.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rf_notebook.engine.script import Script
    from rf_notebook.session.launch import Launch
    from rf_notebook.session.session import Session


class Stage(Protocol):
    """A replay that cells are being run for."""

    def place_of(self, name: object) -> tuple[str, Path]:
        """The name and the folder's folder of the experiment that a cell constructs.

        Raises:
            BaseException: for another experiment than the recorded one; the cell ends there.
        """

    def as_recorded(self, launch: Launch) -> Launch:
        """The launch as if the recorded cells were this notebook's."""

    def script_for(self, launch: Launch) -> Script:
        """The operations to come.

        Raises:
            ConfigError: when the cells make something else than was recorded.
        """

    def began(self, session: Session) -> None:
        """The replay trains.

        Raises:
            BaseException: always; the rest of the cell is left out.
        """


_current: ContextVar[Stage | None] = ContextVar("stage", default=None)


def current_stage() -> Stage | None:
    """The replay that cells are being run for; None in everyday use."""
    return _current.get()


@contextmanager
def staged(stage: Stage) -> Iterator[None]:
    """While cells run, the experiment that they construct is the replay."""
    token = _current.set(stage)
    try:
        yield
    finally:
        _current.reset(token)
