"""How does a request become a run in memory?

Its models are loaded, and its trainer is built and parked.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import CheckpointDamaged, StorageFull
from rf_notebook.core.foreground import is_cell_at_work
from rf_notebook.core.run import Failure, WarmStartReport
from rf_notebook.core.values import number
from rf_notebook.store import folders, layout
from rf_notebook.store.folders import refusal_of_disk
from rf_notebook.training import memory, run_files
from rf_notebook.training.active_run import ActiveRun
from rf_notebook.training.failures import failure_of
from rf_notebook.training.generation import generated_metrics
from rf_notebook.training.memory_estimate import need_of_trainer
from rf_notebook.training.methods import method_named
from rf_notebook.training.parked import ParkedRun, ParkedStatus
from rf_notebook.training.process_state import RandomState
from rf_notebook.training.quiet import no_progress_bars
from rf_notebook.training.randomness import draws_in_steps
from rf_notebook.training.undisturbed import Disturbed, OwnStream, undisturbed, until_undisturbed

if TYPE_CHECKING:
    from rf_notebook.core.run import StoredFolder
    from rf_notebook.core.runner import ChunkRequest
    from rf_notebook.training.methods.trainer_like import TrainerLike
    from rf_notebook.training.resources import Resources
    from rf_notebook.training.warm_start import Start


def build(resources: Resources, request: ChunkRequest) -> ActiveRun | Failure:
    """The run of a request, parked before its first step; or why it cannot be built.

    Args:
        resources: What it shares with others.
        request: Of its next turn.

    Raises:
        CheckpointDamaged: when what it continues from is not what was recorded.
        StorageFull: when there is no room to prepare it.
    """
    began = time.perf_counter()
    run_id, config = request.run_id, request.config
    resume_from: Path | None = None
    continue_from = newest_of(request, resources.written.get(run_id))
    if continue_from is not None:
        resume_from = folders.verify_folder(resources.folder, continue_from)
        _remove_later_checkpoints_of_trainer(resources.folder, run_id, continue_from.steps)
    try:
        modules = resources.loaded(config)
        start = (
            None if request.warm_start is None else resources.start_from(config, request.warm_start)
        )
        resources.bring_in(
            modules, room=memory.bytes_of(modules[0].parameters()) if config.peft is None else 0
        )
    except CheckpointDamaged:
        raise
    except BaseException as error:  # noqa: BLE001 - a model that does not load is this run's failure
        _wait_if_full(error)
        return failure_of(error, config)
    try:
        is_quiet = not draws_in_steps(modules[0], config)
        run = until_undisturbed(
            lambda: _attempt(resources, request, modules[0], start, resume_from, is_quiet=is_quiet)
        )
    except Disturbed as error:
        return Failure(
            message=f"while run {run_id} was prepared {error}, again and again; wait for that cell, then clone the run.",
            traceback="",
        )
    if run.parked.status is ParkedStatus.FAILED:
        assert run.parked.error is not None
        _wait_if_full(run.parked.error)
        return run.failure()
    if run.parked.status is not ParkedStatus.PARKED:
        return Failure(message="the run was given up while it was being built.", traceback="")
    run.loaded = resources.new_facts(config)
    run.plan = resources.trainers.plan(run.method, run.trainer)
    run.need = need_of_trainer(config, run.trainer, modules[0])
    run.overhead_seconds += time.perf_counter() - began
    return run


def newest_of(request: ChunkRequest, written: StoredFolder | None) -> StoredFolder | None:
    """The checkpoint from which a run continues.

    Args:
        request: Names the newest that is committed.
        written: The newest that was written behind a turn; one that is not committed yet counts
            where the run is said to stand at it, and after a fall back it does not.
    """
    committed = request.continue_from
    is_at_it = written is not None and written.steps == request.progress.steps
    is_committed = committed is not None and committed.steps == request.progress.steps
    return written if is_at_it and not is_committed else committed


def _attempt(
    resources: Resources,
    request: ChunkRequest,
    base: Any,
    start: Start | None,
    resume_from: Path | None,
    *,
    is_quiet: bool,
) -> ActiveRun:
    """Build the trainer once.

    Args:
        resources: What the run shares with others.
        request: Of its next turn.
        base: Its base model.
        start: The adapter that it starts from.
        resume_from: The checkpoint that it continues from.
        is_quiet: Whether its steps draw no random numbers.

    Raises:
        Disturbed: when another cell changed what the trainer depends on.
    """
    run_id, config, method = request.run_id, request.config, method_named(request.config.method)
    seed, precomputes = (
        int(number(config.training["seed"])),
        config.training.get("precompute_ref_log_probs"),
    )
    stream = OwnStream(seed)

    def started(report: WarmStartReport) -> None:
        run.report = report if resume_from is None else None

    parked = ParkedRun(
        lambda gate: resources.trainers.build(
            method,
            config,
            gate,
            run_id,
            start=start,
            on_started=started,
            is_continued=resume_from is not None,
            on_seeding=(lambda: None) if is_quiet else stream.give_back,
        ),
        dtype=resources.dtype,
        is_quiet=is_quiet,
        resume_from=None if resume_from is None else str(resume_from),
        interrupted=resources.interrupted,
        abandoned=resources.abandoned,
    )
    evaluates = resources.trainers.data.evaluation is not None
    run = ActiveRun(run_id, config, method, parked, resources, evaluates=evaluates)
    if resume_from is not None:
        run_files.prepare_to_continue(parked.gate, method, resume_from)
    _generate_at_evaluations(run, resources)
    _listen(run, resources)
    with no_progress_bars():
        parked.build(lambda: undisturbed(resources.dtype, stream, is_quiet=is_quiet))
    if isinstance(parked.error, Disturbed):
        raise parked.error
    if (
        parked.status is ParkedStatus.PARKED
        and is_quiet
        and draws_in_steps(parked.trainer.model, config)
    ):
        parked.end()  # what the trainer made of the model draws, after all
        return _attempt(resources, request, base, start, resume_from, is_quiet=False)
    if parked.status is ParkedStatus.PARKED and is_quiet:
        parked.begin_from(stream.streams(seed))
    elif parked.status is ParkedStatus.PARKED and is_cell_at_work() and not precomputes:
        parked.begin_from(RandomState.seeded(seed))  # where Trainer's __init__ left them
    return run


def _listen(run: ActiveRun, resources: Resources) -> None:
    """Take in what the trainer logs, and tell of every step."""

    def on_metrics(step: int, metrics: dict[str, Any]) -> None:
        point = run.add_point(step, metrics)
        diverged_at = None if run.trainer is None else run.trainer.divergence.since
        if resources.fail_on_nan and diverged_at is not None:
            raise FloatingPointError(
                f"the loss or a gradient is not a number at step {diverged_at}; lower the learning rate."
            )
        if point is not None and resources.listener is not None and run.plan is not None:
            resources.listener(run.run_id, run.live_progress(step), point)

    def on_step(step: int) -> None:
        if resources.listener is not None and run.plan is not None:
            resources.listener(run.run_id, run.live_progress(step), None)

    run.parked.gate.on_metrics = on_metrics
    run.parked.gate.on_step = on_step


def _generate_at_evaluations(run: ActiveRun, resources: Resources) -> None:
    """Let the user's metrics judge generated texts at an evaluation, when they want such."""
    trainers, config = resources.trainers, run.config
    compute, generates = (
        trainers.extra(config, "compute_metrics"),
        trainers.extra(config, "generation_config"),
    )
    if compute is None or generates is None:
        return

    def evaluated(trainer: TrainerLike) -> None:
        step = trainer.state.global_step
        metrics = generated_metrics(
            trainer.model,
            trainer.processing_class,
            list(trainers.exchanges(config)),
            generates,
            compute,
            batch_size=trainer.args.per_device_eval_batch_size,
            seed=trainer.args.seed + step,
            is_over=resources.abandoned.is_set,
        )
        if run.plan is not None:
            run.add_point(step, metrics)

    run.parked.gate.on_evaluated = evaluated


def _wait_if_full(error: BaseException) -> None:
    """A run that has not begun can be built again when there is room.

    Raises StorageFull for the engine to wait.
    """
    why = refusal_of_disk(error)
    if why is not None:
        raise StorageFull(
            f"no room to prepare a run: {why}. Free some disk space; training continues by itself."
        )


def _remove_later_checkpoints_of_trainer(folder: Path, run_id: int, steps: int) -> None:
    """Those of load_best_model_at_end from beyond the point where the run continues.

    They will be made again.
    """
    for found in layout.trainer(folder, run_id).glob("checkpoint-*"):
        number = found.name.removeprefix("checkpoint-")
        if number.isdigit() and int(number) > steps:
            folders.remove_folder(folder, found.relative_to(folder).as_posix())
