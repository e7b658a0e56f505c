"""What can a user ask of a running experiment?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import assert_never

from rf_notebook.core.errors import IllegalOperation
from rf_notebook.core.run import RunConfig, RunState
from rf_notebook.core.values import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRun:
    """Take a run out of the rotation; it keeps everything it has."""

    run_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeRun:
    """Put a stopped run back into the rotation, exactly where it was."""

    run_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteRun:
    """Remove a run, its memory and its checkpoints; its figures stay in the record."""

    run_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneRun:
    """Add a run whose config is the parent's with edits."""

    run_id: int
    """The parent."""
    config: RunConfig
    """The whole config of the new run."""
    edits: Mapping[str, Json]
    """What differs from the parent, by dotted key; information, for ``config`` already holds it."""
    warm_start: bool = False
    """Whether the new run starts from the parent's adapter as it is when the operation is obeyed."""
    functions: Mapping[str, str] = field(default_factory=dict)
    """Sources of the functions that ``config`` refers to and the edits brought, by name; recorded
    with the new run."""


Operation = StopRun | ResumeRun | DeleteRun | CloneRun

#: Operations that need nothing but the run, by the word that a user says.
BY_VERB: dict[str, type[StopRun] | type[ResumeRun] | type[DeleteRun]] = {
    "stop": StopRun,
    "resume": ResumeRun,
    "delete": DeleteRun,
}

ALLOWED_FROM: dict[type, frozenset[RunState]] = {
    StopRun: frozenset({RunState.QUEUED, RunState.RUNNING}),
    ResumeRun: frozenset({RunState.STOPPED}),
    DeleteRun: frozenset(RunState) - {RunState.DELETED},
    CloneRun: frozenset(RunState) - {RunState.DELETED},
}

_WHY = {
    StopRun: "only a queued or running run can be stopped",
    ResumeRun: "only a stopped run can be resumed",
    DeleteRun: "it is gone already",
    CloneRun: "a deleted run cannot be cloned",
}


def verb(operation: Operation) -> str:
    """The word that a user would say: stop, resume, delete, clone."""
    match operation:
        case StopRun():
            return "stop"
        case ResumeRun():
            return "resume"
        case DeleteRun():
            return "delete"
        case CloneRun():
            return "clone"
        case _:
            assert_never(operation)


def check_allowed(operation: Operation, state: RunState, *, steps_done: int) -> None:
    """Refuse an operation that the run's state does not allow.

    Raises:
        IllegalOperation: with the run, its state and what would be allowed.
    """
    if state not in ALLOWED_FROM[type(operation)]:
        raise IllegalOperation(
            f"cannot {verb(operation)} run {operation.run_id}: it is {state}, and {_WHY[type(operation)]}."
        )
    if isinstance(operation, CloneRun) and operation.warm_start and steps_done == 0:
        raise IllegalOperation(
            f"cannot warm-start from run {operation.run_id}: it has not trained a step yet. "
            "Wait for its first step, or clone it without warm_start."
        )
