"""How does an experiment stand, besides its runs?"""

from __future__ import annotations

from dataclasses import dataclass


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
    held_up: str | None = None
    error: str | None = None
    """Why the engine ended by itself."""
    waits_for: str = ""
    """What the policy at work waits for, in words."""
    device: str = "CPU"
    memory_bytes: int | None = None
    memory_total_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What could not be done, told where it was asked."""

    at: float
    text: str
