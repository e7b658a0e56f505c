"""When will each run be over, given that they take turns?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What is left of a run, and how fast it goes while it has its turn."""

    run_id: int
    samples_left: int
    seconds_per_sample: float | None
    """None before its first chunk: then the others' mean is taken."""


def remaining_seconds(paces: Iterable[Pace], *, devices: int = 1) -> dict[int, float]:
    """Wall seconds until each run is over, by run id; empty as long as no pace is known.

    Runs advance side by side, so by the time a run with ``n`` samples left is over each other run
    has trained ``min(n, its own samples left)``. Several devices share that, but no run.

    Args:
        paces: Of the runs that are not over.
        devices: How many train.
    """
    runs = list(paces)
    known = [run.seconds_per_sample for run in runs if run.seconds_per_sample is not None]
    if not known:
        return {}
    mean = sum(known) / len(known)
    speed = {r.run_id: mean if r.seconds_per_sample is None else r.seconds_per_sample for r in runs}
    left: dict[int, float] = {}
    shorter, longer = 0.0, sum(speed.values())
    for run in sorted(runs, key=lambda one: one.samples_left):
        longer -= speed[run.run_id]
        shorter += run.samples_left * speed[run.run_id]
        shared = (shorter + run.samples_left * longer) / devices
        left[run.run_id] = max(shared, run.samples_left * speed[run.run_id])
    return left
