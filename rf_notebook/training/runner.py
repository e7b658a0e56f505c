"""Trains runs in the process that it lives in: the ChunkRunner of every real experiment."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from rf_notebook.core.errors import CheckpointDamaged, ConfigError, StorageFull
from rf_notebook.core.ports import CommitObserver, unobserved
from rf_notebook.core.run import Failure, RunConfig, StoredFolder
from rf_notebook.core.runner import (
    ChunkRequest,
    ChunkResult,
    Errand,
    LiveListener,
    ReadModel,
    ReleaseRuns,
    SavedListener,
    SaveRun,
    SnapshotRequest,
    TurnOutcome,
    WriteModel,
    WriteTexts,
)
from rf_notebook.store import folders
from rf_notebook.training import memory
from rf_notebook.training.active_run import ActiveRun
from rf_notebook.training.base_models import BaseModels, CreateModel
from rf_notebook.training.building import build
from rf_notebook.training.device import is_broken, is_spread
from rf_notebook.training.failures import failure_of
from rf_notebook.training.fused.joint_turns import JointTurns
from rf_notebook.training.parked import ParkedStatus, StopTraining
from rf_notebook.training.pipeline import PipelineTurns
from rf_notebook.training.process_state import PROCESS
from rf_notebook.training.resources import Resources
from rf_notebook.training.texts import CheckpointTexts
from rf_notebook.training.trained_model import TrainedModel, export_model, trained_model
from rf_notebook.training.undisturbed import Disturbed, until_undisturbed
from rf_notebook.training.validation import trainers_of
from rf_notebook.training.warm_start import Start, save_start, take_snapshot

if TYPE_CHECKING:
    from rf_notebook.core.objects import Objects
    from rf_notebook.training.datasets import ExperimentData


class KernelRunner:
    """See ChunkRunner."""

    def __init__(
        self,
        folder: Path,
        data: ExperimentData,
        objects: Objects,
        create_model: CreateModel | None,
        *,
        num_chunks: int,
        fail_on_nan: bool = False,
        sample_prompts: int | Sequence[str] = 0,
        listener: LiveListener | None = None,
        observer: CommitObserver = unobserved,
        log: logging.Logger | None = None,
    ) -> None:
        """Load nothing yet.

        Args:
            folder: The experiment's.
            data: What all runs train on.
            objects: Functions and other values behind the configs' names.
            create_model: The user's loader; None uses the hub's.
            num_chunks: Chunks a pass over the data.
            fail_on_nan: Whether a loss that is NaN or infinite ends a run.
            sample_prompts: What every run answers at each boundary: texts, or how many rows of the
                data are asked.
            listener: Hears of every step.
            observer: For the crash tests.
            log: The experiment's.
        """
        self.models = BaseModels(create_model)
        self._folder = folder
        self._objects = objects
        self._resources = Resources(
            folder,
            objects,
            self.models,
            trainers_of(folder, data, objects, self.models, num_chunks),
            fail_on_nan=fail_on_nan,
            sample_prompts=sample_prompts,
            listener=listener,
            observer=observer,
            log=log or logging.getLogger("rf_notebook.quiet"),
        )
        self.joint_turns = JointTurns(self._resources)
        self._pipeline = PipelineTurns(self._resources)
        self.runs: dict[int, ActiveRun] = {}
        """Those whose trainers are in memory, by id."""

    @property
    def listener(self) -> LiveListener | None:
        """See ChunkRunner."""
        return self._resources.listener

    @listener.setter
    def listener(self, listener: LiveListener | None) -> None:
        self._resources.listener = listener

    @property
    def on_saved(self) -> SavedListener | None:
        """See ChunkRunner."""
        return self._resources.on_saved

    @on_saved.setter
    def on_saved(self, listener: SavedListener | None) -> None:
        self._resources.on_saved = listener

    def train(self, requests: Sequence[ChunkRequest]) -> tuple[ChunkResult, ...]:
        """See ChunkRunner."""
        memory.reset_peak()
        with PROCESS:
            is_trained = requests[0].is_joint and self._train_together(requests)
            trains = len(requests) == 1 and not is_trained
            return tuple(self._result_of(request, trains=trains) for request in requests)

    def do(self, errand: Errand) -> object:
        """See ChunkRunner."""
        with PROCESS:
            match errand:
                case SaveRun():
                    run = self.runs.get(errand.run_id)
                    return None if run is None else run.save(errand)
                case SnapshotRequest():
                    return self._snapshot(errand)
                case WriteTexts():
                    return self._texts(errand)
                case WriteModel():
                    export_model(
                        self._trained(errand.config, errand.checkpoint, is_whole=errand.merge),
                        Path(errand.path),
                        merge=errand.merge,
                    )
                    return None
                case ReadModel():
                    return self._trained(errand.config, errand.checkpoint).model
                case ReleaseRuns():
                    self.release(*errand.run_ids)
                    return None
                case _:
                    assert_never(errand)

    def release(self, *run_ids: int) -> None:
        """Free the memory of runs."""
        held = [run_id for run_id in run_ids if run_id in self.runs]
        held_bytes = self._resources.own_bytes(held)
        try:
            with PROCESS, ExitStack() as ends:
                for run_id in held:
                    ends.callback(self.runs.pop(run_id).end)
        finally:
            self._resources.forget(held, held_bytes)

    @property
    def is_broken(self) -> bool:
        """See ChunkRunner."""
        return is_broken()

    def rearm(self) -> None:
        """See ChunkRunner."""
        if not self._resources.abandoned.is_set():
            self._resources.interrupted.clear()

    def interrupt(self) -> None:
        """See ChunkRunner."""
        self._resources.interrupted.set()

    def abandon(self) -> None:
        """See ChunkRunner."""
        self._resources.abandoned.set()
        self._resources.interrupted.set()

    def close(self) -> None:
        """See ChunkRunner."""
        self.release(*self.runs)
        self.joint_turns.close()
        self._resources.close()

    # ---- turns

    def _train_together(self, requests: Sequence[ChunkRequest]) -> bool:
        """Advance those that can train in joint steps.

        What hinders the others, their results tell.

        Returns:
            Whether any was advanced.
        """
        ready = [request for request in requests if self._is_ready(request)]
        if is_spread():
            self._pipeline.advance(ready, self.runs)
            return bool(ready)
        joint = [
            request
            for request in ready
            if not self.joint_turns.hindrance(self.runs[request.run_id])
        ]
        runs = {request.run_id: self.runs[request.run_id] for request in joint}
        is_worth_it = self.joint_turns.is_worth_it(list(runs.values()))
        if is_worth_it:
            self.joint_turns.advance(joint, runs)
        return is_worth_it

    def _is_ready(self, request: ChunkRequest) -> bool:
        """Whether a run can train; its trainer is built if need be.

        Why it cannot be built, its own turn tells.
        """
        run = self.runs.get(request.run_id)
        if run is None:
            try:
                built = self.build(request)
            except Exception:  # noqa: BLE001 - the run's own turn builds it again, and tells
                return False
            if isinstance(built, Failure):
                return False
            run = built
        self._forget_committed(run, request)
        return run.is_ready

    def _result_of(self, request: ChunkRequest, *, trains: bool) -> ChunkResult:
        """A run's turn; of one of a group only what is left of it after the joint steps.

        Args:
            request: The run's request.
            trains: Whether it trains here.
        """
        try:
            return until_undisturbed(lambda: self._turn(request, trains=trains))
        except StopTraining:  # the process is about to end
            return ChunkResult(
                run_id=request.run_id,
                fence=request.fence,
                outcome=TurnOutcome.INTERRUPTED,
                progress=request.progress,
            )
        except CheckpointDamaged as error:
            return ChunkResult(
                run_id=request.run_id,
                fence=request.fence,
                outcome=TurnOutcome.DAMAGED,
                progress=request.progress,
                failure=Failure(message=str(error), traceback=""),
            )
        except StorageFull:
            raise
        except BaseException as error:  # noqa: BLE001 - user code, a library: one run's failure is the run's alone
            return self._failed(request, failure_of(error, request.config))

    def _turn(self, request: ChunkRequest, *, trains: bool) -> ChunkResult:
        run = self.runs.get(request.run_id)
        if run is None:
            built = self.build(request)
            if isinstance(built, Failure):
                return self._failed(request, built)
            run = built
        self._forget_committed(run, request)
        if run.result is not None:
            return run.result
        if not trains and run.is_ready:
            return run.interrupted(request)
        try:
            result = run.take_turn(request)
        except Disturbed:  # the turn is thrown away; the run continues where it was committed
            self.release(request.run_id)
            raise
        if result.outcome is TurnOutcome.FAILED:
            del run
            self.release(request.run_id)
        elif result.outcome is not TurnOutcome.INTERRUPTED:
            run.result = result
        return result

    def build(self, request: ChunkRequest) -> ActiveRun | Failure:
        """Have the run of a request in memory, parked before its next step.

        Or why it cannot be built.
        """
        built = build(self._resources, request)
        if isinstance(built, ActiveRun):
            self.runs[request.run_id] = built
            self._resources.hold(request.run_id, built)
        return built

    def _failed(self, request: ChunkRequest, failure: Failure) -> ChunkResult:
        """The result of a turn that raised, or of a run that could not be built.

        The run leaves the memory.
        """
        run = self.runs.get(request.run_id)
        if run is not None:
            result = run.failed(request.fence, failure, request.progress)
        else:
            result = ChunkResult(
                run_id=request.run_id,
                fence=request.fence,
                outcome=TurnOutcome.FAILED,
                progress=request.progress,
                failure=failure,
            )
        del run
        self.release(request.run_id)
        memory.collect()
        return result

    @staticmethod
    def _forget_committed(run: ActiveRun, request: ChunkRequest) -> None:
        """A result whose progress the request knows is committed."""
        if run.result is not None and run.result.progress.steps <= request.progress.steps:
            run.result = None

    # ---- errands

    def _snapshot(self, errand: SnapshotRequest) -> StoredFolder:
        if errand.config.peft is None:
            raise ConfigError(
                f"run {errand.run_id} trains all weights and has no adapter to start from; clone it without warm_start."
            )
        run = self.runs.get(errand.run_id)
        if run is not None and run.trainer is not None and run.parked.status is ParkedStatus.PARKED:
            adapter = take_snapshot(run.trainer.model)
            steps, samples = run.parked.step, run.progress().samples
        elif errand.checkpoint is not None:
            source = errand.checkpoint
            trained = self._trained(errand.config, source, is_trainable=True)
            adapter = take_snapshot(trained.model)
            del trained
            steps, samples = source.steps, source.samples
        else:
            raise ConfigError(
                f"run {errand.run_id} has no adapter to start from; wait for its first chunk."
            )
        reference = adapter if errand.becomes_reference else None
        if reference is None and errand.started_from is not None:
            reference = self._resources.start_from(errand.config, errand.started_from).reference
        return folders.write_folder(
            self._folder,
            errand.target,
            lambda folder: save_start(Start(adapter, reference), folder),
            steps=steps,
            samples=samples,
            observer=self._resources.observer,
        )

    def _texts(self, errand: WriteTexts) -> list[list[str]]:
        prompts, settings = errand.prompts, errand.settings
        ids = [one.run_id for one in errand.models]
        held = {
            run_id: self.runs[run_id]
            for run_id in ids
            if run_id in self.runs and self.runs[run_id].parked.status is ParkedStatus.PARKED
        }
        others = [one for one in errand.models if one.run_id not in held]
        for one in others:
            if one.checkpoint is None:
                raise ConfigError(f"run {one.run_id} has no model yet; wait for its first chunk.")
        runs = list(held.values())
        found = self.joint_turns.write_texts(runs, prompts, settings) if errand.is_joint else {}
        for run_id, run in held.items():
            if run_id not in found:
                found[run_id] = run.at_boundary.texts(prompts, settings)
        of_checkpoints = CheckpointTexts(
            models=self.models,
            folder=self._folder,
            objects=self._objects,
            joint_model=self.joint_turns.model_of if errand.is_joint else None,
            dtype=self._resources.dtype,
            is_over=self._resources.abandoned.is_set,
        )
        texts = of_checkpoints.of(others, prompts, settings)
        found |= {one.run_id: text for one, text in zip(others, texts, strict=True)}
        return [found[run_id] for run_id in ids]

    def _trained(self, config: RunConfig, checkpoint: StoredFolder, **how: bool) -> TrainedModel:
        return trained_model(self.models, self._folder, self._objects, config, checkpoint, **how)
