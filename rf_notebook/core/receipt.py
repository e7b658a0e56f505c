"""How does the answer to a request come back?"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Any, Generic, TypeVar

ValueT = TypeVar("ValueT")


class Receipt(Generic[ValueT]):
    """The answer to an operation, as soon as it was obeyed or refused."""

    def __init__(
        self, futures: Sequence[Future[Any]], convert: Callable[[list[Any]], ValueT]
    ) -> None:
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
            raise TimeoutError(
                f"the operation was not obeyed within {timeout} s; it is still in the queue."
            )
        return self._convert([future.result() for future in self._futures])

    def done(self) -> bool:
        """Whether it was obeyed or refused."""
        return all(future.done() for future in self._futures)

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call back once when it was obeyed or refused, by the thread that answers.

        Be quick and do not raise.
        """
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
        return (
            f"<Receipt: refused: {errors[0]}>"
            if errors
            else f"<Receipt: obeyed: {self.result()!r}>"
        )
