"""A ChunkRunner whose training is one line of arithmetic.

Everything but the trainers can be tested with it.
"""

from __future__ import annotations

import json
import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rf_notebook.core.errors import CheckpointDamaged, ConfigError
from rf_notebook.core.ports import CommitObserver, unobserved
from rf_notebook.core.run import (
    Failure,
    LoadedModel,
    MetricPoint,
    Progress,
    RunConfig,
    StoredFolder,
)
from rf_notebook.core.runner import (
    ChunkRequest,
    ChunkResult,
    Errand,
    Fusibility,
    LiveListener,
    ReleaseRuns,
    Saved,
    SavedListener,
    SaveRun,
    SnapshotRequest,
    TurnOutcome,
    WriteTexts,
)
from rf_notebook.core.values import number, whole
from rf_notebook.planning.chunks import Plan, steps_per_pass
from rf_notebook.store import folders, layout
from rf_notebook.testing.once import Once

#: That a step is said to take.
_STEP_SECONDS = 0.001


def fake_config(
    *,
    learning_rate: float = 0.1,
    batch_size: int = 4,
    epochs: int = 1,
    seed: int = 0,
    fails_at: int | None = None,
    diverges_at: int | None = None,
) -> RunConfig:
    """A config that FakeRunner understands; ``diverges_at`` is the first step whose loss is NaN."""
    training = {
        "learning_rate": learning_rate,
        "per_device_train_batch_size": batch_size,
        "num_train_epochs": epochs,
        "seed": seed,
        "fails_at": fails_at,
        "diverges_at": diverges_at,
    }
    return RunConfig(method="SFT", model={"model_name": "fake"}, peft={"r": 8}, training=training)


@dataclass(slots=True)
class _Held:
    plan: Plan
    config: RunConfig
    weight: float
    step: int = 0
    points: list[MetricPoint] = field(default_factory=list)
    waiting: TurnOutcome | None = None
    reached: int | None = None
    """The boundary at which a joint turn ended."""
    is_joint: bool = False
    fused_with: tuple[int, ...] = ()
    has_failed: bool = False
    result: ChunkResult | None = None
    """Of the last turn, until it is committed."""
    behind: Once | None = None
    """The newest checkpoint that is written behind a turn."""


