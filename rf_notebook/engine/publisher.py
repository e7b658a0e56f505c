"""Who is handed what was committed?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rf_notebook.core.change import ChangeSignal
from rf_notebook.core.events import Recorded

Subscriber = Callable[[Sequence[Recorded]], None]


class Publisher:
    """Hands committed events to subscribers, and tells who waits for a change."""

    def __init__(self, signal: ChangeSignal | None = None) -> None:
        """A publisher without subscribers.

        Args:
            signal: Changes with everything that is published.
        """
        self._signal = signal or ChangeSignal()
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Be handed committed events, by the engine's thread; returns how to stop.

        A subscriber must be quick and must not raise; one that raises is dropped, for no listener
        may fail the engine.
        """
        self._subscribers.append(subscriber)
        return lambda: (
            self._subscribers.remove(subscriber) if subscriber in self._subscribers else None
        )

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
        self._signal.changed()

    def wait_for_change(self, seen: int, timeout: float) -> int:
        """Wait until something changed since ``seen`` or the seconds are over.

        Returns what to pass next.
        """
        return self._signal.wait(seen, timeout)
