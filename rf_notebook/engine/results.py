"""Which events does the result of a turn make? Pure functions."""

from __future__ import annotations

from dataclasses import replace

from rf_notebook.core.events import (
    BaseModelLoaded,
    CheckpointsRemoved,
    ChunkTrained,
    Event,
    GenerationMeasured,
    Noted,
    RunFailed,
    RunRolledBack,
    SamplesWritten,
    StateChanged,
    WarmStarted,
)
from rf_notebook.core.redaction import redact
from rf_notebook.core.run import Failure, Generation, Progress, RunState
from rf_notebook.core.runner import ChunkResult, TurnOutcome
from rf_notebook.core.state import ExperimentState, RunRecord
from rf_notebook.engine.keep import Keep, superseded


def events_of(
    record: RunRecord, result: ChunkResult, *, keep: Keep, alone_because: str, device: str
) -> list[Event]:
    """What a turn gave, as events; for a run that was saved inside a chunk, too.

    Args:
        record: The run as it was before.
        result: Not of an interrupted turn, and not of a damaged checkpoint.
        keep: Which checkpoints stay.
        alone_because: Why it trained by itself, where it could have trained with others.
        device: Where it trained; "" for the kernel.
    """
    events = _trained(record, result, keep, alone_because, device)
    if result.failure is not None:
        events.append(RunFailed(run_id=record.run_id, failure=result.failure))
    elif result.outcome is TurnOutcome.COMPLETED:
        is_healthy = result.progress.diverged_at is None
        state = RunState.COMPLETED if is_healthy else RunState.DIVERGED
        events.append(StateChanged(run_id=record.run_id, state=state))
    return events


def fall_back(record: RunRecord, reason: str) -> list[Event]:
    """Continue from the checkpoint before a damaged one; without any, the run fails.

    Args:
        record: The run.
        reason: What is damaged.
    """
    run_id = record.run_id
    if not record.checkpoints:
        failure = Failure(message=f"the adapter to start from is damaged: {reason}", traceback="")
        return [RunFailed(run_id=run_id, failure=failure)]
    *before, damaged = record.checkpoints
    progress = before[-1].progress if before else Progress()
    where = f"step {progress.steps}" if before else "its beginning"
    text = f"run {run_id} continues from {where}: {reason}"
    return [
        RunRolledBack(run_id=run_id, damaged=damaged.folder.path, progress=progress, reason=reason),
        Noted(text=text, run_id=run_id),
    ]


def _trained(
    record: RunRecord, result: ChunkResult, keep: Keep, alone_because: str, device: str
) -> list[Event]:
    """The chunk, what came with it, and the checkpoints that it supersedes."""
    run_id = record.run_id
    events: list[Event] = [BaseModelLoaded(model=model) for model in result.loaded]
    events += [Noted(text=text, run_id=run_id) for text in result.notes]
    if result.warm_start_report is not None:
        events.append(WarmStarted(run_id=run_id, report=result.warm_start_report))
    chunk = ChunkTrained(
        run_id=run_id,
        progress=result.progress,
        points=result.points,
        checkpoint=result.checkpoint,
        train_seconds=result.train_seconds,
        overhead_seconds=result.overhead_seconds,
        eval_seconds=result.eval_seconds,
        reward_seconds=result.reward_seconds,
        own_bytes=result.own_bytes,
        is_joint=result.is_joint,
        fused_with=result.fused_with if result.is_joint else (),
        beside=() if result.is_joint else result.fused_with,
        alone_because=alone_because,
        device=device,
    )
    events.append(chunk)
    if result.progress.diverged_at is not None and record.progress.diverged_at is None:
        text = f"run {run_id} diverged at step {result.progress.diverged_at}: its loss or gradients are NaN or infinite"
        events.append(Noted(text=text, run_id=run_id))
    if result.generations:
        at = result.progress
        written = SamplesWritten(
            run_id=run_id,
            steps=at.steps,
            samples=at.samples,
            generations=tuple(without_secrets(one) for one in result.generations),
        )
        events.append(written)
    if result.generation_speed is not None:
        events.append(GenerationMeasured(run_id=run_id, speed=result.generation_speed))
    after = ExperimentState()
    after.runs[run_id] = record
    after.advance(chunk)
    now = after.record(run_id)
    old = superseded(now.checkpoints, now.all_points(), keep, now.config.method)
    if old:
        events.append(
            CheckpointsRemoved(run_id=run_id, paths=old, reason="newer ones took their place")
        )
    return events


def without_secrets(one: Generation) -> Generation:
    """An answer, and what it answers, as they are recorded."""
    return replace(
        one,
        prompt=redact(one.prompt),
        text=redact(one.text),
        asked=redact(one.asked),
        expected=redact(one.expected),
    )
