"""Several devices in one thread: which one trains next, and what dies, is drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rf_notebook.core.fleet import DeviceFacts, DeviceTurn, Leaving, Lost, Message, TurnOver
from rf_notebook.core.run import LoadedModel
from rf_notebook.core.runner import Errand, LiveListener, Saved, SavedListener
from rf_notebook.runners.in_kernel import KernelFleet
from rf_notebook.testing.fake_runner import FakeRunner


class Killed(BaseException):
    """What a device that is killed inside a step ends with."""


class SimulatedFleet:
    """See core.fleet.Fleet: every device is a KernelFleet, and ``next`` lets one of them work."""

    def __init__(
        self,
        folder: Path,
        rng: random.Random,
        devices: int,
        gpus: int = 1,
        *,
        on_step: Callable[[int, int], None] = lambda _run_id, _step: None,
        **options: Any,
    ) -> None:
        self.listener: LiveListener | None = None
        self.on_saved: SavedListener | None = None
        self.on_step = on_step
        self.folder = folder
        self.trained: list[tuple[str, tuple[int, ...]]] = []
        """Every turn that began: the device, and the runs."""
        self._rng, self._gpus = rng, gpus
        self._options = options
        self._has_work: dict[str, int] = {}
        self._lost: dict[str, Lost] = {}
        """What is to be told of devices that were killed."""
        self._notices: dict[str, Leaving] = {}
        """What is to be told of devices that are about to end."""
        self._dead: set[str] = set()
        """Those that were not started again."""
        self.at_work = ""
        """The device whose step it is, or was last."""
        self._is_woken = False
        self._devices = {f"d{number}": self._started() for number in range(devices)}

    def devices(self) -> Sequence[DeviceFacts]:
        return [DeviceFacts(name=name, gpus=self._gpus) for name in self._devices]

    def begin(self, device: str, turn: DeviceTurn) -> None:
        self.trained.append((device, tuple(one.run_id for one in turn.requests)))
        if device not in self._dead:
            self._has_work[device] = self._has_work.get(device, 0) + 1
            self._devices[device].begin(device, turn)

    def interrupt(self, device: str, turn: int) -> None:
        self._devices[device].interrupt(device, turn)

    def ask(self, device: str, errand: int, what: Errand) -> None:
        if device not in self._dead:
            self._has_work[device] = self._has_work.get(device, 0) + 1
            self._devices[device].ask(device, errand, what)

    def next(self, timeout: float | None) -> tuple[str, Message] | None:
        if self._is_woken:
            self._is_woken = False
            return None
        for name, device in self._devices.items():
            if not self._has_work.get(name) and name not in self._dead:
                device.next(0)  # tells of what was saved
        for name in list(self._notices):
            return name, self._notices.pop(name)
        able = sorted({*self._lost, *(name for name, count in self._has_work.items() if count)})
        if not able:
            return None
        self.at_work = name = self._rng.choice(able)
        if name in self._lost:
            return name, self._lost.pop(name)
        found = self._devices[name].next(0)
        if name in self._lost:  # killed meanwhile: what it gave is sometimes told before
            if not isinstance(found and found[1], TurnOver) or self._rng.random() < 0.5:
                return name, self._lost.pop(name)
        elif found is not None:
            self._has_work[name] -= 1
        return None if found is None else (name, found[1])

    def wake(self) -> None:
        self._is_woken = True
        if self.at_work:
            self._devices[self.at_work].wake()

    def restart(self, device: str) -> None:
        self._dead.discard(device)
        self._devices[device] = self._started()

    def abandon(self) -> None: ...

    def close(self) -> None: ...

    def kill(self, *, only_this: bool = False) -> None:
        """End the process of the device whose step it is, or of another one."""
        name = self.at_work if only_this else self._rng.choice([self.at_work, *self._devices])
        if name in self._dead:
            return
        self._dead.add(name)
        self._has_work[name] = 0
        self._lost[name] = Lost(reason="it was killed")
        if name == self.at_work:
            raise Killed

    def leave(self) -> None:
        """Give notice to a device."""
        name = self._rng.choice([*self._devices])
        self._notices[name] = Leaving(reason="its node is drained")

    def cannot_start(self, name: str) -> None:
        """Let a device never begin to listen."""
        self._dead.add(name)
        self._lost[name] = Lost(reason="no such GPU", was_ready=False)

    def loads(self, name: str, *models: LoadedModel) -> None:
        """Let a device tell of base models with its next turn."""
        self._devices[name].runner.loads = models

    def _started(self) -> KernelFleet:
        runner = FakeRunner(
            self.folder,
            on_step=lambda run_id, step: self.on_step(run_id, step),
            **self._options,
        )
        fleet = KernelFleet(runner)
        fleet.listener = self._heard
        fleet.on_saved = self._saved
        return fleet

    def _heard(self, *live: Any) -> None:
        if self.listener is not None:
            self.listener(*live)

    def _saved(self, saved: Saved) -> None:
        if self.on_saved is not None:
            self.on_saved(saved)
