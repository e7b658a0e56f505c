"""What was done to the runs, by whom, and what did it spare?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rf_notebook.core.events import OperationObeyed
from rf_notebook.core.operations import CloneRun, verb
from rf_notebook.core.run import RunState

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState

    pass


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """Something that a policy did."""

    policy: str
    what: str
    run_id: int
    made: int | None
    """The clone, where it made one."""
    samples: int
    """Of the run, when it was done."""
    reason: str


def obeyed_of(state: ExperimentState) -> Iterator[tuple[int, OperationObeyed, int | None]]:
    """Every operation that was obeyed, oldest first.

    Its number in the log, itself, and the run that a clone made.
    """
    made = iter(
        sorted(
            run_id for run_id, record in list(state.runs.items()) if record.parent_id is not None
        )
    )
    for recorded in list(state.operations):
        event = recorded.event
        if isinstance(event, OperationObeyed):
            yield (
                recorded.seq,
                event,
                next(made, None) if isinstance(event.operation, CloneRun) else None,
            )


def decisions_of(state: ExperimentState) -> list[PolicyDecision]:
    """What policies did, oldest first; an operation of a policy has a reason."""
    return [
        PolicyDecision(
            event.origin,
            verb(event.operation),
            event.operation.run_id,
            child,
            event.samples,
            event.reason,
        )
        for _, event, child in obeyed_of(state)
        if event.reason
    ]


@dataclass(frozen=True, slots=True)
class Savings:
    """What policies spared, against training every run to the end of its plan."""

    samples: int
    seconds: float
    """Of the device, at the pace at which each of the runs trained."""
    of_samples: int
    """That all runs would have trained in full."""


def savings_of(state: ExperimentState) -> Savings:
    """Of the runs that a policy stopped and that still stand still."""
    records = [
        record for record in list(state.runs.values()) if record.state is not RunState.DELETED
    ]
    known = max((record.progress.total_samples for record in records), default=0)
    stopped = {one.run_id for one in decisions_of(state) if one.what == "stop"}
    samples, seconds = 0, 0.0
    for record in records:
        if record.state is RunState.STOPPED and record.run_id in stopped:
            left = (record.progress.total_samples or known) - record.progress.samples
            spent = record.train_seconds + record.overhead_seconds
            samples += left
            seconds += left * spent / record.progress.samples if record.progress.samples else 0.0
    return Savings(
        samples, seconds, sum(record.progress.total_samples or known for record in records)
    )
