"""What does a user see of a run? Live handles and tables, drawn from the experiment's state."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rf_notebook.core.events import Noted, OperationObeyed
from rf_notebook.core.metrics import HEADLINES, cost_of, direction, headline, scale_of
from rf_notebook.core.operations import CloneRun, verb
from rf_notebook.core.redaction import REDACTED
from rf_notebook.core.run import MetricPoint, Progress, RunState, WarmStartReport, object_words
from rf_notebook.core.state import ExperimentState, RunRecord
from rf_notebook.core.values import Json, flatten
from rf_notebook.planning.eta import Pace, remaining_seconds

if TYPE_CHECKING:
    import pandas as pd

ScaleT = TypeVar("ScaleT")


class Run:
    """A live view of one run: every attribute is what holds now."""

    def __init__(self, state: ExperimentState, run_id: int, folder: Path) -> None:
        self._state = state
        self._id = run_id
        self._folder = folder

    @property
    def id(self) -> int:
        """1, 2, 3, ... in the order in which runs were added."""
        return self._id

    @property
    def name(self) -> str:
        """A short name for tables and curves."""
        return f"run {self._id}"

    @property
    def config(self) -> dict[str, Json]:
        """The whole config, nested as in RFModelConfig; a copy."""
        return self._record.config.as_json()

    @property
    def state(self) -> RunState:
        """queued, running, stopped, completed, diverged, failed or deleted."""
        record = self._record
        return RunState.RUNNING if record.state is RunState.QUEUED and self._id in self._state.live else record.state

    @property
    def steps(self) -> int:
        """Optimizer steps done, those of the chunk in progress included."""
        return self._progress.steps

    @property
    def samples(self) -> int:
        """Rows of the training data seen."""
        return self._progress.samples

    @property
    def progress(self) -> float:
        """Between 0 and 1."""
        return self._progress.fraction

    @property
    def eta(self) -> float | None:
        """Wall seconds until the run is over, taking turns with the others; None when nothing is known or to come."""
        return etas(self._state).get(self._id)

    @property
    def metrics(self) -> dict[str, float]:
        """The latest value of each metric."""
        return latest_metrics(self._state, self._id)

    @property
    def diverged_at(self) -> int | None:
        """The first step whose loss or gradients were NaN or infinite, while they still are; None for a healthy run."""
        return diverged_at(self._state, self._id)

    @property
    def parent(self) -> int | None:
        """The run it was cloned from."""
        return self._record.parent_id

    @property
    def edits(self) -> dict[str, Json]:
        """What differs from the parent, by dotted key."""
        return dict(self._record.edits)

    @property
    def warm_start_report(self) -> WarmStartReport | None:
        """What was taken over from the parent's adapter."""
        return self._record.warm_start_report

    @property
    def error(self) -> str | None:
        """Why the run failed, in a sentence."""
        failure = self._record.failure
        return None if failure is None else failure.message

    @property
    def traceback(self) -> str | None:
        """The full text of the error."""
        failure = self._record.failure
        return None if failure is None else failure.traceback

    @property
    def checkpoint(self) -> Path | None:
        """Folder of the newest checkpoint."""
        saved = self._record.checkpoints
        return self._folder / saved[-1].folder.path if saved else None

    @property
    def own_bytes(self) -> int:
        """Memory that this run alone keeps while it is parked: the weights that it trains, its optimizer's state."""
        return self._record.own_bytes

    @property
    def _record(self) -> RunRecord:
        return self._state.record(self._id)

    @property
    def _progress(self) -> Progress:
        live = self._state.live.get(self._id)
        return self._record.progress if live is None else live.progress

    def __repr__(self) -> str:
        telling = shown_metrics([self._record.config.method])
        shown = [f"{name}={value:.4g}" for name, value in self.metrics.items() if name in telling]
        diverged = [] if self.diverged_at is None else [f"diverged at step {self.diverged_at}"]
        return f"<Run {self.id}: {', '.join([str(self.state), f'{self.progress:.0%}', *diverged, *shown])}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and other._id == self._id and other._state is self._state

    def __hash__(self) -> int:
        return hash((id(self._state), self._id))


