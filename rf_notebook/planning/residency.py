"""What is moved to host memory when the device is short? A pure function of who is on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """Weights on the device that the next turn does not need."""

    key: str
    bytes: int
    last_used: int
    """Counts turns; the larger, the more recent."""
    is_base: bool
    """A base model that several runs may share."""


def to_move_out(residents: Iterable[Resident], missing: int) -> list[str]:
    """Whose weights leave the device so that ``missing`` bytes become free.

    Runs take turns in a circle, so the one that trained last is needed last and goes first. Base
    models go after all runs. Nothing is moved when it is not necessary; everything when it does not
    suffice.
    """
    chosen: list[str] = []
    for resident in sorted(residents, key=lambda one: (one.is_base, -one.last_used, one.key)):
        if missing <= 0:
            break
        if resident.bytes > 0:
            chosen.append(resident.key)
            missing -= resident.bytes
    return chosen
