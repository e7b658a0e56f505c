"""How do waiting cells, panels and the tracker learn that something changed?"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from rf_notebook.core.events import Recorded

Subscriber = Callable[[Sequence[Recorded]], None]


class Publisher:
    """Counts changes, wakes who waits, and hands committed events to subscribers."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._version = 0
        self._subscribers: list[Subscriber] = []

    @property
    def version(self) -> int:
        """Grows with every change."""
        return self._version

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Be handed committed events, by the engine's thread; returns how to stop.

        A subscriber must be quick and must not raise; what it raises is dropped, for no listener may fail the engine.
        """
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber) if subscriber in self._subscribers else None

    def committed(self, events: Sequence[Recorded]) -> None:
        """Events were committed and applied to the state."""
        for subscriber in list(self._subscribers):
            try:
                subscriber(events)
            except BaseException:  # noqa: BLE001 - a listener's failure must not reach the engine
                self._subscribers.remove(subscriber)
        self.changed()

    def changed(self) -> None:
        """Something worth looking at changed, committed or live."""
        with self._changed:
            self._version += 1
            self._changed.notify_all()

    def wait_for_change(self, seen: int, timeout: float) -> int:
        """Until the version is beyond ``seen`` or the seconds are over; returns the version."""
        with self._changed:
            if self._version == seen:
                self._changed.wait(timeout)
            return self._version