def points_of(state: ExperimentState, run_id: int) -> Iterator[MetricPoint]:
    """Every point of a run: the committed ones, then those of the chunk in progress."""
    live = state.live.get(run_id)
    last = 0
    for point in state.record(run_id).all_points():
        last = point.step
        yield point
    if live is not None:
        yield from (point for point in list(live.points) if point.step > last)


def etas(state: ExperimentState) -> dict[int, float]:
    """Wall seconds until each unfinished run is over, by id."""
    paces = []
    for record in state.ready():
        live = state.live.get(record.run_id)
        progress = record.progress if live is None else live.progress
        total = progress.total_samples or _total_samples(state)
        spent, trained = record.train_seconds + record.overhead_seconds, record.progress.samples
        paces.append(
            Pace(
                run_id=record.run_id,
                samples_left=max(total - progress.samples, 0),
                seconds_per_sample=spent / trained if trained else None,
            )
        )
    return remaining_seconds(paces)


def _total_samples(state: ExperimentState) -> int:
    return max((record.progress.total_samples for record in list(state.runs.values())), default=0)


def diverged_at(state: ExperimentState, run_id: int) -> int | None:
    """The first step of which a run's loss or gradients were NaN or infinite, while they still are."""
    live = state.live.get(run_id)
    return (state.record(run_id).progress if live is None else live.progress).diverged_at


def can_lead(state: ExperimentState, run_id: int) -> bool:
    """Whether a run may be called the best: one that failed, diverged or was deleted may not, whatever it logged before."""
    out = (RunState.FAILED, RunState.DIVERGED, RunState.DELETED)
    return state.record(run_id).state not in out and diverged_at(state, run_id) is None


def best_runs(
    state: ExperimentState, metric: str | None, mode: str | None = None, among: Iterable[int] | None = None
) -> dict[str, int]:
    """Ids of the runs with the best latest value, one for each scale on which the metric lies.

    The latest value rather than the best ever, so that a run is judged by the adapter that it has.

    Args:
        state: Of the experiment.
        metric: By which; None judges the runs of each method by its headline metric.
        mode: "min" or "max"; follows from the metric's name when None.
        among: Ids of the runs that are compared; all when None.
    """
    scored: dict[str, list[tuple[float, int]]] = {}
    for run_id in list(state.runs) if among is None else among:
        if not can_lead(state, run_id):
            continue
        config, latest = state.record(run_id).config, latest_metrics(state, run_id)
        name = headline([config.method], latest) if metric is None else metric
        cost = cost_of(latest.get(name), mode or direction(name))
        if math.isfinite(cost):
            scale = config.method if metric is None else scale_of(config, name)
            scored.setdefault(scale, []).append((cost, run_id))
    return best_of(scored)


def best_of(scored: Mapping[ScaleT, Sequence[tuple[float, int]]]) -> dict[ScaleT, int]:
    """Of costs and the runs that have them, for each scale the run with the lowest; the first of equals."""
    return {scale: min(pairs)[1] for scale, pairs in scored.items()}


def latest_metrics(state: ExperimentState, run_id: int) -> dict[str, float]:
    """The newest value of each metric of a run."""
    latest: dict[str, float] = {}
    for point in points_of(state, run_id):
        latest.update(point.metrics)
    return latest


def shown_metrics(methods: Collection[str]) -> list[str]:
    """What is worth a place in one line: the headline metrics of these methods, and the losses."""
    names = [HEADLINES[method] for method in dict.fromkeys(methods) if method in HEADLINES]
    return list(dict.fromkeys(["loss", "eval_loss", *(one for name in names for one in (name, f"eval_{name}"))]))


