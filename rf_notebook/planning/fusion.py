"""Which runs train together in joint steps? Pure functions of what each run is and has done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class Execution(StrEnum):
    """How runs share the device."""

    EXACT = "exact"
    """In turns, each bit for bit as alone."""
    FUSED = "fused"
    """In joint steps where possible, equal to training alone up to rounding."""
    AUTO = "auto"
    """Whichever of the two is found faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusible:
    """A run that wants a turn."""

    run_id: int
    key: str | None
    """Equal for runs that can train together; None for one that cannot."""
    chunks_done: int


def group_of(run_id: int, waiting: Iterable[Fusible]) -> tuple[int, ...]:
    """The runs that train together with the one whose turn it is, itself included, by id.

    They stand at the same chunk, so that a clone catches up with its peers before it joins them.
    """
    runs = {run.run_id: run for run in waiting}
    chosen = runs[run_id]
    if chosen.key is None:
        return (run_id,)
    return tuple(
        sorted(
            r.run_id
            for r in runs.values()
            if r.key == chosen.key and r.chunks_done == chosen.chunks_done
        )
    )


def suggestions(keys: Iterable[str | None]) -> list[str]:
    """That runs which train in turns could train together, in a sentence; none when none could.

    Args:
        keys: What each run's ``Fusible.key`` is.
    """
    counted = Counter(key for key in keys if key is not None)
    most = max(counted.values(), default=0)
    if most < 2:
        return []
    return [
        f"{most} of these runs could train in joint steps, equal to training alone up to rounding: "
        "run_fit(..., execution='auto') tries that for a few steps and takes the faster way."
    ]


#: Steps that are trained, and not timed, before those that are: trainers are built in them.
WARM_UP_STEPS = 1
#: Steps that are timed in each way.
TIMED_STEPS = 3
#: A joint step has to be this much faster for the change in rounding.
_MARGIN = 1.02


class Way(StrEnum):
    """One of the two ways in which a group can train."""

    ALONE = "alone"
    TOGETHER = "together"


@dataclass(slots=True)
class Trial:
    """What ``execution="auto"`` knows of a group: seconds of a step of all runs, in each way."""

    seconds: dict[Way, float] = field(default_factory=dict)
    is_warm: set[Way] = field(default_factory=set)

    def next_way(self) -> Way:
        """How the group trains next."""
        for way in (Way.ALONE, Way.TOGETHER):
            if way not in self.seconds:
                return way
        faster = self.seconds[Way.ALONE] > _MARGIN * self.seconds[Way.TOGETHER]
        return Way.TOGETHER if faster else Way.ALONE

    @property
    def is_over(self) -> bool:
        """Whether both ways are known."""
        return len(self.seconds) == len(Way)

    def next_steps(self) -> int | None:
        """How many steps each run trains before the trial continues; None once it is over."""
        if self.is_over:
            return None
        return TIMED_STEPS if self.next_way() in self.is_warm else WARM_UP_STEPS

    def trained(self, way: Way, seconds: float) -> None:
        """The steps that ``next_steps`` named were trained by all runs."""
        if self.is_over:
            return
        if way in self.is_warm:
            self.seconds[way] = seconds / TIMED_STEPS
        else:
            self.is_warm.add(way)

    def verdict(self, runs: int) -> str:
        """In a sentence, with the figures."""
        alone, together = (self.seconds[way] * 1000 for way in (Way.ALONE, Way.TOGETHER))
        which = "in joint steps" if self.next_way() is Way.TOGETHER else "in turns"
        return (
            f"execution='auto': {runs} runs train {which}; a step of all took {together:.3g} ms jointly and "
            f"{alone:.3g} ms in turns."
        )
