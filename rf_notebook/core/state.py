"""What does the experiment look like now?

The fold of its events, plus the points of the chunk in progress.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

from rf_notebook.core.errors import UnknownRun
from rf_notebook.core.events import (
    BaseModelLoaded,
    CheckpointsRemoved,
    ChunkTrained,
    DevicesChosen,
    Event,
    ExperimentContinued,
    ExperimentEnded,
    ExperimentStarted,
    FunctionsRecorded,
    GenerationMeasured,
    Labelled,
    LaunchRecorded,
    Noted,
    OperationObeyed,
    PolicyChanged,
    Recorded,
    RunAdded,
    RunFailed,
    RunPinned,
    RunRolledBack,
    SamplesWritten,
    StateChanged,
    WarmStarted,
)
from rf_notebook.core.labels import UNLABELLED, Label, run_words
from rf_notebook.core.run import (
    READY,
    Failure,
    GenerationSpeed,
    LoadedModel,
    MetricPoint,
    Progress,
    RunConfig,
    RunState,
    SavedRun,
    StoredFolder,
    WarmStartReport,
)
from rf_notebook.core.values import Json, digest


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """All that is committed of one run."""

    run_id: int
    config: RunConfig
    parent_id: int | None
    edits: Mapping[str, Json]
    warm_start: StoredFolder | None
    warm_start_report: WarmStartReport | None = None
    state: RunState = RunState.QUEUED
    progress: Progress = field(default_factory=Progress)
    points: tuple[tuple[MetricPoint, ...], ...] = ()
    """One tuple a commit, so that adding one costs nothing."""
    checkpoints: tuple[SavedRun, ...] = ()
    """Those in use, oldest first."""
    saved: tuple[StoredFolder, ...] = ()
    """Every checkpoint, also those that are gone by now, oldest first: one for each chunk and each
    stop."""
    failure: Failure | None = None
    train_seconds: float = 0.0
    overhead_seconds: float = 0.0
    eval_seconds: float = 0.0
    """Of that: of evaluations at the ends of chunks."""
    generation_speed: GenerationSpeed | None = None
    """As it was measured last."""
    own_bytes: int = 0
    is_joint: bool = False
    """Whether it trained in joint steps in its newest turn."""
    fused_with: tuple[int, ...] = ()
    """In its newest turn."""
    alone_because: str = ""
    """In its newest turn, where others train in joint steps."""
    device: str = ""
    """In its newest turn: where it trained; "" for the kernel."""

    @property
    def newest(self) -> StoredFolder | None:
        """The folder of its newest checkpoint."""
        return self.checkpoints[-1].folder if self.checkpoints else None

    def all_points(self) -> Iterable[MetricPoint]:
        """Every committed point, in the order of the steps."""
        for group in self.points:
            yield from group

    def value(self, metric: str, mode: str) -> tuple[float, int] | None:
        """The best value of a metric and the samples at which it was reached.

        None when it was never logged.
        """
        best: tuple[float, int] | None = None
        for point in self.all_points():
            value = point.metrics.get(metric)
            if value is None or value != value:
                continue
            if best is None or (value < best[0] if mode == "min" else value > best[0]):
                best = (value, point.samples)
        return best


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedTurn:
    """When a run had the device, and how far it came; wall times are for information only."""

    seq: int
    """Of its event in the log."""
    run_id: int
    progress: Progress
    """At its end."""
    ended_at: float
    """Seconds since 1970."""
    train_seconds: float
    overhead_seconds: float
    """Of evaluation, saving and building, after (or, for the first turn, before) the training."""
    reward_seconds: Mapping[str, float] = field(default_factory=dict)
    """Of those of training, by reward function."""
    shared_by: int = 1
    """How many runs had the device in joint steps; the seconds are this run's share of the time."""
    place: int = 0
    """Of those: how many of them have a lower id."""
    device: str = ""
    """Which device; "" for the kernel."""

    @property
    def began_at(self) -> float:
        """Seconds since 1970."""
        return self.ended_at - (self.train_seconds + self.overhead_seconds) * self.shared_by