def results_frame(state: ExperimentState) -> pd.DataFrame:
    """A row per run and logged step."""
    import pandas as pd

    rows: list[dict[str, Any]] = [
        {
            "run_id": run_id,
            "step": point.step,
            "samples": point.samples,
            "epoch": point.epoch,
            "chunk": point.chunk,
            **point.metrics,
        }
        for run_id in list(state.runs)
        for point in points_of(state, run_id)
    ]
    return pd.DataFrame(rows, columns=None if rows else ["run_id", "step", "samples", "epoch", "chunk"])


def runs_frame(state: ExperimentState, mlflow_ids: Mapping[int, str]) -> pd.DataFrame:
    """A row per run: our columns, those of RapidFire AI, and the config, flattened; its columns are dotted.

    Args:
        state: Of the experiment.
        mlflow_ids: Of MLflow's runs, by run, as far as they are known.
    """
    import pandas as pd

    rows = []
    policies = _policies_at_work(state)
    for record in list(state.runs.values()):
        handle = Run(state, record.run_id, Path())
        flat = {key: _shown(value) for key, value in flatten(record.config.as_json()).items()}
        rows.append(
            {
                "run_id": record.run_id,
                "state": str(handle.state),
                "parent": record.parent_id,
                "warm_start": record.warm_start is not None,
                "steps": handle.steps,
                "samples": handle.samples,
                "progress": handle.progress,
                "diverged_at": handle.diverged_at,
                "fused_with": list(record.fused_with),
                "alone_because": record.alone_because,
                "error": handle.error,
                **_rapidfire_columns(state, handle, policies),
                "metric_run_id": mlflow_ids.get(record.run_id),
                **flat,
            }
        )
    return pd.DataFrame(rows)


#: RapidFire AI's words.
_STATUS = {
    RunState.QUEUED: "New",
    RunState.RUNNING: "Ongoing",
    RunState.STOPPED: "Stopped",
    RunState.COMPLETED: "Completed",
    RunState.DIVERGED: "Failed",
    RunState.FAILED: "Failed",
    RunState.DELETED: "Deleted",
}
_BY_USER, _BY_HALVING = "Interactive Control", "Successive Halving Algorithm"
_MADE_BY = {"optuna": "Optuna Replacement"}
_ENDED_BY = {"optuna": "Optuna Pruned", "halving": _BY_HALVING, "async halving": _BY_HALVING}


def _rapidfire_columns(state: ExperimentState, handle: Run, policies: _PoliciesAtWork) -> dict[str, Any]:
    """What RapidFire AI's table says of a run, where it has another name for it."""
    record, progress = handle._record, handle._progress
    chunks_a_pass = state.started.num_chunks if state.started is not None else 1
    status = _STATUS[handle.state]
    if status == "New" and progress.steps:
        status = "Ongoing"  # between two of its turns
    stopped_by, made_by = policies.stopped.get(handle.id), policies.made.get(handle.id)
    ended_by = None
    if handle.state is RunState.COMPLETED:
        ended_by = "Epoch Completed"
    elif handle.state in (RunState.STOPPED, RunState.DELETED):
        ended_by = _BY_USER if stopped_by is None else _ENDED_BY.get(stopped_by, stopped_by)
    source = "Initial" if handle.parent is None else _BY_USER if made_by is None else _MADE_BY.get(made_by, made_by)
    spent = record.train_seconds + record.overhead_seconds
    return {
        "status": status,
        "completed_steps": progress.steps,
        "total_steps": progress.total_steps,
        "num_chunks_visited_curr_epoch": progress.chunks % chunks_a_pass,
        "num_epochs_completed": progress.chunks // chunks_a_pass,
        "chunk_offset": 0,
        "source": source,
        "ended_by": ended_by,
        "cloned_from": handle.parent,
        "warm_started_from": handle.parent if record.warm_start is not None else None,
        "estimated_runtime": spent / progress.fraction if spent and progress.fraction else None,
        "required_workers": 1,
        "config": _shown(handle.config),
    }


