"""How would runs be spread over up to 64 devices? A simulation with step times that were measured.

Only two devices were measured (``fleet``); this lets ``planning.placement`` decide over as many as
one likes, with the seconds that one device took for a step alone and in joint steps.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, Report
from rf_notebook.planning.placement import Candidate, Slot, place

DEVICES = (1, 2, 4, 8, 16, 32, 64)
CONFIGS = (8, 16, 32)
CHUNKS, STEPS = 16, 16
"""Of a run, and of a chunk."""
#: Seconds that it takes to build a run elsewhere: the upper end of what it may take at 1.1B.
MOVE_SECONDS = 3.0
#: Seconds from one turn of a device to its next one: 99 % of those that were measured were below.
HANDOVER_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Course:
    """What a simulation gave."""

    seconds: float
    idle: float
    """Share of the devices' time."""
    moves: int


def simulated(
    lengths: Sequence[float],
    devices: int,
    turn_seconds: Callable[[int], float],
    *,
    key: str | None = None,
    halves: bool = False,
) -> Course:
    """Train runs of CHUNKS chunks each over equal devices.

    Args:
        lengths: Of the steps of each run, as multiples of what was measured.
        devices: How many.
        turn_seconds: Of a chunk of so many runs in joint steps.
        key: Of runs that can train together; None where each has its turns alone.
        halves: Whether only the better half (the lower ids) goes on after chunk 1, 2, 4, ..., and
            nobody gets ahead of the others, as with ``Halving``.
    """
    slots = [Slot(name=str(number)) for number in range(devices)]
    left = {
        number: Candidate(run_id=number, samples_done=0, key=key)
        for number in range(1, len(lengths) + 1)
    }
    events: list[tuple[float, str, tuple[int, ...]]] = []
    now = busy = 0.0
    moves = 0
    while left:
        at_work = {run_id for _, _, group in events for run_id in group}
        taken = {name for _, name, _ in events}
        lowest = min(run.chunks_done for run in left.values())
        waiting = [
            run
            for run in left.values()
            if run.run_id not in at_work and (not halves or run.chunks_done == lowest)
        ]
        here = [replace(slot, is_free=slot.name not in taken) for slot in slots]
        for give in place(waiting, here, move_seconds=MOVE_SECONDS):
            moved = [one for one in give.run_ids if left[one].home not in (None, give.device)]
            moves += len(moved)
            slowest = max(lengths[run_id - 1] for run_id in give.run_ids)
            took = turn_seconds(len(give.run_ids)) * slowest + MOVE_SECONDS * bool(moved)
            busy += took
            heapq.heappush(events, (now + took + HANDOVER_SECONDS, give.device, give.run_ids))
            for run_id in give.run_ids:
                left[run_id] = replace(left[run_id], home=give.device)
        now, _, group = heapq.heappop(events)
        for run_id in group:
            run = left[run_id]
            done = run.chunks_done + 1
            seconds = turn_seconds(len(group)) * lengths[run_id - 1] / len(group)
            left[run_id] = replace(
                run, chunks_done=done, samples_done=done * STEPS, chunk_seconds=seconds
            )
            if done == CHUNKS:
                del left[run_id]
        _eliminate(left, events, halves=halves)
    return Course(now, 1 - busy / (now * devices), moves)


def _eliminate(left: dict[int, Candidate], events: Sequence[Any], *, halves: bool) -> None:
    """After chunk 1, 2, 4, ... of all runs the higher half of the ids is stopped."""
    done = {run.chunks_done for run in left.values()}
    if not halves or events or len(done) != 1 or len(left) == 1:
        return
    (chunks,) = done
    if chunks & (chunks - 1) == 0:
        for run_id in sorted(left)[(len(left) + 1) // 2 :]:
            del left[run_id]


def measured() -> tuple[float, Callable[[int], float]]:
    """Seconds of a step of a run alone, and of one of so many in joint steps, from ``fleet``."""
    exact, joint = (_figures(f"fleet-{name}-cuda.json") for name in ("exact", "joint"))
    alone = exact["8 configs, one device"] / (8 * 32)
    eight, four = (joint[f"8 configs, {which} device"] / 128 for which in ("one", "two"))
    each = (eight - four) / 4
    return alone, lambda runs: four + (runs - 4) * each


def _figures(name: str) -> dict[str, float]:
    body = json.loads((RESULTS / name).read_text())
    return {
        one["what"].replace("two devices", "two device"): one["value"] for one in body["figures"]
    }


def measure(report: Report) -> None:
    """Speed-up over one device, and the share of time that devices had nothing to do."""
    alone, joint = measured()
    report.row("measured: a step of a run alone", alone, "s")
    report.row("measured: a joint step of 8 runs", joint(8), "s")
    report.row("measured, from a line through 8 and 4: a joint step of 1 run", joint(1), "s")
    cases: dict[str, dict[str, Any]] = {
        "exact": {"turn_seconds": lambda _runs: alone * STEPS},
        "joint": {"turn_seconds": lambda runs: joint(runs) * STEPS, "key": "k"},
        "exact, steps 1 to 4 times as long": {"turn_seconds": lambda _runs: alone * STEPS},
        "exact, Halving": {"turn_seconds": lambda _runs: alone * STEPS, "halves": True},
    }
    for name, options in cases.items():
        for count in CONFIGS:
            lengths = [1 + 3 * i / (count - 1) for i in range(count)]
            uneven = lengths if "1 to 4" in name else [1.0] * count
            one = simulated(uneven, 1, **options)
            for devices in DEVICES[1:]:
                found = simulated(uneven, devices, **options)
                what = f"{name}: {count} configs on {devices} devices"
                report.row(what, one.seconds / found.seconds, "x one device")
                report.row(f"{what}: idle", 100 * found.idle, "%")
                report.row(f"{what}: moves", found.moves, "of runs")
    report.conditions = {
        "chunks": CHUNKS,
        "steps a chunk": STEPS,
        "seconds of a move": MOVE_SECONDS,
        "seconds of a hand-over": HANDOVER_SECONDS,
    }


def draw(path: Path) -> None:
    """The curves of ``measure``; needs matplotlib."""
    from matplotlib.figure import Figure

    body = json.loads((RESULTS / "placement-cpu.json").read_text())
    values = {one["what"]: one["value"] for one in body["figures"]}
    names = dict.fromkeys(what.split(":")[0] for what in values if " configs on " in what)
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    axes: Any = figure.subplots(1, len(names), sharey=True)
    for axis, name in zip(axes, names, strict=True):
        axis.plot(DEVICES, DEVICES, color="#b8c0c2", linewidth=1, label="ideal")
        for count, colour in zip(CONFIGS, ("#56b4e9", "#0072b2", "#000000"), strict=True):
            curve = [1.0] + [values[f"{name}: {count} configs on {n} devices"] for n in DEVICES[1:]]
            axis.plot(
                DEVICES, curve, marker="o", markersize=3, color=colour, label=f"{count} configs"
            )
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=2)
        axis.set_title(name, fontsize=8)
        axis.set_xlabel("devices", fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("times one device", fontsize=8)
    axes[0].legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=150)