@dataclass(slots=True)
class LiveRun:
    """What is seen of the chunk in progress before it is committed.

    Gone after a kill, trained again then.
    """

    progress: Progress
    points: list[MetricPoint] = field(default_factory=list)
    fused_with: tuple[int, ...] = ()
    """With which runs it is in joint steps."""


class ExperimentState:
    """The experiment as of the newest event.

    One thread applies events; others may read at any time: records are immutable and replaced
    whole.
    """

    def __init__(self) -> None:
        self.started: ExperimentStarted | None = None
        self.ended: ExperimentEnded | None = None
        self.launch: LaunchRecorded | None = None
        self.functions: dict[str, str] = {}
        """Their source, by the name in configs."""
        self.base_models: dict[str, LoadedModel] = {}
        """As they were loaded first, by the digest of what chose them."""
        self.devices: Mapping[str, str] = {}
        """Of worker processes: what each is, by name; none when runs train in the kernel."""
        self.runs: dict[int, RunRecord] = {}
        self.live: dict[int, LiveRun] = {}
        self.operations: list[Recorded] = []
        self.policy: str | None = None
        """The name of the one that decides."""
        self.pinned: frozenset[int] = frozenset()
        """Runs that policies leave alone."""
        self.labels: dict[int | None, Label] = {}
        """Of runs that have one; of the experiment under None."""
        self.turns: list[TrainedTurn] = []
        self.written: dict[int, SamplesWritten] = {}
        """The newest answers of each run to the sample prompts."""
        self.notes: list[Recorded] = []
        self.last_seq = 0

    def record(self, run_id: int) -> RunRecord:
        """The run with this id.

        Raises:
            UnknownRun: naming the runs that there are.
        """
        try:
            return self.runs[run_id]
        except KeyError:
            known = ", ".join(map(str, self.runs)) or "none"
            raise UnknownRun(
                f"there is no run {run_id}; the experiment's runs are: {known}."
            ) from None

    def label(self, run_id: int | None) -> Label:
        """Of a run, or for None of the experiment."""
        return self.labels.get(run_id, UNLABELLED)

    def words(self, run_id: int) -> str:
        """How a run is called where there is room for its name: "run 3 · small rate"."""
        return run_words(run_id, self.label(run_id))

    def ready(self) -> list[RunRecord]:
        """Runs that take turns."""
        return [record for record in list(self.runs.values()) if record.state in READY]

    def after(self, events: Iterable[Event]) -> ExperimentState:
        """What it would be after these events, without what is live; nothing changes here."""
        found = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, (dict, list)):
                setattr(found, name, value.copy())
        found.live = {}
        for seq, event in enumerate(events, start=self.last_seq + 1):
            found.apply(Recorded(seq=seq, at=0.0, event=event))
        return found

    def apply(self, recorded: Recorded) -> None:  # noqa: C901 - a case for each event
        """Take one event in; events come in the order of their numbers."""
        self.last_seq = recorded.seq
        event = recorded.event
        match event:
            case ExperimentStarted():
                self.started = event
            case LaunchRecorded():
                self.launch = self.launch or event
            case FunctionsRecorded():
                self.functions.update(event.functions)
            case BaseModelLoaded():
                self.base_models.setdefault(digest(event.model.chosen_by), event.model)
            case ExperimentContinued():
                self.ended = None
            case DevicesChosen():
                self.devices = event.devices
            case ExperimentEnded():
                self.ended = event
            case RunAdded():
                self.runs[event.run_id] = RunRecord(
                    run_id=event.run_id,
                    config=event.config,
                    parent_id=event.parent_id,
                    edits=event.edits,
                    warm_start=event.warm_start,
                )
            case WarmStarted():
                self._update(event.run_id, warm_start_report=event.report)
            case ChunkTrained():
                self.advance(event)
                others = event.fused_with or event.beside
                self.turns.append(
                    TrainedTurn(
                        seq=recorded.seq,
                        run_id=event.run_id,
                        progress=event.progress,
                        ended_at=recorded.at,
                        train_seconds=event.train_seconds,
                        overhead_seconds=event.overhead_seconds,
                        reward_seconds=event.reward_seconds,
                        shared_by=len(others) + 1,
                        place=sum(other < event.run_id for other in others),
                        device=event.device,
                    )
                )
            case SamplesWritten():
                self.written[event.run_id] = event
            case GenerationMeasured():
                self._update(event.run_id, generation_speed=event.speed)
            case RunRolledBack():
                record = self.record(event.run_id)
                self._update(
                    event.run_id,
                    progress=event.progress,
                    checkpoints=tuple(
                        c for c in record.checkpoints if c.folder.path != event.damaged
                    ),
                    saved=tuple(
                        folder for folder in record.saved if folder.steps <= event.progress.steps
                    ),
                    points=(
                        tuple(p for p in record.all_points() if p.step <= event.progress.steps),
                    ),
                )
            case StateChanged():
                self._update(event.run_id, state=event.state)
                if event.state not in READY:
                    self.live.pop(event.run_id, None)
            case RunFailed():
                self._update(event.run_id, state=RunState.FAILED, failure=event.failure)
                self.live.pop(event.run_id, None)
            case CheckpointsRemoved():
                kept = tuple(
                    c
                    for c in self.record(event.run_id).checkpoints
                    if c.folder.path not in event.paths
                )
                self._update(event.run_id, checkpoints=kept)
            case OperationObeyed():
                self.operations.append(recorded)
            case PolicyChanged():
                self.policy = event.name
            case RunPinned():
                self.pinned = (
                    self.pinned | {event.run_id} if event.pinned else self.pinned - {event.run_id}
                )
            case Labelled():
                self.labels[event.run_id] = event.label
            case Noted():
                self.notes.append(recorded)
            case _:
                assert_never(event)

    def advance(self, event: ChunkTrained) -> None:
        """Take in what a turn gave."""
        record = self.record(event.run_id)
        self._update(
            event.run_id,
            progress=event.progress,
            state=RunState.RUNNING if record.state is RunState.QUEUED else record.state,
            points=(*record.points, event.points) if event.points else record.points,
            checkpoints=_with(record.checkpoints, event),
            saved=_saved(record.saved, event.checkpoint),
            train_seconds=record.train_seconds + event.train_seconds,
            overhead_seconds=record.overhead_seconds + event.overhead_seconds,
            eval_seconds=record.eval_seconds + event.eval_seconds,
            own_bytes=event.own_bytes or record.own_bytes,
            is_joint=event.is_joint or bool(event.fused_with),
            device=event.device,
            fused_with=event.fused_with,
            alone_because=event.alone_because,
        )
        live = self.live.get(event.run_id)
        if live is not None and live.progress.steps > event.progress.steps:
            # It trained on while this was saved.
            live.points = [one for one in live.points if one.step > event.progress.steps]
        else:
            self.live.pop(event.run_id, None)

    def _update(self, run_id: int, **changes: object) -> None:
        self.runs[run_id] = replace(self.record(run_id), **changes)  # type: ignore[arg-type]


def _with(checkpoints: tuple[SavedRun, ...], event: ChunkTrained) -> tuple[SavedRun, ...]:
    """The checkpoints in use after a chunk.

    One that was written again at the same place counts once.
    """
    if event.checkpoint is None:
        return checkpoints
    others = tuple(c for c in checkpoints if c.folder.path != event.checkpoint.path)
    return (*others, SavedRun(folder=event.checkpoint, progress=event.progress))


def _saved(before: tuple[StoredFolder, ...], new: StoredFolder | None) -> tuple[StoredFolder, ...]:
    return before if new is None else (*(one for one in before if one.steps < new.steps), new)


def fold(events: Iterable[Recorded]) -> ExperimentState:
    """The state after these events."""
    state = ExperimentState()
    for recorded in events:
        state.apply(recorded)
    return state