@dataclass(frozen=True, slots=True)
class _PoliciesAtWork:
    """Which policy stopped and made which run last; runs that a user stopped or made are not there."""

    stopped: Mapping[int, str]
    made: Mapping[int, str]


def _policies_at_work(state: ExperimentState) -> _PoliciesAtWork:
    stopped: dict[int, str] = {}
    made: dict[int, str] = {}
    for _, event, child in obeyed_of(state):
        run_id = event.operation.run_id
        if child is None:
            stopped.pop(run_id, None)
        if event.reason and child is not None:
            made[child] = event.origin
        elif event.reason and child is None:
            stopped[run_id] = event.origin
    return _PoliciesAtWork(stopped, made)


def varying_knobs(state: ExperimentState) -> list[str]:
    """Dotted keys of the configs in which the runs differ."""
    flats = [flatten(record.config.as_json()) for record in list(state.runs.values())]
    keys = dict.fromkeys(key for flat in flats for key in flat)
    return [key for key in keys if len({repr(flat.get(key)) for flat in flats}) > 1]


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
    """Every operation that was obeyed, oldest first: its number in the log, itself, and the run that a clone made."""
    made = iter(sorted(run_id for run_id, record in list(state.runs.items()) if record.parent_id is not None))
    for recorded in list(state.operations):
        event = recorded.event
        if isinstance(event, OperationObeyed):
            yield recorded.seq, event, next(made, None) if isinstance(event.operation, CloneRun) else None


def decisions_of(state: ExperimentState) -> list[PolicyDecision]:
    """What policies did, oldest first; an operation of a policy has a reason."""
    return [
        PolicyDecision(event.origin, verb(event.operation), event.operation.run_id, child, event.samples, event.reason)
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
    records = [record for record in list(state.runs.values()) if record.state is not RunState.DELETED]
    known = max((record.progress.total_samples for record in records), default=0)
    stopped = {one.run_id for one in decisions_of(state) if one.what == "stop"}
    samples, seconds = 0, 0.0
    for record in records:
        if record.state is RunState.STOPPED and record.run_id in stopped:
            left = (record.progress.total_samples or known) - record.progress.samples
            spent = record.train_seconds + record.overhead_seconds
            samples += left
            seconds += left * spent / record.progress.samples if record.progress.samples else 0.0
    return Savings(samples, seconds, sum(record.progress.total_samples or known for record in records))


def _shown(value: Json) -> Json:
    if isinstance(value, dict) and "$secret" in value:
        return REDACTED
    if isinstance(value, dict) and "$object" in value:
        return object_words(value["$object"])
    if isinstance(value, dict):
        return {name: _shown(item) for name, item in value.items()}
    return [_shown(item) for item in value] if isinstance(value, list) else value


def log_lines(state: ExperimentState, run_id: int, most: int = 300) -> list[str]:
    """What happened to one run, oldest first: its figures, the operations on it, its notes, its failure."""
    lines: list[tuple[float, str]] = []
    for point in points_of(state, run_id):
        figures = "  ".join(f"{name} {value:.5g}" for name, value in point.metrics.items())
        lines.append((point.at, f"step {point.step}  {figures}"))
    for recorded in list(state.operations):
        event = recorded.event
        if isinstance(event, OperationObeyed) and event.operation.run_id == run_id:
            lines.append((recorded.at, f"{verb(event.operation)} obeyed at step {event.steps} ({event.origin})"))
    for recorded in list(state.notes):
        if isinstance(recorded.event, Noted) and recorded.event.run_id == run_id:
            lines.append((recorded.at, recorded.event.text))
    lines.sort(key=lambda line: line[0])
    written = [f"{time.strftime('%H:%M:%S', time.localtime(at))}  {text}" for at, text in lines[-most:]]
    failure = state.record(run_id).failure
    if failure is not None:
        written += [f"failed: {failure.message}", *failure.traceback.splitlines()]
    return written
