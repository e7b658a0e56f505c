"""How does an operation reach the engine, and how does the answer come back?"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rf_notebook.core.operations import Operation

ValueT = TypeVar("ValueT")


class Receipt(Generic[ValueT]):
    """The answer to an operation, as soon as it was obeyed or refused."""

    def __init__(self, futures: Sequence[Future[Any]], convert: Callable[[list[Any]], ValueT]) -> None:
        self._futures = futures
        self._convert = convert

    def result(self, timeout: float | None = None) -> ValueT:
        """Wait until the operation, or all of several, was obeyed.

        Args:
            timeout: Seconds; forever when omitted.

        Raises:
            RFNotebookError: why the operation was refused.
            TimeoutError: when it was not obeyed in time; it stays in the queue.
        """
        late = wait(self._futures, timeout).not_done
        if late:
            raise TimeoutError(f"the operation was not obeyed within {timeout} s; it is still in the queue.")
        return self._convert([future.result() for future in self._futures])

    def done(self) -> bool:
        """Whether it was obeyed or refused."""
        return all(future.done() for future in self._futures)

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call back once when it was obeyed or refused, by the thread that answers: be quick and do not raise."""
        left = threading.Semaphore(len(self._futures) - 1) if self._futures else None
        if left is None:
            callback()
            return

        def one_done(_future: Future[Any]) -> None:
            if not left.acquire(blocking=False):
                callback()

        for future in self._futures:
            future.add_done_callback(one_done)

    def __repr__(self) -> str:
        if not self.done():
            return "<Receipt: waiting for the next step>"
        errors = [error for future in self._futures if (error := future.exception()) is not None]
        return f"<Receipt: refused: {errors[0]}>" if errors else f"<Receipt: obeyed: {self.result()!r}>"


@dataclass(frozen=True, slots=True)
class Letter:
    """What lies in the mailbox."""

    content: Operation | Callable[[], Any]
    """An operation, or something to be done by the engine's thread between two steps."""
    origin: str
    future: Future[Any]


class Mailbox:
    """Letters for the engine; any thread may put one in, and nobody waits for doing so."""

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

    def submit(self, content: Operation | Callable[[], Any], origin: str = "python") -> Future[Any]:
        """Put a letter in; its future ends when the engine answered."""
        future: Future[Any] = Future()
        with self._arrived:
            if self._closed is not None:
                future.set_exception(self._closed)
                return future
            self.idle.clear()
            self._letters.append(Letter(content, origin, future))
            self._arrived.notify_all()
        self._on_letter()
        return future

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
