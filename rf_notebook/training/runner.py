"""Trains runs inside the kernel: the ChunkRunner of every real experiment."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rf_notebook.core.errors import CheckpointDamaged, ConfigError, StorageFull
from rf_notebook.core.foreground import counts_cells, is_cell_at_work
from rf_notebook.core.objects import Objects
from rf_notebook.core.ports import (
    ChunkRequest,
    ChunkResult,
    CommitObserver,
    Fusibility,
    LiveListener,
    SnapshotRequest,
    TurnOutcome,
    unobserved,
)
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
from rf_notebook.core.values import Json, digest
from rf_notebook.planning.chunks import Plan
from rf_notebook.store import folders, layout
from rf_notebook.store.folders import refusal_of_disk
from rf_notebook.training import memory, run_files
from rf_notebook.training.base_models import BaseModels, CreateModel, does_not_fit
from rf_notebook.training.datasets import ExperimentData, FormattedData, PreparedDatasets
from rf_notebook.training.device import run_device
from rf_notebook.training.facts import model_facts
from rf_notebook.training.failures import failure_of
from rf_notebook.training.fused.eligibility import fusibility_of, hindrance
from rf_notebook.training.fused.group import FusedGroup
from rf_notebook.training.fused.joint_model import JointModel
from rf_notebook.training.fused.member import Member
from rf_notebook.training.generation import generated_metrics, sample_texts, texts_of
from rf_notebook.training.memory_estimate import MemoryNeeds, Need, need_of_trainer
from rf_notebook.training.methods import Method, method_named
from rf_notebook.training.parked import ParkedRun, ParkedStatus, StopTraining
from rf_notebook.training.process_state import PROCESS, ProcessState, RandomState
from rf_notebook.training.quiet import no_progress_bars
from rf_notebook.training.randomness import draws_in_steps
from rf_notebook.training.residency import Residency, storage_of, tensors_of, trainer_tensors
from rf_notebook.training.run_tokenizer import RunTokenizer, save_tokenizer
from rf_notebook.training.trained_model import base_of, export_model, trained_model
from rf_notebook.training.trainers import Trainers
from rf_notebook.training.undisturbed import Disturbed, OwnDtype, OwnStream, undisturbed, until_undisturbed
from rf_notebook.training.warm_start import Start, adopt_adapter, load_start, save_start, take_snapshot

#: Figures of the clock, no property of a config.
_CLOCK = ("_runtime", "_per_second", "_model_preparation_time", "step_time")


@dataclass(slots=True)
class _Held:
    """A run whose trainer is in memory."""

    run: ParkedRun
    config: RunConfig
    method: Method
    evaluates: bool
    dtype: torch.dtype
    """The default one for new tensors."""
    plan: Plan | None = None
    points: list[MetricPoint] = field(default_factory=list)
    """Since the last commit."""
    report: WarmStartReport | None = None
    train_seconds: float = 0.0
    overhead_seconds: float = 0.0
    generations: tuple[Generation, ...] = ()
    """To the sample prompts, at the boundary just reached."""
    writes_no_samples: bool = False
    notes: tuple[str, ...] = ()
    loaded: tuple[LoadedModel, ...] = ()
    """Base models of which the next commit tells."""
    need: Need | None = None
    """What the memory plan says, once the trainer is there."""
    used_bytes: int = 0
    """The most that a turn took on the device beyond what lay there before."""
    was_beside_a_cell: bool = False
    """Whether it was told that a cell was at work beside its steps, which draw random numbers."""
    uncommitted: TurnOutcome | None = None
    """Set while a finished turn waits for room on the disk."""
    reached: int | None = None
    """The boundary at which a joint turn ended, until its result is asked for."""
    fused_with: tuple[int, ...] = ()
    """Those with which the run trained in joint steps since the last commit."""
    hindrance: str | None = None
    """Why it cannot take part in joint steps, as its trainer tells; empty when it can, None before it was asked."""

    @property
    def steps_left(self) -> int:
        """Optimizer steps to the run's end."""
        return 0 if self.plan is None else self.plan.total_steps - self.run.step

    @property
    def room(self) -> int:
        """Device memory that the next turn needs beyond what the run keeps."""
        if self.need is None:
            return self.used_bytes
        planned = self.need.estimate
        estimated = planned.gradients + planned.activations + (planned.optimizer if self.run.step == 0 else 0)
        return max(estimated, self.used_bytes)


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
            fail_on_nan: Whether a loss that is no number ends a run.
            sample_prompts: What every run answers at each boundary: texts, or how many rows of the data are asked.
            listener: Hears of every step.
            observer: For the crash tests.
            log: The experiment's.
        """
        self._folder = folder
        self._data = data
        self._objects = objects
        self.models = BaseModels(create_model)
        self._trainers = Trainers(
            folder=folder,
            data=data,
            objects=objects,
            models=self.models,
            formatted=FormattedData(data, layout.data(folder)),
            prepared=PreparedDatasets(),
            num_chunks=num_chunks,
            needs=MemoryNeeds(),
        )
        self._fail_on_nan = fail_on_nan
        self._sample_prompts = sample_prompts
        self.listener = listener
        self._observer = observer
        self._log = log or logging.getLogger("rf_notebook.quiet")
        self._held: dict[int, _Held] = {}
        self._joint_models: dict[int, JointModel] = {}
        """By the id of the base model below."""
        self._known_models: set[str] = set()
        """Digests of what chose the base models of which it was told what they are."""
        self._fusibility: dict[str, Fusibility] = {}
        """By the digest of a config."""
        self._residency = Residency(self._log)
        self.models.on_use = lambda model: self._bring_in([model])
        self._dtype = torch.get_default_dtype()
        """The notebook's, when the experiment was launched."""
        self._interrupted = threading.Event()
        self._abandoned = threading.Event()

    # ---- ChunkRunner

    def train(self, request: ChunkRequest) -> ChunkResult:
        """See ChunkRunner."""
        memory.reset_peak()
        with PROCESS:
            try:
                return until_undisturbed(lambda: self._turn(request))
            except StopTraining:  # the process is about to end
                return ChunkResult(
                    run_id=request.run_id,
                    fence=request.fence,
                    outcome=TurnOutcome.INTERRUPTED,
                    progress=request.progress,
                )
            except (CheckpointDamaged, StorageFull):
                raise
            except BaseException as error:  # noqa: BLE001 - user code, a library: one run's failure is the run's alone
                failure = failure_of(error, request.config)
                return self._failed(request.run_id, request.fence, failure, request.progress)

    def fusibility(self, run_id: int, config: RunConfig) -> Fusibility:
        """See ChunkRunner."""
        key = config.digest()
        if key not in self._fusibility:
            self._fusibility[key] = fusibility_of(config)
        held = self._held.get(run_id)
        if held is not None and held.hindrance and self._fusibility[key].key is not None:
            return Fusibility(None, held.hindrance)
        return self._fusibility[key]

    def train_together(self, requests: Sequence[ChunkRequest]) -> tuple[int, ...]:
        """See ChunkRunner."""
        memory.reset_peak()
        with PROCESS:
            ready = [request for request in requests if self._is_ready(request)]
            joint = [request for request in ready if not self._hindrance(self._held[request.run_id])]
            if len(joint) > 1:
                self._advance_together(joint)
        return tuple(r.run_id for r in requests if r not in ready or not self._is_ready(r))

    def holds(self, run_id: int) -> bool:
        """See ChunkRunner."""
        return run_id in self._held

    def save(self, run_id: int, fence: int) -> ChunkResult:
        """See ChunkRunner."""
        with PROCESS:
            return self._commit(self._held[run_id], run_id, fence, TurnOutcome.INTERRUPTED)

    def snapshot(self, request: SnapshotRequest) -> StoredFolder:
        """See ChunkRunner."""
        if request.config.peft is None:
            raise ConfigError(
                f"run {request.run_id} trains all weights and has no adapter to start from; clone it without warm_start."
            )
        held = self._held.get(request.run_id)
        if held is not None and held.run.trainer is not None and held.run.status is ParkedStatus.PARKED:
            adapter = take_snapshot(held.run.trainer.model)
            steps, samples = held.run.step, self._progress(held).samples
        elif request.checkpoint is not None:
            source = request.checkpoint
            trained = trained_model(self.models, self._folder, self._objects, request.config, source, is_trainable=True)
            adapter = take_snapshot(trained.model)
            del trained
            steps, samples = source.steps, source.samples
        else:
            raise ConfigError(f"run {request.run_id} has no adapter to start from; wait for its first chunk.")
        reference = adapter if request.becomes_reference else None
        if reference is None and request.started_from is not None:
            reference = self._load_start(request.config, request.started_from).reference
        return folders.write_folder(
            self._folder,
            request.target,
            lambda folder: save_start(Start(adapter, reference), folder),
            steps=steps,
            samples=samples,
            observer=self._observer,
        )

    def adopt(self, path: str, target: str) -> StoredFolder:
        """See ChunkRunner."""
        return adopt_adapter(self._folder, Path(path), target)

    def _load_start(self, config: RunConfig, folder: StoredFolder) -> Start:
        path = folders.verify_folder(self._folder, folder)
        return load_start(path, lambda: base_of(self.models, self._objects, config).model)

    def verify(self, folder: StoredFolder) -> None:
        """See ChunkRunner."""
        folders.verify_folder(self._folder, folder)

    def validate(self, config: RunConfig) -> list[str]:
        """See ChunkRunner."""
        return self._trainers.validate(config)

    def generate(
        self,
        run_id: int,
        config: RunConfig,
        checkpoint: StoredFolder | None,
        prompts: Sequence[str],
        settings: Mapping[str, Json],
    ) -> list[str]:
        """See ChunkRunner."""
        held = self._held.get(run_id)
        with PROCESS:
            if held is not None and held.run.status is ParkedStatus.PARKED:
                self._bring_in(self._trainers.modules_of(config), [run_id])
                trainer = held.run.trainer
                tokenizer = trainer.processing_class
                with _inside(held):
                    chat = self._trainers.is_chat(config)
                    texts = sample_texts(prompts, (), tokenizer, is_chat=chat)
                    return texts_of(trainer.model, tokenizer, texts, settings, self._abandoned.is_set, is_chat=chat)
            if checkpoint is None:
                raise ConfigError(f"run {run_id} has no model yet; wait for its first chunk.")
            trained = trained_model(self.models, self._folder, self._objects, config, checkpoint)
            texts = sample_texts(prompts, (), trained.tokenizer, is_chat=trained.is_chat)
            over = self._abandoned.is_set
            return texts_of(trained.model, trained.tokenizer, texts, settings, over, is_chat=trained.is_chat)

    def load(self, run_id: int, config: RunConfig, checkpoint: StoredFolder) -> object:
        """See ChunkRunner."""
        return trained_model(self.models, self._folder, self._objects, config, checkpoint).model

    def export(self, run_id: int, config: RunConfig, checkpoint: StoredFolder, path: str, *, merge: bool) -> None:
        """See ChunkRunner."""
        trained = trained_model(self.models, self._folder, self._objects, config, checkpoint)
        export_model(trained, Path(path), merge=merge)

    def remove(self, run_id: int, paths: Sequence[str]) -> None:
        """See ChunkRunner."""
        for path in paths:
            folders.remove_folder(self._folder, path)

    def release(self, run_id: int) -> None:
        """See ChunkRunner."""
        held = self._held.pop(run_id, None)
        if held is not None:
            try:
                with PROCESS:
                    held.run.end()
            finally:
                del held
                self._residency.forget(_run_key(run_id))
                memory.collect()

    def rearm(self) -> None:
        """See ChunkRunner."""
        if not self._abandoned.is_set():
            self._interrupted.clear()

    def interrupt(self) -> None:
        """See ChunkRunner."""
        self._interrupted.set()

    def abandon(self) -> None:
        """See ChunkRunner."""
        self._abandoned.set()
        self._interrupted.set()

    def close(self) -> None:
        """See ChunkRunner."""
        for run_id in list(self._held):
            self.release(run_id)
        for module in self.models.modules():
            self._residency.forget(_model_key(module))
        self.models.on_use = lambda _model: None  # whoever keeps the models does not keep the runner
        self._joint_models.clear()
        self.models.clear()
        memory.collect()

    # ---- a turn

    def _turn(self, request: ChunkRequest) -> ChunkResult:
        held = self._held.get(request.run_id)
        if held is None:
            built = self._build(request)
            if isinstance(built, Failure):
                return self._failed(request.run_id, request.fence, built, request.progress)
            held = built
        try:
            return self._advance(request, held)
        except Disturbed:  # the turn is thrown away; the run goes on where it was committed
            self.release(request.run_id)
            raise

    def _advance(self, request: ChunkRequest, held: _Held) -> ChunkResult:
        if held.uncommitted is not None:
            return self._commit(held, request.run_id, request.fence, held.uncommitted)
        boundary = held.reached or _plan(held).next_boundary(held.run.step)
        started = time.perf_counter()
        self._bring_in(self._trainers.modules_of(held.config), [request.run_id], room=held.room)
        before = memory.allocated_bytes()
        held.overhead_seconds += time.perf_counter() - started
        if held.reached is None:
            started = time.perf_counter()
            held.run.advance(boundary if request.park_at is None else min(boundary, request.park_at))
            held.train_seconds += time.perf_counter() - started
            held.used_bytes = max(held.used_bytes, (memory.peak_bytes() or 0) - before)
        match held.run.status:
            case ParkedStatus.FAILED if isinstance(held.run.error, Disturbed):
                raise held.run.error
            case ParkedStatus.FAILED:
                return self._failed(request.run_id, request.fence, self._failure(held), request.progress)
            case ParkedStatus.WAITING:  # nobody is left to answer it
                failure = Failure(message="the joint step that the run was in has failed.", traceback="")
                return self._failed(request.run_id, request.fence, failure, request.progress)
            case ParkedStatus.FINISHED:
                return self._finish_turn(request, held, TurnOutcome.COMPLETED)
            case ParkedStatus.PARKED if held.run.step >= boundary:
                return self._finish_turn(request, held, TurnOutcome.BOUNDARY)
            case _:
                return ChunkResult(
                    run_id=request.run_id,
                    fence=request.fence,
                    outcome=TurnOutcome.INTERRUPTED,
                    progress=self._progress(held),
                )

    def _is_ready(self, request: ChunkRequest) -> bool:
        """Whether a run can go on training; its trainer is built if need be. What hinders it, ``train`` tells."""
        held = self._held.get(request.run_id)
        if held is None:
            try:
                built = self._build(request)
            except Exception:  # noqa: BLE001 - ``train`` builds it again, and tells
                return False
            if isinstance(built, Failure):
                return False
            held = built
        return held.uncommitted is None and held.reached is None and held.run.status is ParkedStatus.PARKED

    def _hindrance(self, held: _Held) -> str:
        """Why a run cannot take part in joint steps; empty when it can."""
        if held.hindrance is None:
            held.hindrance = hindrance(held.run.trainer) or ""
        model = self._joint_models.get(id(self._trainers.modules_of(held.config)[0]))
        if model is not None and model.broken is not None:
            held.hindrance = model.broken
        return held.hindrance

    def _advance_together(self, requests: Sequence[ChunkRequest]) -> None:
        """A turn of several runs in joint steps."""
        started = time.perf_counter()
        runs = {request.run_id: self._held[request.run_id] for request in requests}
        modules = {id(m): m for held in runs.values() for m in self._trainers.modules_of(held.config)}
        self._bring_in(list(modules.values()), list(runs), room=sum(held.room for held in runs.values()))
        model = self._joint_model(next(iter(modules.values())))  # the base comes first, and they have one
        boundaries = {run_id: _plan(held).next_boundary(held.run.step) for run_id, held in runs.items()}
        members = {
            request.run_id: Member(
                runs[request.run_id].run,
                pads_right=runs[request.run_id].method.pads_right,
                order=model.order,
                goes_alone=lambda: model.broken is not None,
            )
            for request in requests
        }
        until = {
            members[r.run_id]: min(boundaries[r.run_id], boundaries[r.run_id] if r.park_at is None else r.park_at)
            for r in requests
        }
        model.expect(max(held.steps_left * held.run.trainer.args.gradient_accumulation_steps for held in runs.values()))
        before = {run_id: held.run.step for run_id, held in runs.items()}
        trained = time.perf_counter()
        with OwnDtype(self._dtype) if is_cell_at_work() else nullcontext():
            FusedGroup(model, list(members.values())).advance(until)
        ended = time.perf_counter()
        for run_id, held in runs.items():
            held.overhead_seconds += (trained - started) / len(runs)
            held.train_seconds += (ended - trained) / len(runs)
            joined = [other for other, member in members.items() if member.joint_forwards]
            if run_id in joined:
                held.fused_with = tuple(sorted({*held.fused_with, *(other for other in joined if other != run_id)}))
            elif held.run.step > before[run_id]:
                held.hindrance = "its forwards are none that joint steps know"
            if held.run.status is ParkedStatus.PARKED and held.run.step >= boundaries[run_id]:
                held.reached = boundaries[run_id]
            self._hindrance(held)  # it may have come to one

    def _joint_model(self, base: Any) -> JointModel:
        if id(base) not in self._joint_models:
            self._joint_models[id(base)] = JointModel(base, self._log)
        return self._joint_models[id(base)]

    def _finish_turn(self, request: ChunkRequest, held: _Held, outcome: TurnOutcome) -> ChunkResult:
        started = time.perf_counter()
        held.generations = held.method.completions(held.run.trainer)  # before an evaluation adds its own
        failure = self._evaluate(request.run_id, held)
        if failure is None:
            self._write_samples(request.run_id, held)
        held.overhead_seconds += time.perf_counter() - started
        if failure is not None:
            return self._failed(request.run_id, request.fence, failure, request.progress)
        return self._commit(held, request.run_id, request.fence, outcome)

    def _tell_of_other_cells(self, run_id: int, held: _Held) -> None:
        """A run that draws shares the process's streams with whatever cell is at work."""
        if held.run.is_quiet or held.was_beside_a_cell or not (counts_cells() and is_cell_at_work()):
            return
        held.was_beside_a_cell = True
        held.notes += (
            f"a cell was at work while run {run_id} trained, whose steps draw random numbers: if that cell drew or seeded any, "
            "the run's figures are not those of plain TRL, and the cell's numbers not those of its seed.",
        )

    def _commit(self, held: _Held, run_id: int, fence: int, outcome: TurnOutcome) -> ChunkResult:
        started = time.perf_counter()
        progress = self._progress(held)
        held.uncommitted = outcome if outcome is not TurnOutcome.INTERRUPTED else None
        try:
            checkpoint = self._checkpoint(run_id, held, progress)
        except StorageFull:
            raise
        except BaseException as error:  # noqa: BLE001 - weights that cannot be written as they are, say
            failure = failure_of(error, held.config)
            told = replace(failure, message=f"the run could not be saved: {failure.message}")
            return self._failed(run_id, fence, told, progress)
        held.uncommitted = None
        self._tell_of_other_cells(run_id, held)
        held.overhead_seconds += time.perf_counter() - started
        result = ChunkResult(
            run_id=run_id,
            fence=fence,
            outcome=outcome,
            progress=progress,
            points=tuple(held.points),
            checkpoint=checkpoint,
            warm_start_report=held.report,
            train_seconds=held.train_seconds,
            overhead_seconds=held.overhead_seconds,
            own_bytes=memory.own_bytes(held.run.trainer),
            generations=held.generations,
            notes=held.notes,
            fused_with=held.fused_with,
            loaded=held.loaded,
        )
        held.reached, held.fused_with = None, ()
        held.points, held.report, held.train_seconds, held.overhead_seconds = [], None, 0.0, 0.0
        held.generations, held.notes, held.loaded = (), (), ()
        return result

    def _checkpoint(self, run_id: int, held: _Held, progress: Progress) -> StoredFolder:
        trainer, base = held.run.trainer, base_of(self.models, self._objects, held.config)
        used = RunTokenizer(trainer.processing_class, self._trainers.is_chat(held.config))

        def fill(folder: Path) -> None:
            streams = held.run.state.random if held.run.is_quiet and held.run.state else RandomState.capture()
            run_files.save_run(trainer, held.run.gate, held.method, streams, folder)
            save_tokenizer(used, trainer.accelerator.unwrap_model(trainer.model), base, folder)

        with _inside(held):
            return folders.write_folder(
                self._folder,
                layout.checkpoint(run_id, progress.steps),
                fill,
                steps=progress.steps,
                samples=progress.samples,
                observer=self._observer,
            )

    def _evaluate(self, run_id: int, held: _Held) -> Failure | None:
        """Evaluate a parked run outside its own course: its state, logs and streams are as if nothing had happened."""
        if not held.evaluates:
            return None
        if held.points and held.points[-1].step == held.run.step and "eval_loss" in held.points[-1].metrics:
            return None  # the run evaluated itself at this step
        trainer = held.run.trainer
        with _inside(held):
            logged = len(trainer.state.log_history)
            loaders = len(trainer.accelerator._dataloaders)
            try:
                with torch.enable_grad():
                    trainer.evaluate()
                return None
            except StopTraining:
                raise
            except BaseException as error:  # noqa: BLE001 - a failing metric is this run's failure, sys.exit() too
                return failure_of(error, held.config, need=held.need)
            finally:
                del trainer.state.log_history[logged:]
                del trainer.accelerator._dataloaders[loaders:]

    def _write_samples(self, run_id: int, held: _Held) -> None:
        """Let a parked run answer the sample prompts, outside its own course; what fails here fails nothing."""
        if not self._sample_prompts or held.writes_no_samples:
            return
        trainer = held.run.trainer
        try:
            with _inside(held):
                tokenizer = trainer.processing_class
                chat, over = self._trainers.is_chat(held.config), self._abandoned.is_set
                exchanges = self._trainers.exchanges(held.config)
                prompts = sample_texts(self._sample_prompts, exchanges, tokenizer, is_chat=chat)
                texts = texts_of(trainer.model, tokenizer, prompts, {}, over, is_chat=chat)
                held.generations += tuple(
                    Generation(prompt=prompt, text=text) for prompt, text in zip(prompts, texts, strict=True)
                )
        except StopTraining:
            raise
        except BaseException as error:  # noqa: BLE001 - answers are to look at; training does not need them
            held.writes_no_samples = True
            held.notes += (f"run {run_id} writes no samples: {failure_of(error, held.config).message}",)

    def _progress(self, held: _Held) -> Progress:
        plan, step = _plan(held), held.run.step
        if held.run.status is ParkedStatus.FINISHED and step < plan.total_steps:
            chunks = plan.total_chunks  # the trainer ended early by itself
        else:
            chunks = plan.chunks_done(step)
        return Progress(
            steps=step,
            samples=plan.samples(step),
            epoch=plan.epoch(step),
            chunks=chunks,
            total_steps=plan.total_steps,
            total_samples=plan.samples(plan.total_steps),
            total_chunks=plan.total_chunks,
            diverged_at=held.run.trainer.divergence.now(),
        )

    # ---- building

    def _build(self, request: ChunkRequest) -> _Held | Failure:
        """The run's trainer, parked before its first step."""
        began = time.perf_counter()
        run_id, config = request.run_id, request.config
        method = method_named(config.method)
        resume_from: Path | None = None
        if request.continue_from is not None:
            resume_from = folders.verify_folder(self._folder, request.continue_from)
            self._remove_later_checkpoints_of_trainer(run_id, request.continue_from.steps)
        try:
            modules = self._loaded(config)
            start = None if request.warm_start is None else self._load_start(config, request.warm_start)
            self._bring_in(modules, room=memory.bytes_of(modules[0].parameters()) if config.peft is None else 0)
        except CheckpointDamaged:
            raise
        except BaseException as error:  # noqa: BLE001 - a model that does not load is this run's failure
            self._wait_if_full(error)
            return failure_of(error, config)

        seed, precomputes = int(config.training["seed"]), config.training.get("precompute_ref_log_probs")

        def attempt(is_quiet: bool) -> _Held:
            def started(report: WarmStartReport) -> None:
                held.report = report if resume_from is None else None

            stream = OwnStream(seed)
            run = ParkedRun(
                lambda gate: self._trainers.build(
                    method,
                    config,
                    gate,
                    run_id,
                    start=start,
                    on_started=started,
                    is_continued=resume_from is not None,
                    on_seeding=(lambda: None) if is_quiet else stream.give_back,
                ),
                dtype=self._dtype,
                is_quiet=is_quiet,
                resume_from=None if resume_from is None else str(resume_from),
                interrupted=self._interrupted,
                abandoned=self._abandoned,
            )
            held = _Held(run, config, method, self._data.evaluation is not None, self._dtype)
            if resume_from is not None:
                run_files.prepare_to_continue(run.gate, method, resume_from)
            self._generate_at_evaluations(run_id, held)
            self._listen(run_id, held)
            with no_progress_bars():
                run.build(lambda: undisturbed(self._dtype, stream, is_quiet=is_quiet))
            if isinstance(run.error, Disturbed):
                raise run.error
            if run.status is ParkedStatus.PARKED and is_quiet and draws_in_steps(run.trainer.model, config):
                run.end()
                return attempt(False)  # what the trainer made of the model draws, after all
            if run.status is ParkedStatus.PARKED and is_quiet:
                run.begin_from(stream.streams(seed))
            elif run.status is ParkedStatus.PARKED and is_cell_at_work() and not precomputes:
                run.begin_from(RandomState.seeded(seed))  # where Trainer's __init__ left them
            return held

        try:
            is_quiet = not draws_in_steps(modules[0], config)
            held = until_undisturbed(lambda: attempt(is_quiet))
        except Disturbed as error:
            return Failure(
                message=f"while run {run_id} was prepared {error}, again and again; wait for that cell, then clone the run.",
                traceback="",
            )
        run = held.run
        if run.status is ParkedStatus.FAILED:
            assert run.error is not None
            self._wait_if_full(run.error)
            return self._failure(held)
        if run.status is not ParkedStatus.PARKED:
            return Failure(message="the run was given up while it was being built.", traceback="")
        held.loaded = self._facts(config)
        held.plan = self._trainers.plan(method, run.trainer)
        held.need = need_of_trainer(config, run.trainer, modules[0])
        held.overhead_seconds += time.perf_counter() - began
        self._held[run_id] = held
        self._residency.keep(_run_key(run_id), lambda: self._own_tensors(held), is_base=False)
        return held

    def _wait_if_full(self, error: BaseException) -> None:
        """A run that has not begun can be built again when there is room; raises StorageFull for the engine to wait."""
        why = refusal_of_disk(error)
        if why is not None:
            raise StorageFull(f"no room to prepare a run: {why}. Free some disk space; training goes on by itself.")

    # ---- who is on the device

    def _facts(self, config: RunConfig) -> tuple[LoadedModel, ...]:
        """What the run's base model is, the first time."""
        key = digest(config.model)
        if key in self._known_models:
            return ()
        self._known_models.add(key)
        base = base_of(self.models, self._objects, config)
        return (LoadedModel(chosen_by=config.model, facts=model_facts(base.model, base.tokenizer)),)

    def _loaded(self, config: RunConfig) -> list[Any]:
        """The models that a run needs; when there is no room to load one, everything else leaves the device first."""
        try:
            return self._trainers.modules_of(config)
        except torch.cuda.OutOfMemoryError:
            self._residency.clear()
            memory.collect()
        try:
            return self._trainers.modules_of(config)
        except torch.cuda.OutOfMemoryError as error:
            raise does_not_fit(run_device(use_cpu=config.use_cpu)) from error

    def _bring_in(self, modules: Sequence[Any], run_ids: Sequence[int] = (), *, room: int = 0) -> None:
        """Have models and runs on the device, and ``room`` bytes beside them."""
        for module in modules:
            self._residency.keep(_model_key(module), partial(self._shared_tensors, module), is_base=True)
        keys = [_model_key(module) for module in modules]
        self._residency.use([*keys, *map(_run_key, run_ids)], room)

    def _shared_tensors(self, module: Any) -> Iterator[torch.Tensor]:
        """A resident model's tensors, and those of all runs over the same storage."""
        yield from (own := list(tensors_of(module)))
        storages = {storage_of(tensor) for tensor in own}
        for held in self._held.values():
            yield from (t for t in trainer_tensors(held.run.trainer) if storage_of(t) in storages)

    def _own_tensors(self, held: _Held) -> Iterator[torch.Tensor]:
        """What only this run holds."""
        shared = {storage_of(tensor) for module in self.models.modules() for tensor in tensors_of(module)}
        yield from (t for t in trainer_tensors(held.run.trainer) if storage_of(t) not in shared)

    def _remove_later_checkpoints_of_trainer(self, run_id: int, steps: int) -> None:
        """Those of load_best_model_at_end from beyond the point where the run goes on: they will be made again."""
        for folder in layout.trainer(self._folder, run_id).glob("checkpoint-*"):
            number = folder.name.removeprefix("checkpoint-")
            if number.isdigit() and int(number) > steps:
                folders.remove_folder(self._folder, folder.relative_to(self._folder).as_posix())

    # ---- listening

    def _listen(self, run_id: int, held: _Held) -> None:
        def on_metrics(step: int, metrics: dict[str, Any]) -> None:
            point = self._record(held, step, metrics)
            diverged_at = None if held.run.trainer is None else held.run.trainer.divergence.since
            if self._fail_on_nan and diverged_at is not None:
                raise FloatingPointError(
                    f"the loss or a gradient is not a number at step {diverged_at}; lower the learning rate."
                )
            if point is not None and self.listener is not None and held.plan is not None:
                self.listener(run_id, self._live_progress(held, step), point)

        def on_step(step: int) -> None:
            if self.listener is not None and held.plan is not None:
                self.listener(run_id, self._live_progress(held, step), None)

        held.run.gate.on_metrics = on_metrics
        held.run.gate.on_step = on_step

    def _live_progress(self, held: _Held, step: int) -> Progress:
        plan = _plan(held)
        return Progress(
            steps=step,
            samples=plan.samples(step),
            epoch=plan.epoch(step),
            chunks=plan.chunks_done(step),
            total_steps=plan.total_steps,
            total_samples=plan.samples(plan.total_steps),
            total_chunks=plan.total_chunks,
            diverged_at=held.run.trainer.divergence.since,
        )

    def _record(self, held: _Held, step: int, metrics: dict[str, Any]) -> MetricPoint | None:
        """Add logged metrics to the points; those of one step belong together."""
        numbers = {
            name: float(value)
            for name, value in metrics.items()
            if isinstance(value, int | float) and name not in ("step", "epoch") and not name.endswith(_CLOCK)
        }
        trainer = held.run.trainer
        plan = held.plan or (self._trainers.plan(held.method, trainer) if trainer is not None else None)
        if not numbers or plan is None:
            return None
        if held.points and held.points[-1].step == step:
            numbers = {**held.points.pop().metrics, **numbers}
        point = MetricPoint(
            step=step,
            samples=plan.samples(step),
            epoch=plan.epoch(step),
            chunk=plan.chunk_of(max(step, 1)),
            metrics=numbers,
            at=time.time(),
        )
        held.points.append(point)
        return point

    def _generate_at_evaluations(self, run_id: int, held: _Held) -> None:
        """What to do at an evaluation when the user's metrics want generated texts."""
        trainers, config = self._trainers, held.config
        compute, generates = trainers.extra(config, "compute_metrics"), trainers.extra(config, "generation_config")
        if compute is None or generates is None:
            return

        def evaluated(trainer: Any) -> None:
            step = trainer.state.global_step
            metrics = generated_metrics(
                trainer.model,
                trainer.processing_class,
                list(trainers.exchanges(config)),
                generates,
                compute,
                batch_size=trainer.args.per_device_eval_batch_size,
                seed=trainer.args.seed + step,
                is_over=self._abandoned.is_set,
            )
            if run_id in self._held:
                self._record(held, step, metrics)

        held.run.gate.on_evaluated = evaluated

    # ---- failures

    def _failure(self, held: _Held) -> Failure:
        assert held.run.error is not None
        return failure_of(held.run.error, held.config, held.run.traceback_text, held.need)

    def _failed(self, run_id: int, fence: int, failure: Failure, committed: Progress) -> ChunkResult:
        held = self._held.get(run_id)
        progress = committed
        if held is not None and held.plan is not None and held.run.trainer is not None:
            progress = self._progress(held)
        result = ChunkResult(
            run_id=run_id,
            fence=fence,
            outcome=TurnOutcome.FAILED,
            progress=progress,
            points=() if held is None else tuple(held.points),
            failure=failure,
            fused_with=() if held is None else held.fused_with,
            loaded=() if held is None else held.loaded,
            train_seconds=0.0 if held is None else held.train_seconds,
            overhead_seconds=0.0 if held is None else held.overhead_seconds,
        )
        del held
        self.release(run_id)
        memory.collect()
        return result


@contextmanager
def _inside(held: _Held) -> Iterator[None]:
    """Under a parked run's process state, which is not captured again: what is done leaves no trace in the run's course."""
    notebook = ProcessState.of_notebook()
    assert held.run.state is not None
    is_quiet, state = held.run.is_quiet, held.run.state
    if not is_quiet:
        state.random.install()
    state.install_beside_streams()
    try:
        held.run.own_stream.state = state.random.cpu
        with held.run.own_stream if is_quiet else nullcontext(), OwnDtype(held.dtype):
            yield
    finally:
        if not is_quiet:
            notebook.random.install()
        notebook.install_beside_streams()


def _plan(held: _Held) -> Plan:
    assert held.plan is not None
    return held.plan


def _run_key(run_id: int) -> str:
    return f"run {run_id}"


def _model_key(module: Any) -> str:
    return f"model {id(module)}"
