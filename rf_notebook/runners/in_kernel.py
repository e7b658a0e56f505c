"""The fleet of everyday use.

One runner, driven by the engine's own thread, so that nothing is started or sent.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rf_notebook.core.fleet import (
    KERNEL,
    Answer,
    DeviceFacts,
    DeviceTurn,
    Message,
    TurnFailed,
    TurnOver,
)
from rf_notebook.core.runner import (
    ChunkResult,
    ChunkRunner,
    Errand,
    LiveListener,
    Saved,
    SavedListener,
    TurnOutcome,
)

if TYPE_CHECKING:
    from rf_notebook.core.run import MetricPoint, Progress


class KernelFleet:
    """See core.fleet.Fleet. What ``begin`` and ``ask`` say is done inside ``next``."""

    def __init__(
        self, runner: ChunkRunner, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """A fleet of one.

        Args:
            runner: Trains in the thread that calls ``next``.
            clock: Seconds.
        """
        self.runner = runner
        self.listener: LiveListener | None = runner.listener
        """See Fleet."""
        self.on_saved: SavedListener | None = None
        """See Fleet."""
        runner.listener, runner.on_saved = self._heard, self._was_saved
        self._clock = clock
        self._lock = threading.Lock()
        self._work: deque[DeviceTurn | tuple[int, Errand]] = deque()
        self._interrupted: set[int] = set()
        """Turns that are to end."""
        self._newest = 0
        """The newest turn that began."""
        self._is_open = False
        """Whether that turn is under way."""
        self._arrived = threading.Condition()
        self._saved: deque[Saved] = deque()
        """Not told yet."""
        self._is_woken = False
        self._results: tuple[ChunkResult, ...] = ()
        """Of the open turn so far, like the next; empty before it has trained."""
        self._seconds = 0.0

    def devices(self) -> Sequence[DeviceFacts]:
        """See Fleet."""
        return [DeviceFacts(name=KERNEL)]

    def begin(self, device: str, turn: DeviceTurn) -> None:
        """See Fleet."""
        with self._lock:
            self._newest, self._is_open = turn.turn, True
        self._results, self._seconds = (), 0.0
        self._add(turn)

    def interrupt(self, device: str, turn: int) -> None:
        """See Fleet."""
        with self._lock:
            if turn < self._newest or (turn == self._newest and not self._is_open):
                return
            self._interrupted.add(turn)
        self.runner.interrupt()

    def ask(self, device: str, errand: int, what: Errand) -> None:
        """See Fleet."""
        self._add((errand, what))

    def next(self, timeout: float | None) -> tuple[str, Message] | None:
        """See Fleet."""
        with self._arrived:
            if not self._work and not self._is_woken and not self._saved:
                self._arrived.wait(timeout)
        self._tell_saved()
        with self._arrived:
            if not self._work:
                self._is_woken = False
                return None
            work = self._work.popleft()
        message = self._trained(work) if isinstance(work, DeviceTurn) else self._done(*work)
        return None if message is None else (KERNEL, message)

    def wake(self) -> None:
        """See Fleet."""
        with self._arrived:
            self._is_woken = True
            self._arrived.notify_all()
        self.runner.interrupt()

    def restart(self, device: str) -> None:
        """See Fleet: the kernel is never lost."""

    def abandon(self) -> None:
        """See Fleet."""
        self.runner.abandon()

    def close(self) -> None:
        """See Fleet."""
        self.runner.close()

    def _heard(self, run_id: int, progress: Progress, point: MetricPoint | None) -> None:
        """A step was trained, inside ``next``."""
        if self.listener is not None:
            self.listener(run_id, progress, point)
        self._tell_saved()

    def _was_saved(self, saved: Saved) -> None:
        """Called in any thread."""
        with self._arrived:
            self._saved.append(saved)
            self._arrived.notify_all()

    def _tell_saved(self) -> None:
        while self._saved:
            saved = self._saved.popleft()
            if self.on_saved is not None:
                self.on_saved(saved)

    def _add(self, work: DeviceTurn | tuple[int, Errand]) -> None:
        with self._arrived:
            self._work.append(work)
            self._arrived.notify_all()

    def _trained(self, turn: DeviceTurn) -> Message | None:
        """None when the turn was left in the middle, because somebody woke ``next``."""
        self.runner.rearm()
        if self._is_to_end(turn):
            return self._over(turn)
        if self._takes_wake():
            self._work.appendleft(turn)
            return None
        started = self._clock()
        try:
            self._results = self.runner.train(turn.requests)
        except BaseException as error:  # noqa: BLE001 - it is told, and one run fails or the turn is asked for again
            self._over(turn)
            return TurnFailed(turn=turn.turn, error=error)
        self._seconds += self._clock() - started
        if self._takes_wake() and not self._is_to_end(turn) and self._is_left(turn):
            self._work.appendleft(turn)
            return None
        return self._over(turn)

    def _is_to_end(self, turn: DeviceTurn) -> bool:
        with self._lock:
            return turn.turn in self._interrupted

    def _takes_wake(self) -> bool:
        """Whether somebody called ``wake`` since this was asked last."""
        with self._arrived:
            is_woken, self._is_woken = self._is_woken, False
            return is_woken

    def _is_left(self, turn: DeviceTurn) -> bool:
        """Whether a run of the turn could still train."""
        ends = {request.run_id: request.park_at for request in turn.requests}
        return any(
            result.outcome is TurnOutcome.INTERRUPTED
            and result.progress.steps != ends[result.run_id]
            and not result.hindrance
            for result in self._results
        )

    def _over(self, turn: DeviceTurn) -> Message:
        with self._lock:
            self._is_open = False
            self._interrupted.discard(turn.turn)
        return TurnOver(turn=turn.turn, results=self._results, seconds=self._seconds)

    def _done(self, errand: int, what: Errand) -> Message:
        try:
            return Answer(errand=errand, value=self.runner.do(what))
        except BaseException as error:  # noqa: BLE001 - it is the answer
            return Answer(errand=errand, error=error)
