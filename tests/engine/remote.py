"""The fake runner in worker processes, whose every step can be played upon from here."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rf_notebook.core.fleet import DeviceFacts
from rf_notebook.core.objects import Objects
from rf_notebook.engine.loop import Engine
from rf_notebook.runners.cluster.files import Stored
from rf_notebook.runners.fleet import WorkerFleet
from rf_notebook.runners.links import RemoteWorker
from rf_notebook.runners.messages import Bring, OpenExperiment
from rf_notebook.runners.process import ProcessFleet, numbered
from rf_notebook.runners.recipe import pickled
from rf_notebook.store.storage_place import StoragePlace
from tests.engine.carried import CarriedLink
from tests.engine.recipe import STEP, FakeRecipe

#: Of a worker, on a machine that is at work.
_START_SECONDS = 60.0


class RemoteFleet(ProcessFleet):
    """Lets a test's ``on_step`` run in the engine's thread while the worker waits.

    What ``on_step`` asks of the engine has reached the worker before it goes on, as it does in the
    kernel.
    """

    def __init__(
        self,
        folder: Path,
        *,
        on_step: Callable[[int, int], None],
        workers: int = 1,
        is_carried: bool = False,
        **options: Any,
    ) -> None:
        log = logging.Logger("remote")
        log.addFilter(self._hear)
        self.on_step = on_step
        self.engine: Engine | None = None
        self.steps_of: dict[str, int] = {}
        """The run that each worker is in a step of, by device."""
        self._allowed: Counter[str] = Counter()
        self._waiting: set[str] = set()
        devices = [DeviceFacts(name="cpu")] * workers
        if is_carried:
            self._start_carried(FakeRecipe(options), folder, devices, log)
        else:
            super().__init__(
                FakeRecipe(options), Objects(), folder=folder, devices=devices, log=log
            )
        if workers > 1:  # so that their steps come in turn, and none is done when another begins
            for _ in devices:
                said = super().next(_START_SECONDS)
                if said is not None:
                    self._answers.append(said)

    def _start_carried(
        self, recipe: FakeRecipe, folder: Path, devices: list[DeviceFacts], log: logging.Logger
    ) -> None:
        """As ClusterFleet does; the checkpoints of several workers lie on a mount."""
        stored, place = None, None
        if len(devices) > 1:
            mount = folder / "mount"
            mount.mkdir(parents=True, exist_ok=True)
            stored, place = Stored(), StoragePlace(address=str(mount), names=("exp",))
        opening = OpenExperiment(recipe=pickled(recipe, "it"), folder=str(folder))
        names = numbered([facts.name for facts in devices])
        WorkerFleet.__init__(
            self,
            (
                RemoteWorker(
                    DeviceFacts(name=name),
                    partial(CarriedLink, folder, stored, place),
                    opening,
                    Objects(),
                    log,
                )
                for name in names
            ),
        )

    def next(self, timeout: float | None) -> Any:
        for device in sorted(self._waiting):
            self._allow(device)
        return super().next(timeout)

    def restart(self, device: str) -> None:
        self._allowed.pop(device, None)
        self._waiting.discard(device)
        super().restart(device)

    def kill(self, device: str | None = None) -> None:
        """As the system does for want of memory; all when none is named."""
        for name, worker in self.workers.items():
            if device in (None, name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)

    def kill_of(self, run_id: int) -> None:
        """End the process that is in a step of a run."""
        self.kill(self.device_of(run_id))

    def device_of(self, run_id: int) -> str:
        """Whose step it is."""
        return next(device for device, run in self.steps_of.items() if run == run_id)

    def pid_of(self, run_id: int) -> int:
        """The process that is in a step of a run."""
        return self.workers[self.device_of(run_id)].pid

    def _hear(self, record: logging.LogRecord) -> bool:
        words = record.getMessage().split()
        if words[1] == STEP:
            device = words[0].removesuffix(":")
            self._waiting.add(device)
            self.steps_of[device] = int(words[2])
            self.on_step(int(words[2]), int(words[3]))
            if self.engine is None or self.engine.mailbox.first() is None:
                self._allow(device)
            else:
                self.wake()  # as whoever asks from another thread does
        return False

    def _allow(self, device: str) -> None:
        self._waiting.discard(device)
        self._allowed[device] += 1
        name = f"allowed {self._allowed[device]}"
        self.workers[device].send(Bring(values={name: pickled(True, "it")}))
