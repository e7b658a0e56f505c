"""How does a request reach the engine?"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rf_notebook.engine.requests import Request


@dataclass(frozen=True, slots=True)
class Letter:
    """What lies in the mailbox."""

    request: Request
    origin: str
    """Who asks: "python", "magic", "button", or a policy's name."""
    future: Future[Any]


class Mailbox:
    """Letters for the engine; any thread may put one in, without waiting."""

    def __init__(self, on_letter: Callable[[], None] = lambda: None) -> None:
        """An empty mailbox.

        Args:
            on_letter: Called after a letter was put in, by the thread that did.
        """
        self._letters: deque[Letter] = deque()
        self._arrived = threading.Condition()
        self._on_letter = on_letter
        self._closed: Exception | None = None
        self.idle = threading.Event()
        """Set while no run wants a turn and no letter lies here."""

    def submit(self, request: Request, origin: str = "python") -> Future[Any]:
        """Put a letter in; its future ends when the engine answered."""
        future: Future[Any] = Future()
        with self._arrived:
            if self._closed is not None:
                future.set_exception(self._closed)
                return future
            self.idle.clear()
            self._letters.append(Letter(request, origin, future))
            self._arrived.notify_all()
        self._on_letter()
        return future

    def first(self) -> Letter | None:
        """The oldest letter, which stays here; None when there is none."""
        with self._arrived:
            return self._letters[0] if self._letters else None

    def take(self) -> Letter | None:
        """The oldest letter, or None."""
        with self._arrived:
            return self._letters.popleft() if self._letters else None

    def settle(self) -> None:
        """Called when no run wants a turn: idle, unless a letter came meanwhile."""
        with self._arrived:
            if not self._letters:
                self.idle.set()

    def wait(self, timeout: float) -> None:
        """Until there is a letter, ``wake`` was called, or the seconds are over."""
        with self._arrived:
            if not self._letters:
                self._arrived.wait(timeout)

    def wake(self) -> None:
        """End a ``wait``."""
        with self._arrived:
            self._arrived.notify_all()

    def close(self, reason: Exception) -> None:
        """Refuse all letters, those inside and those to come, with this error."""
        with self._arrived:
            self._closed = reason
            letters, self._letters = list(self._letters), deque()
            self.idle.set()
        for letter in letters:
            letter.future.set_exception(reason)
