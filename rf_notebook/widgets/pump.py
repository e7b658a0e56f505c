"""Who brings news to the panel?

One thread a panel, once or twice a second, never the thread that trains.
"""

from __future__ import annotations

import atexit
import threading
import time
import traceback
from collections.abc import Callable

#: Seconds between two updates; news that come meanwhile go together.
EVERY_SECONDS = 0.7
_LISTEN_SECONDS = 0.5
#: Without news, times and memory are brought up to date no more often than this.
_QUIET_SECONDS = 5.0
_END_SECONDS = 2.0


class Pump:
    """Calls ``update`` when something changed, and from time to time when nothing did."""

    def __init__(
        self,
        wait_for_change: Callable[[int, float], int],
        update: Callable[[], bool | None],
        *,
        name: str,
        on_error: Callable[[str], None],
    ) -> None:
        """Nothing runs before ``start``.

        Args:
            wait_for_change: Waits until the session changes, or any session.
            update: Brings the panel up to date, and says whether something is left for the next time;
                what it raises is told once and does not end the pump.
            name: The experiment's name.
            on_error: Gets the traceback of a failed update.
        """
        self._wait_for_change = wait_for_change
        self._update = update
        self._on_error = on_error
        self._told: str | None = None
        self._is_behind = False
        self.every_seconds = EVERY_SECONDS
        """Between two updates."""
        self._updated_at = float("-inf")
        self._ending = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._main, name=f"rf-panel-{name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        atexit.register(self.end)
        self._thread.start()

    def end(self) -> None:
        """No update begins after this."""
        self._ending.set()
        self._woken.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(_END_SECONDS)
        atexit.unregister(self.end)

    @property
    def is_alive(self) -> bool:
        """Whether updates come."""
        return self._thread.is_alive() and not self._ending.is_set()

    def wake(self) -> None:
        """Update now; any thread, returns at once."""
        self._woken.set()

    def turn(self, seen: int) -> int:
        """Wait for news and show them; returns what was seen."""
        woken = self._woken.is_set()
        self._woken.clear()
        woken = woken or self._is_behind
        now = seen if woken else self._wait_for_change(seen, _LISTEN_SECONDS)
        quiet = not woken and now == seen and time.monotonic() - self._updated_at < _QUIET_SECONDS
        if quiet or self._ending.is_set():
            return now
        self._updated_at = time.monotonic()
        try:
            self._is_behind = bool(self._update())
        except Exception:  # noqa: BLE001 - a view that cannot be drawn must not end the others, nor the training
            text = traceback.format_exc()
            if text != self._told:
                self._told = text
                self._on_error(text)
        return now

    def _main(self) -> None:
        seen = -1
        while not self._ending.is_set():
            seen = self.turn(seen)
            self._woken.wait(self.every_seconds)
