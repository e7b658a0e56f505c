"""What can a run in memory do?

Train to a boundary, be evaluated and saved there, and answer prompts meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import StorageFull
from rf_notebook.core.foreground import counts_cells, is_cell_at_work
from rf_notebook.core.metrics import numbers_of
from rf_notebook.core.run import (
    Failure,
    Generation,
    LoadedModel,
    MetricPoint,
    Progress,
    RunConfig,
    StoredFolder,
    WarmStartReport,
)
from rf_notebook.core.runner import ChunkRequest, ChunkResult, SaveRun, TurnOutcome
from rf_notebook.store import folders, layout
from rf_notebook.training import memory, run_files
from rf_notebook.training.at_boundary import AtBoundary
from rf_notebook.training.failures import failure_of
from rf_notebook.training.parked import ParkedRun, ParkedStatus
from rf_notebook.training.process_state import RandomState
from rf_notebook.training.run_tokenizer import RunTokenizer, save_tokenizer
from rf_notebook.training.trained_model import base_of
from rf_notebook.training.undisturbed import Disturbed

if TYPE_CHECKING:
    from concurrent.futures import Future

    from rf_notebook.planning.chunks import Plan
    from rf_notebook.training.fused.joint_model import JointModel
    from rf_notebook.training.fused.member import Member
    from rf_notebook.training.memory_estimate import Need
    from rf_notebook.training.methods import Method
    from rf_notebook.training.resources import Resources


class ActiveRun:
    """A run whose trainer is in memory, or is being built."""

    def __init__(
        self,
        run_id: int,
        config: RunConfig,
        method: Method,
        parked: ParkedRun,
        resources: Resources,
        *,
        evaluates: bool,
    ) -> None:
        """Made by ``building.build``.

        Args:
            run_id: The run.
            config: Its config.
            method: The config's method.
            parked: Its trainer, in a greenlet of its own.
            resources: What it shares with others.
            evaluates: Whether there is evaluation data.
        """
        self.run_id = run_id
        self.config = config
        self.method = method
        self.parked = parked
        self.plan: Plan | None = None
        """Known once the trainer is there."""
        self.points: list[MetricPoint] = []
        """Since the last commit."""
        self.report: WarmStartReport | None = None
        self.train_seconds = 0.0
        self.overhead_seconds = 0.0
        self.setup_seconds = 0.0
        """Of the turn, spent on what serves later turns, too."""
        self.notes: tuple[str, ...] = ()
        self.loaded: tuple[LoadedModel, ...] = ()
        """Base models of which the next result tells."""
        self.need: Need | None = None
        """What the memory plan says, once the trainer is there."""
        self.reached: int | None = None
        """The boundary at which a joint turn ended, until its result is asked for."""
        self.is_joint = False
        """Whether the run trained in joint steps since the last commit."""
        self.fused_with: tuple[int, ...] = ()
        """Those with which the run trained together since the last commit."""
        self.hindrance: str | None = None
        """Why it cannot take part in joint steps, as its trainer tells; empty when it can, None
        before it was asked."""
        self.member: tuple[JointModel, Member] | None = None
        """Of groups over which joint model, once it trained in joint steps."""
        self.result: ChunkResult | None = None
        """What the last turn gave, until it is known to be committed."""
        self._resources = resources
        self.at_boundary = AtBoundary(self, resources, evaluates=evaluates)
        self._generations: tuple[Generation, ...] = ()
        """What its model wrote, at the boundary just reached."""
        self._used_bytes = 0
        """The most that a turn took on the device beyond what lay there before."""
        self._told: set[str] = set()
        """Notes that are told once."""
        self._saving: tuple[int, Future[StoredFolder]] | None = None
        """A checkpoint that is being written, and of which step."""
        self._behind: tuple[ChunkResult, Future[StoredFolder]] | None = None
        """The newest result that was given before its checkpoint was written."""
        self._uncommitted: TurnOutcome | None = None
        """Set while a finished turn waits for room on the disk."""

    @property
    def trainer(self) -> Any:
        """Trl's."""
        return self.parked.trainer

    @property
    def room(self) -> int:
        """Bytes of device memory that the next turn needs beyond what the run keeps."""
        if self.need is None:
            return self._used_bytes
        planned = self.need.estimate
        estimated = (
            planned.gradients
            + planned.activations
            + (planned.optimizer if self.parked.step == 0 else 0)
        )
        return max(estimated, self._used_bytes)

    @property
    def is_ready(self) -> bool:
        """Whether it can train; it cannot while a result of it waits to be saved or committed."""
        waits = self._uncommitted is not None or self.reached is not None or self.result is not None
        return not waits and self.parked.status is ParkedStatus.PARKED

    @property
    def next_boundary(self) -> int:
        """Steps at the end of the chunk in progress."""
        return self.known_plan.next_boundary(self.parked.step)

    @property
    def known_plan(self) -> Plan:
        """The plan of a run that is built."""
        assert self.plan is not None
        return self.plan

    # ---- a turn

    def take_turn(self, request: ChunkRequest) -> ChunkResult:
        """Train to the next boundary, its end, its failure, or the next step after an interrupt.

        Raises:
            Disturbed: when another cell changed what the turn depends on.
            StorageFull: when the checkpoint did not fit.
        """
        if self._uncommitted is not None:
            return self._commit(request, self._uncommitted)
        boundary = self.reached or self.next_boundary
        started = time.perf_counter()
        self._resources.bring_in(
            self._resources.trainers.modules_of(self.config), [self.run_id], room=self.room
        )
        before = memory.allocated_bytes()
        self.overhead_seconds += time.perf_counter() - started
        if self.reached is None:
            started = time.perf_counter()
            self.parked.advance(
                boundary if request.park_at is None else min(boundary, request.park_at)
            )
            self.train_seconds += time.perf_counter() - started
            self._used_bytes = max(self._used_bytes, (memory.peak_bytes() or 0) - before)
        match self.parked.status:
            case ParkedStatus.FAILED if isinstance(self.parked.error, Disturbed):
                raise self.parked.error
            case ParkedStatus.FAILED:
                return self.failed(request.fence, self.failure(), request.progress)
            case ParkedStatus.WAITING:  # nobody is left to answer it
                failure = Failure(
                    message="the joint step that the run was in has failed.", traceback=""
                )
                return self.failed(request.fence, failure, request.progress)
            case ParkedStatus.FINISHED:
                return self._finish_turn(request, TurnOutcome.COMPLETED)
            case ParkedStatus.PARKED if self.parked.step >= boundary:
                return self._finish_turn(request, TurnOutcome.BOUNDARY)
            case _:
                return self.interrupted(request)

    def interrupted(self, request: ChunkRequest) -> ChunkResult:
        """The result of a turn that ended inside a chunk: where the run stands."""
        return ChunkResult(
            run_id=self.run_id,
            fence=request.fence,
            outcome=TurnOutcome.INTERRUPTED,
            progress=self.progress(),
            setup_seconds=self._take_setup(),
            hindrance=self.hindrance or "",
        )

    def _take_setup(self) -> float:
        seconds, self.setup_seconds = self.setup_seconds, 0.0
        return seconds

    def failed(self, fence: int, failure: Failure, committed: Progress) -> ChunkResult:
        """The result of a run that failed.

        Args:
            fence: The request's fence.
            failure: Why.
            committed: The progress, where the run's own is not known.
        """
        self._take_back()
        return ChunkResult(
            run_id=self.run_id,
            fence=fence,
            outcome=TurnOutcome.FAILED,
            progress=committed if self.plan is None or self.trainer is None else self.progress(),
            points=tuple(self.points),
            failure=failure,
            is_joint=self.is_joint,
            fused_with=self.fused_with,
            loaded=self.loaded,
            train_seconds=self.train_seconds,
            overhead_seconds=self.overhead_seconds,
        )

    def save(self, errand: SaveRun) -> ChunkResult:
        """Checkpoint the run where it stands, inside a chunk."""
        if self.result is not None and self.result.progress.steps > errand.steps:
            return self.result
        return self._commit(errand, TurnOutcome.INTERRUPTED)

    def failure(self) -> Failure:
        """Why the trainer raised."""
        assert self.parked.error is not None
        return failure_of(self.parked.error, self.config, self.parked.traceback_text, self.need)

    def end(self) -> None:
        """Unwind the trainer and let it go."""
        self.member = None
        self._take_back()
        self.parked.end()

    def _finish_turn(self, request: ChunkRequest, outcome: TurnOutcome) -> ChunkResult:
        started = time.perf_counter()
        # before an evaluation adds its own
        self._generations = self.method.completions(self.trainer)
        failure = self.at_boundary.evaluate()
        if failure is None:
            self._generations += self.at_boundary.write_samples()
        self.overhead_seconds += time.perf_counter() - started
        if failure is not None:
            return self.failed(request.fence, failure, request.progress)
        return self._commit(request, outcome)

    def _commit(self, request: ChunkRequest | SaveRun, outcome: TurnOutcome) -> ChunkResult:
        started = time.perf_counter()
        self._take_back()
        progress = self.progress()
        self._uncommitted = outcome if outcome is not TurnOutcome.INTERRUPTED else None
        checkpoint: StoredFolder | None = None
        writing: Future[StoredFolder] | None = None
        try:
            if (
                outcome is TurnOutcome.BOUNDARY
                and isinstance(request, ChunkRequest)
                and request.saves_behind
            ):
                writing = self._writing(request, progress)
            if writing is None:
                checkpoint = self._checkpoint(progress, request.fence, request.attempt)
        except StorageFull:
            raise
        except BaseException as error:  # noqa: BLE001 - weights that cannot be written as they are, say
            failure = failure_of(error, self.config)
            told = replace(failure, message=f"the run could not be saved: {failure.message}")
            return self.failed(request.fence, told, progress)
        self._uncommitted = None
        self._tell_of_other_cells()
        self.overhead_seconds += time.perf_counter() - started
        result = ChunkResult(
            run_id=self.run_id,
            fence=request.fence,
            outcome=outcome,
            progress=progress,
            points=tuple(self.points),
            checkpoint=checkpoint,
            is_being_saved=writing is not None,
            warm_start_report=self.report,
            train_seconds=self.train_seconds,
            overhead_seconds=self.overhead_seconds,
            eval_seconds=self.at_boundary.eval_seconds,
            generation_speed=self.at_boundary.speed,
            reward_seconds=self.trainer.take_reward_seconds(),
            setup_seconds=self._take_setup(),
            own_bytes=memory.own_bytes(self.trainer),
            generations=self._generations,
            notes=self.notes,
            is_joint=self.is_joint,
            fused_with=self.fused_with,
            hindrance=self.hindrance or "",
            loaded=self.loaded,
        )
        self.reached, self.is_joint, self.fused_with = None, False, ()
        self.points, self.report, self.train_seconds, self.overhead_seconds = [], None, 0.0, 0.0
        self._generations, self.notes, self.loaded = (), (), ()
        self.at_boundary.leave()
        if writing is not None:
            self._behind = result, writing
            writing.add_done_callback(
                partial(self._resources.tell_saved, self.run_id, progress.steps)
            )
        return result

    def save_ahead(self, request: ChunkRequest) -> None:
        """Have the checkpoint of the boundary that was reached written by a thread.

        What fails here, the turn tells.
        """
        started = time.perf_counter()
        progress, writers = self.progress(), self._resources.writers
        size = memory.own_bytes(self.trainer)
        writers.wait_for_room(size)
        with suppress(Exception):  # the turn tries it again
            begun = self._begin_checkpoint(progress, request.fence, request.attempt, copies=True)
            self._saving = progress.steps, writers.submit(begun.finish, size)
        self.overhead_seconds += time.perf_counter() - started

    def _writing(self, request: ChunkRequest, progress: Progress) -> Future[StoredFolder] | None:
        """The checkpoint of a boundary, in the hands of a thread; None when that did not work."""
        if self._saving is None or self._saving[0] != progress.steps:
            self.save_ahead(request)
        saving, self._saving = self._saving, None
        return None if saving is None else saving[1]

    def _take_back(self) -> None:
        """Wait until the newest result is saved; what it said is the run's again when it is not."""
        behind, self._behind = self._behind, None
        if behind is None or behind[1].exception() is None:
            return
        lost = behind[0]
        self.points[:0] = lost.points
        self.report = self.report or lost.warm_start_report
        self.train_seconds += lost.train_seconds
        self.overhead_seconds += lost.overhead_seconds
        self.at_boundary.eval_seconds += lost.eval_seconds
        self.trainer.add_reward_seconds(lost.reward_seconds)
        self.notes = lost.notes + self.notes
        self.loaded = lost.loaded + self.loaded
        self.is_joint |= lost.is_joint
        self.fused_with = tuple(sorted({*lost.fused_with, *self.fused_with}))
        self._generations = self._generations or lost.generations

    def _checkpoint(self, progress: Progress, fence: int, attempt: int) -> StoredFolder:
        saving, self._saving = self._saving, None
        if saving is not None and saving[0] == progress.steps:
            return saving[1].result()
        return self._begin_checkpoint(progress, fence, attempt).finish()

    def _begin_checkpoint(
        self, progress: Progress, fence: int, attempt: int, *, copies: bool = False
    ) -> folders.BegunFolder:
        resources, trainer = self._resources, self.trainer
        base = base_of(resources.models, resources.objects, self.config)
        used = RunTokenizer(trainer.processing_class, resources.trainers.is_chat(self.config))

        def fill(folder: Path) -> list[Callable[[], None]]:
            parked = self.parked
            streams = (
                parked.state.random if parked.is_quiet and parked.state else RandomState.capture()
            )
            rest = run_files.save_run(
                trainer, parked.gate, self.method, streams, folder, copies=copies
            )
            save_tokenizer(used, trainer.accelerator.unwrap_model(trainer.model), base, folder)
            return rest

        with self.inside():
            return folders.begin_folder(
                resources.folder,
                layout.checkpoint(self.run_id, progress.steps, fence, attempt),
                fill,
                steps=progress.steps,
                samples=progress.samples,
                observer=resources.observer,
            )

    def _tell_of_other_cells(self) -> None:
        """A run that draws shares the process's streams with whatever cell is at work."""
        if self.parked.is_quiet or not (counts_cells() and is_cell_at_work()):
            return
        self.tell(
            f"a cell was at work while run {self.run_id} trained, whose steps draw random numbers: if that cell drew or "
            "seeded any, the run's figures are not those of plain TRL, and the cell's numbers not those of its seed."
        )

    def tell(self, note: str) -> None:
        """Add a note to the next result, once."""
        if note not in self._told:
            self._told.add(note)
            self.notes += (note,)

    def inside(self) -> AbstractContextManager[None]:
        """Under the parked run's process state, which is not captured again.

        What is done leaves no trace in its course.
        """
        return self.parked.inside(self._resources.dtype)

    # ---- where it stands

    def progress(self) -> Progress:
        """Where the parked run stands; waits for the device."""
        step = self.parked.step
        at = self.known_plan.progress(step, diverged_at=self.trainer.divergence.now())
        if self.parked.status is ParkedStatus.FINISHED and step < self.known_plan.total_steps:
            return replace(
                at, chunks=self.known_plan.total_chunks
            )  # the trainer ended early by itself
        return at

    def live_progress(self, step: int) -> Progress:
        """Where the run stands while it trains; waits for nothing."""
        return self.known_plan.progress(step, diverged_at=self.trainer.divergence.since)

    def add_point(self, step: int, metrics: Mapping[str, Any]) -> MetricPoint | None:
        """Add logged metrics to the points; those of one step belong together.

        Returns:
            The point; None when nothing of it is a number.
        """
        numbers = numbers_of(metrics)
        plan = self.plan
        if plan is None and self.trainer is not None:
            plan = self._resources.trainers.plan(self.method, self.trainer)
        if not numbers or plan is None:
            return None
        if self.points and self.points[-1].step == step:
            numbers = {**self.points.pop().metrics, **numbers}
        point = plan.point(step, numbers, at=time.time())
        self.points.append(point)
        return point
