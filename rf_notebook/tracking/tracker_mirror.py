"""How does an experiment show in TensorBoard, Weights & Biases or Trackio?

if TYPE_CHECKING:
    from rf_notebook.core.events import Recorded

Their libraries change the process that they are in (its environment, what it prints, what it does
at its end) and may start services, so each has a process of its own, as long as it is written to.
An error there costs that process: another is started and told everything again, which the library
then has already, or writes anew.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rf_notebook.core.errors import ConfigError
from rf_notebook.runners.process import Place, ProcessLink
from rf_notebook.tracking.mirror import Mirror
from rf_notebook.tracking.trackers import TRACKERS
from rf_notebook.tracking.trackers.base import Opened

if TYPE_CHECKING:
    from rf_notebook.core.events import Recorded

#: After so many errors at one event that event is left out.
_MOST_ERRORS = 4
#: For a library to write what is left, once everything was told.
_END_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Failed:
    """What a tracker's process answers instead of None."""

    sentence: str
    is_final: bool
    """Whether trying again changes nothing: the library is missing, or refuses its settings."""


class TrackerMirror(Mirror):
    """See Mirror."""

    def __init__(
        self, tracker: str, folder: Path, name: str, identity: str, *, log: logging.Logger
    ) -> None:
        """The environment and the directory are those of now; another cell may change them.

        Args:
            tracker: One of TRACKERS.
            folder: The experiment's.
            name: The experiment's.
            identity: Tells its runs from those of another experiment of that name.
            log: The experiment's.
        """
        self._tracker = tracker
        self.title = TRACKERS[tracker][0]
        super().__init__(name, log=log)
        self._opened = Opened(folder=folder.resolve(), name=name, identity=identity)
        self._place = Place("cpu")
        self._link: ProcessLink | None = None
        self._errors: dict[int, int] = {}
        """By the number of the event at which they were."""

    def connect(self) -> None:
        """See Mirror."""
        self._let_go()
        self._link = ProcessLink(
            self._place,
            "rf_notebook.tracking.tracker_process",
            self._tracker,
            write_down=lambda line: self._log.debug("%s: %s", self.title, line),
        )
        self._ask(self._opened)
        self._written = 0

    def write(self, recorded: Recorded) -> None:
        """See Mirror."""
        if self._errors.get(recorded.seq, 0) == _MOST_ERRORS:
            self._errors[recorded.seq] += 1
            self._log.warning("%s does not take a part of the record", self.title)
        if self._errors.get(recorded.seq, 0) > _MOST_ERRORS:
            return
        try:
            self._ask(recorded)
        except ConfigError:
            raise
        except Exception:
            self._errors[recorded.seq] = self._errors.get(recorded.seq, 0) + 1
            raise

    def disconnect(self) -> None:
        """See Mirror."""
        if self._link is not None and not self.is_behind:
            try:
                self._ask(None)
            except Exception as error:  # noqa: BLE001 - whatever a library does at its end
                self._log.warning("%s may lack what came last: %s", self.title, f"{error}"[:300])
        self._let_go()

    def _let_go(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.pipe.close()
            link.end(_END_SECONDS)

    def _ask(self, message: Opened | Recorded | None) -> None:
        """Raises what is wrong there."""
        assert self._link is not None
        try:
            self._link.pipe.send(message)
            answer = self._link.pipe.recv()
        except (EOFError, OSError):
            raise RuntimeError(self._link.gone().reason) from None
        if isinstance(answer, Failed):
            raise (ConfigError if answer.is_final else RuntimeError)(answer.sentence)
