"""A fleet of worker processes, one for each device."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

from rf_notebook.core.fleet import Answer, DeviceFacts, DeviceTurn, Message
from rf_notebook.core.runner import (
    Errand,
    LiveListener,
    ReadModel,
    Saved,
    SavedListener,
    WriteTexts,
)
from rf_notebook.runners.messages import Ask, Begin, Close, Interrupt, Live, Ready

if TYPE_CHECKING:
    from rf_notebook.runners.links import RemoteWorker

_CLOSE_SECONDS = 10.0


class WorkerFleet:
    """See core.fleet.Fleet."""

    def __init__(self, workers: Iterable[RemoteWorker]) -> None:
        """They import the libraries while the kernel does something else.

        Args:
            workers: Started, each with a name of its own.
        """
        self.listener: LiveListener | None = None
        self.on_saved: SavedListener | None = None
        self._wake_in, self._wake_out = Pipe(duplex=False)
        self._waking, self._is_woken = threading.Lock(), False
        self._answers: deque[tuple[str, Message]] = deque()
        self._workers = {worker.facts.name: worker for worker in workers}

    @property
    def workers(self) -> Mapping[str, RemoteWorker]:
        """By the name of the device."""
        return self._workers

    def devices(self) -> Sequence[DeviceFacts]:
        """See Fleet."""
        return [worker.facts for worker in self._workers.values()]

    def begin(self, device: str, turn: DeviceTurn) -> None:
        """See Fleet."""
        self._workers[device].send(Begin(turn=turn), *(one.config for one in turn.requests))

    def interrupt(self, device: str, turn: int) -> None:
        """See Fleet."""
        self._workers[device].send(Interrupt(turn=turn))

    def ask(self, device: str, errand: int, what: Errand) -> None:
        """See Fleet."""
        if isinstance(what, ReadModel):  # a model in the worker is of no use here
            self._answers.append((device, Answer(errand=errand)))
            return
        models = what.models if isinstance(what, WriteTexts) else (what,)
        configs = [getattr(one, "config", None) for one in models]
        self._workers[device].send(
            Ask(errand=errand, what=what), *(one for one in configs if one is not None)
        )

    def next(self, timeout: float | None) -> tuple[str, Message] | None:
        """See Fleet."""
        if self._answers:
            return self._answers.popleft()
        by_pipe = {worker.pipe: worker for worker in self._workers.values() if not worker.is_lost}
        while True:
            ready = wait([self._wake_in, *by_pipe], timeout)
            if self._wake_in in ready:
                with self._waking:
                    self._wake_in.recv_bytes()
                    self._is_woken = False
                return None
            if not ready:
                return None
            for pipe in ready:
                worker = by_pipe[pipe]  # type: ignore[index]
                said = worker.hear()
                match said:
                    case Live():
                        if self.listener is not None:
                            self.listener(said.run_id, said.progress, said.point)
                    case Saved():
                        if self.on_saved is not None:
                            self.on_saved(said)
                        return None
                    case None:
                        continue
                    case Ready():
                        return None
                    case _:
                        return worker.facts.name, said

    def wake(self) -> None:
        """See Fleet."""
        with self._waking, contextlib.suppress(OSError):  # closed: nothing waits any more
            if not self._is_woken:
                self._wake_out.send_bytes(b"!")
                self._is_woken = True

    def restart(self, device: str) -> None:
        """See Fleet."""
        self._workers[device].restart()

    def abandon(self) -> None:
        """See Fleet."""
        for worker in self._workers.values():
            worker.abandon()

    def close(self) -> None:
        """See Fleet."""
        for worker in self._workers.values():
            worker.send(Close())
        for worker in self._workers.values():
            worker.close(_CLOSE_SECONDS)
        self._wake_in.close()
        self._wake_out.close()
