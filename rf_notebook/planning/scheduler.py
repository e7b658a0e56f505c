"""Which run trains next? A pure function of what each run has done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A run that wants a turn."""

    run_id: int
    samples_done: int
    in_chunk: bool = False
    """Whether its last turn was interrupted inside a chunk, by an operation on somebody."""


@dataclass(frozen=True, slots=True)
class Turn:
    """This run trains next."""

    run_id: int


@dataclass(frozen=True, slots=True)
class Idle:
    """No run wants a turn."""


def next_turn(candidates: Iterable[Candidate]) -> Turn | Idle:
    """The run with the fewest samples, ties by run id; a chunk that was begun is finished first.

    So runs advance side by side, and a clone catches up with its peers before it rotates among
    them.
    """
    waiting = list(candidates)
    if not waiting:
        return Idle()
    chosen = min(waiting, key=lambda run: (not run.in_chunk, run.samples_done, run.run_id))
    return Turn(chosen.run_id)
