"""What does the table know of one run?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rf_notebook.core.labels import Label, run_words
from rf_notebook.core.metrics import direction
from rf_notebook.core.run import READY, RunState
from rf_notebook.results.metrics import diverged_at
from rf_notebook.results.speed import speed_of

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState, LiveRun, RunRecord
    from rf_notebook.core.values import Json
    from rf_notebook.views.series import ExperimentSeries


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One run at one moment."""

    run_id: int
    label: Label
    state: RunState
    state_word: str
    """The state, or what a run in the rotation does: "training", "catching up", "diverged at step
    12"."""
    knobs: dict[str, Json]
    """Values of the arguments in which the runs differ, by dotted key."""
    config: Mapping[str, Json]
    """Values of all arguments, by dotted key."""
    latest: Mapping[str, float]
    """Of each metric, and of SPEEDS."""
    best: float | None
    """Of the metric looked at."""
    progress: float
    eta_seconds: float | None
    own_bytes: int
    parent_id: int | None
    is_warm: bool
    joint: str
    """With which runs it trains in joint steps, or why alone; empty where all train in turns."""
    device: str
    """Where it trained last; "" when all trained in the kernel."""
    error: str | None
    has_diverged: bool = False
    """Whether its loss or gradients are NaN or infinite."""

    @property
    def words(self) -> str:
        """How it is called where there is room for its name."""
        return run_words(self.run_id, self.label)


def run_row(
    state: ExperimentState,
    series: ExperimentSeries,
    record: RunRecord,
    knobs: Sequence[str],
    metric: str | None,
    left: dict[int, float],
) -> RunRow:
    """A run as it is now.

    Args:
        state: The experiment's state.
        series: Up to date.
        record: Of the run.
        knobs: Dotted keys of the arguments in which the runs differ.
        metric: Whose best value counts; None before anything was logged.
        left: Seconds that runs still need, by run.
    """
    run_id = record.run_id
    live = state.live.get(run_id)
    progress = record.progress if live is None else live.progress
    flat = _with_kind(series.configs.of(record), record, knobs)
    own = series.runs.get(run_id)
    latest = {**({} if own is None else own.newest), **speed_of(record)}
    word = str(record.state)
    current = record.state
    if record.state is RunState.RUNNING or (record.state is RunState.QUEUED and live is not None):
        current = RunState.RUNNING
        word = (
            "catching up"
            if record.parent_id is not None and _is_behind(state, record)
            else "training"
        )
    if record.state in READY and state.ended is not None:
        word = "unfinished"
    bad_step = diverged_at(state, run_id)
    if bad_step is not None:
        diverged = f"diverged at step {bad_step}"
        is_alone = record.state in (*READY, RunState.DIVERGED)
        word, current = (
            (diverged, RunState.DIVERGED) if is_alone else (f"{word}, {diverged}", current)
        )
    return RunRow(
        run_id=run_id,
        label=state.label(run_id),
        state=current,
        state_word=word,
        knobs={key: flat.get(key) for key in knobs},
        config=flat,
        latest=latest,
        best=own.best(metric, direction(metric)) if own is not None and metric else None,
        progress=progress.fraction,
        eta_seconds=None if run_id not in left else float(f"{left[run_id]:.3g}"),
        own_bytes=record.own_bytes,
        parent_id=record.parent_id,
        is_warm=record.warm_start is not None,
        joint=_joint(record, live),
        device=record.device,
        error=None if record.failure is None else record.failure.message,
        has_diverged=bad_step is not None,
    )


def _with_kind(
    flat: Mapping[str, Json], record: RunRecord, knobs: Sequence[str]
) -> Mapping[str, Json]:
    """A config names its kind of adapter unless it is LoRA; beside others that is named, too."""
    kind = next((knob for knob in knobs if knob.rpartition(".")[2] == "peft_type"), None)
    if kind is None or record.config.adapter is None:
        return flat
    return {**flat, kind: record.config.adapter}


def _joint(record: RunRecord, live: LiveRun | None) -> str:
    others = live.fused_with if live is not None and live.fused_with else record.fused_with
    if others:
        return "with " + ", ".join(map(str, others))
    if record.alone_because:
        return f"alone: {record.alone_because}"
    return "by itself" if record.is_joint else ""


def _is_behind(state: ExperimentState, record: RunRecord) -> bool:
    others = [r.progress.samples for r in state.ready() if r.run_id != record.run_id]
    return bool(others) and record.progress.samples < min(others)
