"""How does the engine reach whoever trains?

A fleet of devices: turns with ids, errands, and messages that come back.

Everything that is said is a value. The engine's thread waits for messages and nothing else, so a
runner may live in the kernel, in a process of its own, or on another machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rf_notebook.core.runner import ChunkRequest, ChunkResult, Errand, LiveListener, SavedListener
from rf_notebook.core.values import Json

#: The name of the device of a fleet that trains in the kernel's own process.
KERNEL = "kernel"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What a device is."""

    name: str
    """As the fleet calls it: "cpu", "cuda:0"; of several GPUs "cuda:0+cuda:1"."""
    host: str = ""
    """The machine, on a cluster, as soon as it is known; "" for this one."""
    gpus: int = 1
    """Over how many devices the models of its runs are spread."""
    environment: Mapping[str, Json] = field(default_factory=dict)
    """Python, platform, device, and the settings of torch that figures depend on; empty until they
    are known."""
    used_bytes: int | None = None
    """Of its memory, by anybody, as of its newest turn; None until that is known."""
    total_bytes: int | None = None
    """Of its memory."""
    has_bf16: bool = True
    """Whether it computes in bfloat16, and with that in TF32."""

    @property
    def model(self) -> str:
        """Of the device, as it says; "" until that is known."""
        return str(self.environment.get("device", ""))

    @property
    def described(self) -> str:
        """The model, and of several GPUs how many; "" until that is known."""
        return f"{self.gpus} x {self.model}" if self.gpus > 1 and self.model else self.model


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceTurn:
    """A turn of one run, or of several in joint steps."""

    turn: int
    """Counts up; an interrupt names it."""
    requests: tuple[ChunkRequest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnOver:
    """A turn ended."""

    turn: int
    results: tuple[ChunkResult, ...]
    """One for each request; none when the turn ended before it trained."""
    seconds: float
    """That the device was at work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnFailed:
    """A turn raised: StorageFull, after which it can be asked for again, or what nobody expected."""

    turn: int
    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An errand was done, or raised."""

    errand: int
    value: object = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The process that trains is gone, and what was held in its memory."""

    reason: str
    """In words."""
    was_ready: bool = True
    """Whether it had begun to listen; one that had not, and ended by itself, would do so again."""
    was_killed: bool = False
    """Whether somebody else ended it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """The process that trains is about to be ended by somebody else; what it holds can be saved."""

    reason: str
    """In words."""


Message = TurnOver | TurnFailed | Answer | Lost | Leaving


class Fleet(Protocol):
    """The devices of an experiment.

    All methods but ``interrupt``, ``wake`` and ``abandon`` are called by one thread.
    """

    listener: LiveListener | None
    """Hears of steps, inside ``next``."""
    on_saved: SavedListener | None
    """Hears of checkpoints that were written behind turns, inside ``next``."""

    def devices(self) -> Sequence[DeviceFacts]:
        """Those that there are, the first one first."""

    def begin(self, device: str, turn: DeviceTurn) -> None:
        """Begin a turn; returns at once. Not while another one is open there."""

    def interrupt(self, device: str, turn: int) -> None:
        """Let a turn end at the next step.

        One that is over is not touched, and one to come is; any thread.
        """

    def ask(self, device: str, errand: int, what: Errand) -> None:
        """Have an errand done between turns; returns at once.

        Exactly one Answer comes, or the device is lost.
        """

    def next(self, timeout: float | None) -> tuple[str, Message] | None:
        """The next message and its device; None when the seconds are over, or after ``wake``."""

    def wake(self) -> None:
        """End a ``next``, at the next step when it trains itself; a turn stays open; any thread."""

    def restart(self, device: str) -> None:
        """Start the process of a lost device again."""

    def abandon(self) -> None:
        """Let all give up at once, what is not committed lost; any thread."""

    def close(self) -> None:
        """Free everything."""
