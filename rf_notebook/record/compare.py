"""Did a replay give the same? Run by run, figure by figure, to the last bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from rf_notebook.core.events import OperationObeyed
from rf_notebook.core.operations import StopRun
from rf_notebook.core.run import READY, MetricPoint, RunState

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState, RunRecord

_SHOWN = 4


def script_of(state: ExperimentState) -> list[OperationObeyed]:
    """What was done to an experiment.

    Where it was left unfinished, a stop of each run where it was follows.
    """
    done = [
        recorded.event
        for recorded in state.operations
        if isinstance(recorded.event, OperationObeyed)
    ]
    left = [
        OperationObeyed(
            operation=StopRun(run_id=record.run_id),
            steps=record.progress.steps,
            samples=record.progress.samples,
            origin="replay",
        )
        for record in state.ready()
    ]
    return done + left


@dataclass(frozen=True, slots=True, kw_only=True)
class RunComparison:
    """One run of two experiments."""

    run_id: int
    steps: int
    """Logged steps that were compared."""
    difference: str | None
    """The first, in words; None when all is equal."""


def compare(original: ExperimentState, other: ExperimentState) -> list[RunComparison]:
    """Every run of either experiment, by id; wall times and checkpoints' places do not count."""
    ids = sorted({*original.runs, *other.runs})
    return [_compare(run_id, original.runs.get(run_id), other.runs.get(run_id)) for run_id in ids]


def verdict(comparisons: Sequence[RunComparison], name: str) -> str:
    """The comparison in a sentence.

    Args:
        comparisons: As ``compare`` gives them.
        name: Name of the experiment that was replayed.
    """
    differing = [one for one in comparisons if one.difference is not None]
    if not differing:
        steps = sum(one.steps for one in comparisons)
        return f"the replay of {name!r} is equal: {len(comparisons)} runs, {steps} logged steps, bit for bit."
    told = "; ".join(f"run {one.run_id}: {one.difference}" for one in differing[:_SHOWN])
    more = f"; and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
    return f"the replay of {name!r} differs in {len(differing)} of {len(comparisons)} runs: {told}{more}."


def _compare(run_id: int, before: RunRecord | None, now: RunRecord | None) -> RunComparison:
    if before is None or now is None:
        where = "the original" if before is None else "the replay"
        return RunComparison(run_id=run_id, steps=0, difference=f"{where} has no such run")
    steps = 0
    difference = None
    if before.config.digest() != now.config.digest():
        difference = "its config is another"
    for old, new in zip_longest(before.all_points(), now.all_points()):
        if difference is not None:
            break
        difference = _point_difference(old, new)
        steps += difference is None
    is_left = (
        before.state in READY and now.state is RunState.STOPPED
    )  # where the original was, no further
    if difference is None and before.state != now.state and not is_left:
        difference = f"it was {before.state} and is {now.state}"
    if difference is None and before.progress.steps != now.progress.steps:
        difference = (
            f"it had trained {before.progress.steps} steps and has trained {now.progress.steps}"
        )
    return RunComparison(run_id=run_id, steps=steps, difference=difference)


def _point_difference(old: MetricPoint | None, new: MetricPoint | None) -> str | None:
    if old is None or new is None:
        present = old or new
        assert present is not None
        return f"step {present.step} is logged in {'the original' if new is None else 'the replay'} only"
    if (old.step, old.samples, old.chunk) != (new.step, new.samples, new.chunk):
        return f"step {old.step} of chunk {old.chunk} comes where step {new.step} of chunk {new.chunk} is"
    return _figure_difference(old.step, old.metrics, new.metrics)


def _figure_difference(step: int, old: Mapping[str, float], new: Mapping[str, float]) -> str | None:
    for name in dict.fromkeys([*old, *new]):
        before, now = old.get(name), new.get(name)
        if before != now and not (before != before and now != now):
            return f"at step {step} {name} was {before!r} and is {now!r}"
    return None
