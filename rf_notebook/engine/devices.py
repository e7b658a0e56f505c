"""Where is each run, and what does each device do? The fleet, as the engine sees it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import WorkerLost
from rf_notebook.core.fleet import (
    KERNEL,
    Answer,
    DeviceTurn,
    Fleet,
    Lost,
    Message,
    TurnOver,
)
from rf_notebook.core.status import DeviceStatus

if TYPE_CHECKING:
    from rf_notebook.core.runner import ChunkRequest, Errand

#: How long the engine listens before it looks around.
LISTEN_SECONDS = 1.0
#: A fleet says nothing when it was woken, when a process has begun to listen, when a checkpoint is
#: written; so often in a row that nothing more is to be heard now.
_SILENT_TIMES = 20


@dataclass(frozen=True, slots=True)
class AskedTurn:
    """What a device is to train next."""

    run_ids: tuple[int, ...]
    steps: int | None
    """At most so many of each run."""
    is_joint: bool


@dataclass(slots=True, eq=False)
class Device:
    """One device of the fleet."""

    name: str
    work: Generator[AskedTurn, TurnOver, Any] | None = None
    """What it does, see ``work.py``; None when it is free."""
    run_ids: tuple[int, ...] = ()
    """Of the work: its runs."""
    asked: AskedTurn | None = None
    """Of the work: the turn that is under way, or is to be asked for again."""
    turn: int | None = None
    """The number of the turn that is under way; None while it stands between two."""
    is_wanted: bool = False
    """Whether somebody waits until it stands, so that it gets no further turn."""
    held_up: str | None = None
    """Why its turn could not end and is asked for again: a full disk."""
    failed_starts: int = 0
    """In a row: its process ended before it listened."""
    is_gone: bool = False
    """Whether its process could not be started, or had another base model than the others."""
    is_leaving: bool = False
    """Whether its process is about to be ended, so that its runs are saved."""

    @property
    def is_free(self) -> bool:
        """Whether it can be given work."""
        return self.work is None and not (self.is_wanted or self.is_gone or self.is_leaving)


class Devices:
    """All devices of an experiment, and where its runs are held."""

    def __init__(self, fleet: Fleet) -> None:
        """Nobody trains, and no run is held.

        Args:
            fleet: Who trains.
        """
        self.fleet = fleet
        self.all = [Device(facts.name) for facts in fleet.devices()]
        self.homes: dict[int, Device] = {}
        """The device that holds a run, by run."""
        self.on_lost: Callable[[Device, Lost], bool] = lambda _device, _lost: False
        """Called when the process of a device is gone while something else is waited for; whether it
        was started again."""
        self.is_listening = False
        """Whether nothing but messages is waited for."""
        self._inbox: deque[tuple[Device, Message]] = deque()
        """What came while something else was waited for."""
        self._number = 0
        """Of the newest turn or errand."""

    def next_number(self) -> int:
        """A number that no turn, errand or checkpoint of this engine has had."""
        self._number += 1
        return self._number

    @property
    def open(self) -> list[Device]:
        """Those that are in a turn."""
        return [device for device in self.all if device.turn is not None]

    @property
    def working(self) -> list[Device]:
        """Those that have work, in a turn or not."""
        return [device for device in self.all if device.work is not None]

    def home(self, run_id: int) -> Device:
        """The device that holds a run; of one that none holds, one that stands if there is any."""
        found = self.homes.get(run_id)
        return self.anyone() if found is None else found

    def anyone(self) -> Device:
        """A device that stands, if there is any."""
        there = [device for device in self.all if not device.is_gone]
        return next((device for device in there if device.turn is None), there[0])

    def where(self, run_id: int) -> str:
        """The device of a worker process that holds a run; "" when it is the kernel, or none."""
        found = self.homes.get(run_id)
        return "" if found is None or found.name == KERNEL else found.name

    def statuses(self) -> tuple[DeviceStatus, ...]:
        """What the devices of worker processes do; any thread."""
        homes = list(self.homes.items())
        return tuple(
            DeviceStatus(
                name=device.name,
                host=facts.host,
                model=facts.described,
                training=() if device.turn is None else device.run_ids,
                holds=tuple(sorted(run_id for run_id, home in homes if home is device)),
                used_bytes=facts.used_bytes,
                total_bytes=facts.total_bytes,
                is_gone=device.is_gone,
            )
            for device, facts in zip(self.all, self.fleet.devices(), strict=True)
            if device.name != KERNEL
        )

    def held_by(self, device: Device) -> list[int]:
        """The runs that a device holds."""
        return [run_id for run_id, home in self.homes.items() if home is device]

    # ---- turns

    def begin(self, device: Device, requests: Sequence[ChunkRequest], number: int) -> None:
        """Begin a turn."""
        self.fleet.begin(device.name, DeviceTurn(turn=number, requests=tuple(requests)))
        device.turn = number

    def interrupt(self, devices: Iterable[Device]) -> None:
        """End the open turns of these devices at their next step."""
        for device in devices:
            if device.turn is not None:
                self.fleet.interrupt(device.name, device.turn)

    def hear(self, timeout: float = LISTEN_SECONDS) -> tuple[Device, Message] | None:
        """The next message; None when none came in time, or somebody woke the fleet."""
        if self._inbox:
            return self._inbox.popleft()
        self.is_listening = True
        try:
            return self._next(timeout)
        finally:
            self.is_listening = False

    @property
    def has_unheard(self) -> bool:
        """Whether messages came while something else was waited for."""
        return bool(self._inbox)

    def wait_for_saves(self) -> Device | None:
        """Wait for what is said of checkpoints, or a while; the device that was lost meanwhile.

        What else comes is heard later, and so is the loss.
        """
        found = self._next(LISTEN_SECONDS)
        if found is None:
            return None
        self._inbox.append(found)
        return found[0] if isinstance(found[1], Lost) else None

    # ---- errands

    def do(self, device: Device, what: Errand) -> Any:
        """Have an errand done by a device that stands.

        Raises:
            WorkerLost: when its process died meanwhile.
            Exception: what the errand raised.
        """
        self._hear_of_loss(device)
        number = self.next_number()
        self.fleet.ask(device.name, number, what)
        while True:
            found = self._lost(device) or self._next(LISTEN_SECONDS)
            match found:
                case (_, Answer(errand=errand) as answer) if errand == number:
                    if answer.error is not None:
                        raise answer.error
                    return answer.value
                case (of, Lost() as lost) if of is device:
                    self.on_lost(device, lost)
                    raise WorkerLost(lost.reason)
                case (of, said):
                    self._inbox.append((of, said))

    def do_for(self, run_id: int, what: Errand) -> Any:
        """Have an errand done where a run is held; raises what ``do`` raises."""
        return self.do(self.home(run_id), what)

    def send(self, device: Device, what: Errand) -> None:
        """Have an errand done that nobody waits for."""
        self.fleet.ask(device.name, self.next_number(), what)

    def _hear_of_loss(self, device: Device) -> None:
        """Start the process of a device again that was lost while nothing was asked of it.

        Raises:
            WorkerLost: when it is not started again.
        """
        if device.name == KERNEL:
            return
        silent = 0
        while silent < _SILENT_TIMES:
            found = self._lost(device) or self._next(0.0)
            if found is None:
                silent += 1
            elif found[0] is device and isinstance(found[1], Lost):
                if not self.on_lost(device, found[1]):
                    raise WorkerLost(found[1].reason)
            else:
                self._inbox.append(found)

    def _lost(self, device: Device) -> tuple[Device, Message] | None:
        """What was told of a lost device and not heard yet, taken out of the inbox."""
        for told in self._inbox:
            if told[0] is device and isinstance(told[1], Lost):
                self._inbox.remove(told)
                return told
        return None

    def _next(self, timeout: float) -> tuple[Device, Message] | None:
        found = self.fleet.next(timeout)
        if found is None:
            return None
        name, message = found
        return next(device for device in self.all if device.name == name), message