class FakeRunner:
    """See ChunkRunner.

    A run's weight moves toward targets drawn from its seed; the loss is the distance left.
    """

    def __init__(
        self,
        folder: Path,
        *,
        examples: int = 64,
        num_chunks: int = 4,
        listener: LiveListener | None = None,
        observer: CommitObserver = unobserved,
        on_step: Callable[[int, int], None] = lambda _run_id, _step: None,
        evaluates: bool = False,
        writer: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        """Nothing is held yet.

        Args:
            folder: Takes the checkpoints.
            examples: Rows of the imagined data.
            num_chunks: Chunks a pass.
            listener: Hears of every step.
            observer: For the crash tests.
            on_step: Called before each step with the run and its steps done; where a test plays the
                user.
            evaluates: Whether runs log an eval_loss at each boundary.
            writer: Calls what writes a checkpoint behind a turn, now or later; without one all are
                written at once.
        """
        self.folder = folder
        self._examples = examples
        self._num_chunks = num_chunks
        self.listener = listener
        self._observer = observer
        self.on_step = on_step
        self._evaluates = evaluates
        self._writer = writer
        self.on_saved: SavedListener | None = None
        self._held: dict[int, _Held] = {}
        self._interrupted = threading.Event()
        self.is_broken = False
        """See ChunkRunner."""
        self.steps_trained = 0
        self.joint_turns: list[tuple[int, ...]] = []
        """Who trained in each joint turn."""
        self.loads: tuple[LoadedModel, ...] = ()
        """Base models that the next turn tells of."""

    def train(self, requests: Sequence[ChunkRequest]) -> tuple[ChunkResult, ...]:
        """See ChunkRunner; several runs train a step each in turn."""
        if requests[0].is_joint:
            self._train_together(requests)
        first, *others = [self._turn(request, trains=not request.is_joint) for request in requests]
        loads, self.loads = self.loads, ()
        return (replace(first, loaded=loads), *others)

    def do(self, errand: Errand) -> object:
        """See ChunkRunner."""
        match errand:
            case SaveRun():
                held = self._held.get(errand.run_id)
                if held is None:
                    return None
                if held.result is not None and held.result.progress.steps > errand.steps:
                    return held.result
                return self._commit(
                    errand.run_id, held, errand.fence, errand.attempt, TurnOutcome.INTERRUPTED
                )
            case SnapshotRequest():
                return self._snapshot(errand)
            case WriteTexts():
                return [[f"run {m.run_id} to {p}" for p in errand.prompts] for m in errand.models]
            case ReleaseRuns():
                self.release(*errand.run_ids)
        return None

    def fusibility(self, config: RunConfig) -> Fusibility:
        """See ConfigRules: runs of one model train together, but for those whose seed is odd."""
        name = str(config.model["model_name"])
        if whole(config.training.get("seed", 0)) % 2:
            return Fusibility(None, "its seed is odd", line=name)
        return Fusibility(name, line=name)

    def validate(self, config: RunConfig) -> list[str]:
        """See ConfigRules."""
        if number(config.training.get("learning_rate", 0)) < 0:
            raise ConfigError("learning_rate must be at least 0.")
        return []

    def release(self, *run_ids: int) -> None:
        """Free the memory of runs."""
        for held in [self._held.pop(run_id) for run_id in run_ids if run_id in self._held]:
            self._take_back(held)

    def rearm(self) -> None:
        """See ChunkRunner."""
        self._interrupted.clear()

    def interrupt(self) -> None:
        """See ChunkRunner."""
        self._interrupted.set()

    def abandon(self) -> None:
        """See ChunkRunner."""
        self._interrupted.set()

    def close(self) -> None:
        """See ChunkRunner."""
        self._held.clear()

    @property
    def held(self) -> set[int]:
        """Runs in memory."""
        return set(self._held)

    def _turn(self, request: ChunkRequest, *, trains: bool) -> ChunkResult:
        run_id, fence = request.run_id, request.fence
        try:
            held = self._held_for(request)
        except CheckpointDamaged as error:
            failure = Failure(message=str(error), traceback="")
            return ChunkResult(
                run_id=run_id,
                fence=fence,
                outcome=TurnOutcome.DAMAGED,
                progress=request.progress,
                failure=failure,
            )
        if held.result is not None:
            return held.result
        if held.waiting is None and trains:
            self._step_alone(request, held)
        if held.has_failed:
            self._take_back(held)
            result = ChunkResult(
                run_id=run_id,
                fence=fence,
                outcome=TurnOutcome.FAILED,
                progress=self._progress(held),
                points=tuple(held.points),
                failure=Failure(
                    message=f"ValueError: bad row at step {held.step}", traceback="Traceback ..."
                ),
            )
            self.release(run_id)
            return result
        if held.waiting is None and held.reached is None:
            progress = self._progress(held)
            return ChunkResult(
                run_id=run_id, fence=fence, outcome=TurnOutcome.INTERRUPTED, progress=progress
            )
        is_end = held.step == held.plan.total_steps
        outcome = held.waiting or (TurnOutcome.COMPLETED if is_end else TurnOutcome.BOUNDARY)
        if outcome is TurnOutcome.BOUNDARY and request.saves_behind and self._writer is not None:
            held.result = self._commit_behind(run_id, held, request, self._writer)
        else:
            held.result = self._commit(run_id, held, fence, request.attempt, outcome)
        return held.result

    def _step_alone(self, request: ChunkRequest, held: _Held) -> None:
        """Train to the boundary, to where it should park, to its failure, or until interrupted."""
        boundary, first = held.plan.next_boundary(held.step), True
        while held.step < boundary:
            self.on_step(request.run_id, held.step)
            if (self._interrupted.is_set() and not first) or held.step == request.park_at:
                return
            first = False
            if held.config.training.get("fails_at") == held.step:
                held.has_failed = True
                return
            self._step(request.run_id, held)
        held.reached = boundary

    def _train_together(self, requests: Sequence[ChunkRequest]) -> None:
        until: dict[int, int] = {}
        for request in requests:
            try:
                held = self._held_for(request)
            except CheckpointDamaged:
                continue  # its own turn says so
            if held.waiting is not None or held.result is not None or held.reached is not None:
                continue
            boundary = held.plan.next_boundary(held.step)
            until[request.run_id] = (
                boundary if request.park_at is None else min(boundary, request.park_at)
            )
        self.joint_turns.append(tuple(until))
        for run_id in until:
            self._held[run_id].is_joint = True
            self._held[run_id].fused_with = tuple(sorted(until.keys() - {run_id}))
        live, is_first = sorted(until), True
        while live:
            for run_id in list(live):
                if not self._step_jointly(run_id, until[run_id], is_first=is_first):
                    live.remove(run_id)
            is_first = False

    def _step_jointly(self, run_id: int, until: int, *, is_first: bool) -> bool:
        """One step; False when the run's turn is over."""
        held = self._held[run_id]
        if held.step < until:
            self.on_step(run_id, held.step)
            if self._interrupted.is_set() and not is_first:
                return False
            if held.config.training.get("fails_at") == held.step:
                held.has_failed = True
                return False
            self._step(run_id, held)
        if held.step == held.plan.next_boundary(held.step - 1):
            held.reached = held.step
        return held.step < until

    def _snapshot(self, errand: SnapshotRequest) -> StoredFolder:
        run_id = errand.run_id
        if run_id in self._held:
            weight, steps = self._held[run_id].weight, self._held[run_id].step
        elif errand.checkpoint is not None:
            weight, steps = self._read(errand.checkpoint)[0], errand.checkpoint.steps
        else:
            raise ConfigError(f"run {run_id} has no adapter to start from.")
        return self._write(errand.target, weight, steps, 0)

    def _held_for(self, request: ChunkRequest) -> _Held:
        """The run in memory; a result that is committed is forgotten."""
        held = self._held.get(request.run_id) or self._build(request)
        if held.result is not None and held.result.progress.steps <= request.progress.steps:
            held.result = None
        return held

    def _build(self, request: ChunkRequest) -> _Held:
        training = request.config.training
        batch_size = whole(training.get("per_device_train_batch_size", 8))
        epochs = whole(training.get("num_train_epochs", 3))
        plan = Plan(
            rows=self._examples,
            examples=self._examples,
            batch_size=batch_size,
            accumulation=1,
            total_steps=steps_per_pass(self._examples, batch_size, 1) * epochs,
            num_chunks=self._num_chunks,
        )
        held = _Held(plan=plan, config=request.config, weight=0.0)
        if request.continue_from is not None:
            held.weight, held.step = self._read(request.continue_from)
        elif request.warm_start is not None:
            held.weight, _ = self._read(request.warm_start)
        self._held[request.run_id] = held
        return held

    def _step(self, run_id: int, held: _Held) -> None:
        training = held.config.training
        target = random.Random(f"{training['seed']} {held.step}").gauss(1.0, 0.5)
        held.weight += number(training.get("learning_rate", 0.1)) * (target - held.weight)
        held.step += 1
        self.steps_trained += 1
        loss = math.nan if _diverged_at(held) is not None else (1.0 - held.weight) ** 2
        point = held.plan.point(held.step, {"loss": loss}, at=time.time())
        held.points.append(point)
        if self.listener is not None:
            self.listener(run_id, self._progress(held), point)

    def _commit(
        self, run_id: int, held: _Held, fence: int, attempt: int, outcome: TurnOutcome
    ) -> ChunkResult:
        self._take_back(held)
        held.waiting = outcome if outcome is not TurnOutcome.INTERRUPTED else None
        folder = self._write(
            layout.checkpoint(run_id, held.step, fence, attempt),
            held.weight,
            held.step,
            self._progress(held).samples,
        )
        held.waiting = None
        return self._result(run_id, held, fence, outcome, folder)

    def _commit_behind(
        self,
        run_id: int,
        held: _Held,
        request: ChunkRequest,
        writer: Callable[[Callable[[], None]], None],
    ) -> ChunkResult:
        self._take_back(held)
        weight, steps, samples = held.weight, held.step, self._progress(held).samples
        target = layout.checkpoint(run_id, steps, request.fence, request.attempt)
        result = self._result(run_id, held, request.fence, TurnOutcome.BOUNDARY, None)

        def write() -> None:
            saved = Saved(run_id=run_id, steps=steps, checkpoint=None)
            try:
                saved = replace(saved, checkpoint=self._write(target, weight, steps, samples))
            except Exception as error:  # noqa: BLE001 - it is told
                saved = replace(saved, error=error)
                held.points[:0] = result.points
            if self.on_saved is not None:
                self.on_saved(saved)

        held.behind = Once(write)
        writer(held.behind.finish)
        return result

    def _take_back(self, held: _Held) -> None:
        if held.behind is not None:
            held.behind.finish()
            held.behind = None

    def _result(
        self,
        run_id: int,
        held: _Held,
        fence: int,
        outcome: TurnOutcome,
        folder: StoredFolder | None,
    ) -> ChunkResult:
        if (
            self._evaluates
            and outcome is not TurnOutcome.INTERRUPTED
            and "eval_loss" not in held.points[-1].metrics
        ):
            last = held.points.pop()
            held.points.append(
                replace(last, metrics={**last.metrics, "eval_loss": 1.1 * last.metrics["loss"]})
            )
        result = ChunkResult(
            run_id=run_id,
            fence=fence,
            outcome=outcome,
            progress=self._progress(held),
            points=tuple(held.points),
            checkpoint=folder,
            is_being_saved=folder is None,
            train_seconds=_STEP_SECONDS * len(held.points),
            is_joint=held.is_joint,
            fused_with=held.fused_with,
        )
        held.points, held.reached, held.is_joint, held.fused_with = [], None, False, ()
        return result

    def _progress(self, held: _Held) -> Progress:
        return held.plan.progress(held.step, diverged_at=_diverged_at(held))

    def _write(self, target: str, weight: float, steps: int, samples: int) -> StoredFolder:
        def fill(folder: Path) -> None:
            (folder / "weight.json").write_text(json.dumps([weight, steps]))

        return folders.write_folder(
            self.folder, target, fill, steps=steps, samples=samples, observer=self._observer
        )

    def _read(self, folder: StoredFolder) -> tuple[float, int]:
        path = folders.verify_folder(self.folder, folder)
        weight, steps = json.loads((path / "weight.json").read_text())
        return weight, steps


def _diverged_at(held: _Held) -> int | None:
    at = held.config.training.get("diverges_at")
    return whole(at) if at is not None and held.step >= whole(at) else None
