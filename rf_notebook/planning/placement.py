"""Which run trains next, and on which device? A pure function of what each run has done.

A run that trained on a device is held there: it is at home. It leaves only at a chunk boundary,
through its checkpoint, and only for a device that would have nothing to do otherwise, or would be
far ahead.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from rf_notebook.planning.fusion import Fusible, group_of

#: Chunks by which the runs of a device may be ahead of one that waits elsewhere.
_FAR_AHEAD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A run that wants a turn."""

    run_id: int
    samples_done: int
    chunks_done: int = 0
    key: str | None = None
    """Equal for runs that can train together; None for one that trains alone."""
    in_chunk: bool = False
    """Whether its last turn was interrupted inside a chunk, by an operation on somebody."""
    home: str | None = None
    """The device that holds it."""
    is_bound: bool = False
    """Whether it cannot leave that device now: what it trained last is not committed."""
    chunk_seconds: float = 0.0
    """That its newest chunk took, or its share of a joint one; 0 before it has trained one."""

    @property
    def order(self) -> tuple[bool, int, int]:
        """Of the turns: a chunk that was begun is finished first, then the fewest samples."""
        return (not self.in_chunk, self.samples_done, self.run_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A device."""

    name: str
    model: str = ""
    """Runs move between devices of one model: another one rounds differently."""
    is_free: bool = True
    """Whether it waits for a turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Give:
    """A device trains these runs next."""

    device: str
    run_ids: tuple[int, ...]
    """One, or several that can train together, by id."""


def place(
    waiting: Iterable[Candidate], slots: Sequence[Slot], *, move_seconds: float = 0.0
) -> list[Give]:
    """What the free devices train next.

    Each chooses among the runs that are at home there or nowhere: the one with the fewest samples,
    ties by run id. So runs advance side by side, and a clone catches up with its peers before it
    rotates among them. Runs that can train together share the turn; those without a home are
    divided among the devices that are free. A device that finds none, or only runs that are far ahead
    of one that waits elsewhere, takes over what waits there; or half of a group that would train
    elsewhere.

    Args:
        waiting: Runs that want a turn and are not in one.
        slots: All devices.
        move_seconds: That it takes to build a run on another device; where its chunk is shorter, it
            stays.
    """
    left = {run.run_id: run for run in waiting}
    gives: dict[str, list[Candidate]] = {}
    free = [slot for slot in slots if slot.is_free]
    for number, slot in enumerate(free):
        group = _group_for(slot.name, left.values(), len(free) - number)
        if group:
            gives[slot.name] = group
            for run in group:
                del left[run.run_id]
    for slot in free:
        own = gives.get(slot.name, [])
        alike = {other.name for other in slots if other.model == slot.model} - {slot.name}
        before = min((run.chunks_done for run in own), default=math.inf) - _FAR_AHEAD
        late = [run for run in left.values() if run.chunks_done <= before]
        is_begun = any(run.in_chunk for run in own)
        moved = [] if is_begun else _waiting_elsewhere(late, alike, move_seconds)
        for run in own if moved else ():
            left[run.run_id] = run
        if not moved and not own:
            moved = _half_of_a_group(gives.values(), alike, move_seconds)
            for name, group in gives.items():
                gives[name] = [run for run in group if run not in moved]
        if moved:
            gives[slot.name] = moved
            for run in moved:
                left.pop(run.run_id, None)
    return [
        Give(device=name, run_ids=tuple(sorted(run.run_id for run in group)))
        for name, group in gives.items()
    ]


def _group_for(device: str, left: Collection[Candidate], free: int) -> list[Candidate]:
    """What a device trains next of the runs that are at home there or nowhere.

    Args:
        device: Its name.
        left: Runs that no other device trains next.
        free: How many devices have still to choose, this one included.
    """
    own = {run.run_id: run for run in left if run.home in (device, None)}
    if not own:
        return []
    first = min(own.values(), key=lambda run: run.order)
    group = [own[run_id] for run_id in group_of(first.run_id, map(_fusible, own.values()))]
    homeless = [run for run in group if run.home is None]
    share = math.ceil(len(homeless) / free)
    kept = sorted(homeless, key=lambda run: run.order)[:share]
    return [run for run in group if run.home is not None or run in kept]


def _waiting_elsewhere(
    left: Collection[Candidate], alike: Collection[str], move_seconds: float
) -> list[Candidate]:
    """Runs that wait for a device that trains others, and can leave it.

    Args:
        left: Runs that no device trains next.
        alike: Devices that round alike.
        move_seconds: See ``place``.
    """
    movable = [run for run in left if run.home in alike and _can_leave(run)]
    if not movable:
        return []
    waiting = {name: sum(run.home == name for run in movable) for name in alike}
    longest = max(sorted(waiting), key=lambda name: waiting[name])
    runs = {run.run_id: run for run in movable if run.home == longest}
    first = min(runs.values(), key=lambda run: run.order)
    group = [runs[run_id] for run_id in group_of(first.run_id, map(_fusible, runs.values()))]
    return group if _is_worth_it(group, move_seconds) else []


def _half_of_a_group(
    gives: Iterable[Collection[Candidate]], alike: Collection[str], move_seconds: float
) -> list[Candidate]:
    """Half of the largest group that can be divided; two halves never take longer than the whole."""
    largest = max(gives, key=len, default=())
    movable = sorted(
        (run for run in largest if (run.home is None or run.home in alike) and _can_leave(run)),
        key=lambda run: run.order,
    )
    half = movable[len(movable) - min(len(movable), len(largest) // 2) :]
    return half if half and _is_worth_it(half, move_seconds) else []


def _can_leave(run: Candidate) -> bool:
    return not (run.in_chunk or run.is_bound)


def _is_worth_it(moved: Collection[Candidate], move_seconds: float) -> bool:
    """Whether moving takes less time than they would wait; as long as that is not known, it is tried."""
    seconds = [run.chunk_seconds for run in moved]
    return not all(seconds) or sum(seconds) > move_seconds


def _fusible(run: Candidate) -> Fusible:
    return Fusible(run_id=run.run_id, key=run.key, chunks_done=run.chunks_done)
