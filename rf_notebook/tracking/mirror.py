"""What does every mirror of an experiment do, whatever library it writes to?

if TYPE_CHECKING:
    from rf_notebook.core.events import Recorded

It follows the event log in a thread of its own: what could not be written because a server was
slow, locked or away is written later, and what a kill left out is written by the next kernel.
Training never waits for it, and nothing that it meets ends the experiment.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.redaction import redact

if TYPE_CHECKING:
    from rf_notebook.core.events import Recorded

_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 0.5, 30.0
#: After this many tries ``close`` does not wait any longer.
_MOST_REFUSALS = 2


class Mirror(ABC):
    """Follows one experiment's log. ``notify`` may be called by any thread and costs nothing."""

    title: str
    """As a user knows the library."""

    def __init__(self, name: str, *, log: logging.Logger) -> None:
        """Nothing is imported or written before ``start``.

        Args:
            name: The experiment's.
            log: The experiment's.
        """
        self._log = log
        self._recorded: list[Recorded] = []
        self._written = 0
        """So many of them."""
        self._arrived = threading.Condition()
        self._ending = threading.Event()
        thread_name = f"rf-{self.title.lower().replace(' ', '-')}-{name}"
        self._thread = threading.Thread(target=self._main, name=thread_name, daemon=True)
        self._complained = False
        self.refusals = 0
        """Tries one after another that failed."""

    def start(self, recorded: Sequence[Recorded]) -> None:
        """Begin with everything that the log holds."""
        self._recorded.extend(recorded)
        self._thread.start()

    @property
    def is_behind(self) -> bool:
        """Whether events wait to be written."""
        return self._written < len(self._recorded)

    def has_ended(self, timeout: float) -> bool:
        """Wait until its thread has ended, or the seconds are over; returns whether it has."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def notify(self, recorded: Sequence[Recorded]) -> None:
        """Further events were committed."""
        with self._arrived:
            self._recorded.extend(recorded)
            self._arrived.notify_all()

    def close(self, timeout: float) -> bool:
        """Write what is waiting for at most ``timeout`` seconds, then end.

        Returns whether all was written.

        While everything is refused, nothing is gained by waiting.
        """
        until = time.monotonic() + timeout
        with self._arrived:
            self._arrived.wait_for(
                lambda: (
                    not self.is_behind
                    or not self._thread.is_alive()
                    or self.refusals > _MOST_REFUSALS
                ),
                timeout,
            )
            self._ending.set()
            self._arrived.notify_all()
        # a library may have something to finish
        left = 0.0 if self.is_behind else until - time.monotonic()
        self._thread.join(timeout=max(left, 1.0))
        return not self.is_behind and not self._thread.is_alive()

    # ---- of each library

    @abstractmethod
    def connect(self) -> None:
        """Reach the library's place; called before anything is written, and again after an error.

        Raises:
            ImportError: where the library is missing, and then nothing is written.
            ConfigError: likewise, for what trying again does not change.
            Exception: for what may pass.
        """

    @abstractmethod
    def write(self, recorded: Recorded) -> None:
        """Write one event. Raises as ``connect`` does."""

    @abstractmethod
    def disconnect(self) -> None:
        """Nothing more is written; called by the thread, once."""

    # ---- the thread

    def _main(self) -> None:
        try:
            self._follow()
        finally:
            self.disconnect()
            with self._arrived:
                self._arrived.notify_all()

    def _follow(self) -> None:
        delay, is_connected = _FIRST_RETRY_SECONDS, False
        while not self._ending.is_set():
            try:
                if not is_connected:
                    self.connect()
                    is_connected = True
                self._write_waiting()
            except (ImportError, ConfigError) as error:
                self._log.warning("%s is not written: %s", self.title, redact(f"{error}"[:300]))
                return
            except BaseException as error:  # noqa: BLE001 - whatever a tracking server does, training continues
                is_connected = False  # the experiment may be gone, or the server another
                self.refusals += 1
                delay = (
                    _FIRST_RETRY_SECONDS
                    if self.refusals == 1
                    else min(delay * 2, _LAST_RETRY_SECONDS)
                )
                if not self._complained:
                    self._log.warning(
                        "%s is behind and will catch up: %s", self.title, redact(f"{error}"[:300])
                    )
                    self._complained = True
                with self._arrived:
                    self._arrived.notify_all()
                self._ending.wait(delay)

    def _write_waiting(self) -> None:
        while not self._ending.is_set():
            with self._arrived:
                if not self.is_behind:
                    self._arrived.notify_all()
                    self._arrived.wait(5.0)
                    continue
                first = self._recorded[self._written]
            self.write(first)
            self.refusals = 0
            with self._arrived:
                self._written += 1
                self._arrived.notify_all()
