"""The worker process: a runner in its main thread, and a thread that listens to the kernel.

Started by ``process.py``. It ends with the kernel: when the pipe closes, or the process at its other
end is gone, whatever it does is no longer wanted.
"""

from __future__ import annotations

import logging
import os
import pickle
import threading
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import cloudpickle

from rf_notebook.core.errors import RFNotebookError
from rf_notebook.core.fleet import KERNEL, Answer, Leaving, Message, TurnFailed, TurnOver
from rf_notebook.core.foreground import only_waiting
from rf_notebook.core.objects import Objects
from rf_notebook.runners.ending import end_with_parent, heed_notice
from rf_notebook.runners.in_kernel import KernelFleet
from rf_notebook.runners.memory_gauge import MemoryGauge
from rf_notebook.runners.messages import (
    Ask,
    Begin,
    Bring,
    Close,
    Interrupt,
    Live,
    LogLine,
    MemoryInUse,
    OpenExperiment,
    Ready,
)

ErrorT = TypeVar("ErrorT", bound=BaseException | None)

if TYPE_CHECKING:
    from rf_notebook.core.run import MetricPoint, Progress
    from rf_notebook.core.runner import Saved
    from rf_notebook.runners.recipe import Recipe


def main(descriptor: str) -> None:
    """Serve the kernel at the other end of a pipe until it is closed.

    Args:
        descriptor: The pipe's file descriptor.
    """
    Worker(Connection(int(descriptor))).serve()


class Worker:
    """Translates between the pipe and a fleet of one."""

    def __init__(self, pipe: Connection) -> None:
        """Nothing is heard yet.

        Args:
            pipe: To the kernel.
        """
        self._pipe = pipe
        self._sending = threading.Lock()
        self._objects = Objects()
        self._gauge = MemoryGauge()
        self._is_closing = False

    def serve(self) -> None:
        """Train and answer until the kernel says that it is over."""
        end_with_parent()
        opened: OpenExperiment = self._pipe.recv()
        recipe: Recipe = cloudpickle.loads(opened.recipe)
        log = logging.Logger("rf_notebook.worker")
        log.addHandler(_ToKernel(self._send))
        # The engine's threads of the kernel are named so: the libraries' messages of this one go to
        # the log as well.
        threading.current_thread().name = "rf-worker"
        # No code of the user's is at work here.
        with (
            only_waiting(),
            recipe.cooked(Path(opened.folder), self._objects, self._heard, log) as (
                runner,
                environment,
            ),
        ):
            self._fleet = KernelFleet(runner)
            runner.on_saved = self._was_saved  # told at once, not at the next step
            heed_notice(lambda: self._send(Leaving(reason="it was asked to end (SIGTERM)")))
            self._send(Ready(environment=environment))
            threading.Thread(target=self._listen, name="rf-listener", daemon=True).start()
            while not self._is_closing:
                found = self._fleet.next(None)
                if found is not None:
                    reason = _failed(found[1])
                    if reason and runner.is_broken:
                        # The run is not to blame, and the next one would fail, too: in a new
                        # process all continue from their checkpoints.
                        os.write(2, f"the device takes no more work: {reason}\n".encode())
                        os._exit(1)
                    self._tell_memory()
                    self._send(_readable(found[1]))
            self._fleet.close()
        self._pipe.close()

    def _listen(self) -> None:
        while True:
            try:
                said = self._pipe.recv()
            except (EOFError, OSError):
                os._exit(0)  # the kernel is gone
            match said:
                case Bring():
                    for name, value in said.values.items():
                        self._objects.put(name, cloudpickle.loads(value))
                case Begin():
                    self._fleet.begin(KERNEL, said.turn)
                case Ask():
                    self._fleet.ask(KERNEL, said.errand, said.what)
                case Interrupt():
                    self._fleet.interrupt(KERNEL, said.turn)
                case Close():
                    self._is_closing = True
                    self._fleet.wake()
                    return

    def _tell_memory(self) -> None:
        _, used, total = self._gauge.read(is_training=True)
        if used is not None and total is not None:
            self._send(MemoryInUse(used=used, total=total))

    def _heard(self, run_id: int, progress: Progress, point: MetricPoint | None) -> None:
        self._send(Live(run_id=run_id, progress=progress, point=point))

    def _was_saved(self, saved: Saved) -> None:
        self._send(replace(saved, error=_portable(saved.error)))

    def _send(self, message: Any) -> None:
        with self._sending:
            self._pipe.send(message)


def _failed(message: Message) -> str:
    """What went wrong, when something did."""
    match message:
        case TurnOver():
            told = (one.failure.message for one in message.results if one.failure is not None)
            return next(told, "")
        case TurnFailed():
            return repr(message.error)
        case Answer() if message.error is not None:
            return repr(message.error)
    return ""


class _ToKernel(logging.Handler):
    """Sends lines to the experiment's log."""

    def __init__(self, send: Any) -> None:
        super().__init__()
        self._tell = send

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(LogLine(level=record.levelno, text=record.getMessage()))


def _readable(message: Message) -> Message:
    """A message whose error is one of a class that the kernel has."""
    if isinstance(message, TurnFailed):
        return replace(message, error=_portable(message.error))
    if isinstance(message, Answer) and message.error is not None:
        return replace(message, error=_portable(message.error))
    return message


def _portable(error: ErrorT) -> ErrorT | RuntimeError:
    """The error, or its words where another process may not have its class."""
    if error is None or isinstance(error, RFNotebookError):
        return error
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - a class of the user's may do anything
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
