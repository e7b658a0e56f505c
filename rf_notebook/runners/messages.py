"""What a kernel and a worker process say to each other besides turns, errands and their answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rf_notebook.core.fleet import DeviceTurn
    from rf_notebook.core.run import MetricPoint, Progress
    from rf_notebook.core.runner import Errand
    from rf_notebook.core.values import Json

# ---- to the worker


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenExperiment:
    """The first message: what all runs share."""

    recipe: bytes
    """A Recipe, by cloudpickle."""
    folder: str
    """The experiment's where the worker is, absolute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bring:
    """Functions, other objects and secrets, by the names that later configs use for them."""

    values: Mapping[str, bytes]
    """By cloudpickle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """See Fleet.begin."""

    turn: DeviceTurn


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """See Fleet.ask."""

    errand: int
    what: Errand


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupt:
    """See Fleet.interrupt."""

    turn: int


@dataclass(frozen=True, slots=True)
class Close:
    """Free everything and end."""


# ---- from the worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The libraries are imported, and turns can begin."""

    environment: Mapping[str, Json] = field(default_factory=dict)
    """See DeviceFacts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryInUse:
    """After a turn: the memory of the device, or of the process on the CPU."""

    used: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """See LiveListener."""

    run_id: int
    progress: Progress
    point: MetricPoint | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where the worker is, on a cluster."""

    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """For the experiment's log."""

    level: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """The worker has ended; said by whoever saw it."""

    reason: str
    """In words."""
    was_killed: bool = False
    """Whether somebody else ended it."""
