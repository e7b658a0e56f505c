"""The in-memory twin of the SQLite store, for tests and for trying things out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from rf_notebook.core.errors import LeaseLost, ReadOnlyExperiment
from rf_notebook.core.events import Event, Recorded
from rf_notebook.core.ports import CommitObserver, CommitPoint, Holder, unobserved
from rf_notebook.store.lease import LEASE_LOST, is_alive, read_only_sentence


class MemoryStore:
    """An EventStore that lives as long as its process."""

    def __init__(
        self, *, clock: Callable[[], float] = time.time, observer: CommitObserver = unobserved
    ) -> None:
        self._clock = clock
        self._observer = observer
        self._events: list[Recorded] = []
        self._holder: Holder | None = None
        self._fence = 0
        self._renewed_at = 0.0
        self._lock = threading.Lock()

    def append(self, events: Sequence[Event], fence: int) -> list[Recorded]:
        """See EventStore."""
        with self._lock:
            self._check(fence)
            first = len(self._events) + 1
            now = self._clock()
            recorded = [
                Recorded(seq=first + i, at=now, event=event) for i, event in enumerate(events)
            ]
            self._observer(CommitPoint.EVENTS_INSERTED)
            self._events.extend(recorded)
        self._observer(CommitPoint.EVENTS_COMMITTED)
        return recorded

    def read(self, after: int = 0) -> list[Recorded]:
        """See EventStore."""
        with self._lock:
            return self._events[after:]

    def acquire(self, holder: Holder, *, take_over: bool = False) -> int:
        """See EventStore."""
        with self._lock:
            now = self._clock()
            held = self._holder
            if (
                held is not None
                and not take_over
                and is_alive(held, renewed_at=self._renewed_at, now=now)
            ):
                raise ReadOnlyExperiment(read_only_sentence(held))
            self._holder, self._fence, self._renewed_at = holder, self._fence + 1, now
            return self._fence

    def renew(self, fence: int) -> None:
        """See EventStore."""
        with self._lock:
            self._check(fence)
            self._renewed_at = self._clock()

    def release(self, fence: int) -> None:
        """See EventStore."""
        with self._lock:
            if fence == self._fence:
                self._holder = None

    def holder(self) -> Holder | None:
        """See EventStore."""
        return self._holder

    def living_holder(self) -> Holder | None:
        """See EventStore."""
        held = self._holder
        return (
            held
            if held is not None and is_alive(held, renewed_at=self._renewed_at, now=self._clock())
            else None
        )

    def close(self) -> None:
        """See EventStore."""

    def _check(self, fence: int) -> None:
        if fence != self._fence or self._holder is None:
            raise LeaseLost(LEASE_LOST)
