"""How does an experiment stand, besides its runs?"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStatus:
    """What a device of a worker process does at the moment."""

    name: str
    """As in ``run_fit(devices=...)``."""
    host: str = ""
    """The machine, on a cluster; "" for this one."""
    model: str
    """What it is, as it says."""
    training: tuple[int, ...]
    """The runs whose turn it is."""
    holds: tuple[int, ...]
    """The runs that are in its memory."""
    used_bytes: int | None
    """Of its memory, by anybody, as of its newest turn."""
    total_bytes: int | None
    is_gone: bool
    """Whether its process could not be started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How the experiment stands, besides its runs."""

    open: bool
    """Whether operations will be obeyed."""
    preparing: bool = False
    """Whether ``run_fit`` is at work: libraries are loaded, configs checked."""
    idle: bool = False
    """Whether no run wants a turn."""
    paused: bool = False
    read_only: bool = False
    damage: str = ""
    """What is wrong with the record, of which the entries before are shown."""
    held_up: str | None = None
    error: str | None = None
    """Why the engine ended by itself."""
    waits_for: str = ""
    """What the policy at work waits for, in words."""
    device: str = "CPU"
    memory_bytes: int | None = None
    memory_total_bytes: int | None = None
    devices: tuple[DeviceStatus, ...] = ()
    """Of worker processes; none when runs train in the kernel."""
    price_per_hour: float | None = None
    """Of one device, in whichever currency the user thinks in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What could not be done, told where it was asked."""

    at: float
    text: str
