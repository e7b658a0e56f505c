"""What can be asked of an experiment that trains?

Values, so that it can be logged, recorded and sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, assert_never

from rf_notebook.core.events import Labelled
from rf_notebook.core.operations import CloneRun, DeleteRun, Operation, ResumeRun, StopRun, verb

if TYPE_CHECKING:
    from rf_notebook.core.run import RunConfig
    from rf_notebook.core.state import ExperimentState
    from rf_notebook.core.values import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPaused:
    """Give no run a turn, or give turns again."""

    paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PinRuns:
    """Let policies leave runs alone, or no longer."""

    run_ids: tuple[int, ...]
    pinned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRuns:
    """Change names, tags or notes."""

    run_ids: tuple[int | None, ...]
    """None for the experiment."""
    changes: Mapping[str, Any]
    """See ``core.labels.label_changes``."""

    def events(self, state: ExperimentState) -> list[Labelled]:
        """What is to be recorded."""
        return [
            Labelled(run_id=run_id, label=replace(state.label(run_id), **self.changes))
            for run_id in self.run_ids
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Automate:
    """Let a policy decide from now on."""

    policy: Any
    """An automation.Policy; None for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateTexts:
    """What the models of runs write."""

    run_ids: tuple[int, ...]
    prompts: tuple[str, ...]
    settings: Mapping[str, Json]
    """Arguments of ``generate``, and ``seed``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadModel:
    """The model of a run's newest checkpoint, for inference."""

    run_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRun:
    """Write the model of a run's newest checkpoint to a folder."""

    run_id: int
    path: str
    merge: bool
    """Whether to write whole weights with the adapter folded in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddRuns:
    """Add a run for each config."""

    configs: tuple[RunConfig, ...]
    functions: Mapping[str, str] = field(default_factory=dict)
    """Sources of the functions that they refer to, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseExperiment:
    """Commit what is trained, and that the experiment ended."""

    cancelled: bool


Request = (
    Operation
    | SetPaused
    | PinRuns
    | LabelRuns
    | Automate
    | GenerateTexts
    | LoadModel
    | ExportRun
    | AddRuns
    | CloseExperiment
)


def in_words(request: Request) -> str:
    """A request as a line of the log says it."""
    match request:
        case StopRun() | ResumeRun() | DeleteRun() | CloneRun():
            return f"{verb(request)} run {request.run_id}"
        case SetPaused():
            return "pause" if request.paused else "resume"
        case PinRuns():
            return f"{'pin' if request.pinned else 'unpin'} {_runs(request.run_ids)}"
        case LabelRuns():
            named = [run_id for run_id in request.run_ids if run_id is not None]
            return f"label {_runs(tuple(named)) if named else 'the experiment'}"
        case Automate():
            return "no policy" if request.policy is None else f"automate with {request.policy.name}"
        case GenerateTexts():
            return f"generate from {_runs(request.run_ids)}"
        case LoadModel():
            return f"load run {request.run_id}"
        case ExportRun():
            return f"export run {request.run_id} to {request.path}"
        case AddRuns():
            return f"add {len(request.configs)} runs"
        case CloseExperiment():
            return "cancel" if request.cancelled else "end"
        case _:
            assert_never(request)


def _runs(run_ids: tuple[int, ...]) -> str:
    return f"run{'' if len(run_ids) == 1 else 's'} {', '.join(map(str, run_ids))}"
