"""The experiment as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.core.metrics import SPEEDS
from rf_notebook.core.redaction import REDACTED, visible, visible_json
from rf_notebook.core.run import RunState, object_words
from rf_notebook.core.values import Json, flatten
from rf_notebook.results.decisions import obeyed_of
from rf_notebook.results.handle import Run
from rf_notebook.results.metrics import points_of
from rf_notebook.results.speed import speed_of

if TYPE_CHECKING:
    import pandas as pd

    from rf_notebook.core.state import ExperimentState
    from rf_notebook.core.status import DeviceStatus


def results_frame(state: ExperimentState, *, speed: bool = False) -> pd.DataFrame:
    """A row per run and logged step; with ``speed_of`` in the newest of each run where asked for."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for run_id in list(state.runs):
        of_run = [
            {
                "run_id": run_id,
                "step": point.step,
                "samples": point.samples,
                "epoch": point.epoch,
                "chunk": point.chunk,
                **point.metrics,
            }
            for point in points_of(state, run_id)
        ]
        if speed and of_run:
            of_run[-1] |= speed_of(state.record(run_id))
        rows += of_run
    columns = None if rows else ["run_id", "step", "samples", "epoch", "chunk"]
    return pd.DataFrame(rows, columns=columns).rename(columns=visible)


def devices_frame(state: ExperimentState, devices: Sequence[DeviceStatus]) -> pd.DataFrame:
    """A row per device of worker processes; on a cluster with the machine that each is on.

    Args:
        state: The experiment's state; what it records is all that is known when nobody trains.
        devices: What they do now.
    """
    import pandas as pd

    columns = ["device", "model", "training", "holds", "memory_gb", "memory_total_gb", "chunks"]
    chunks = Counter(turn.device for turn in state.turns)
    now = {one.name: one for one in devices}
    rows: list[dict[str, Any]] = []
    for name, model in state.devices.items():
        one = now.get(name)
        rows.append(
            {
                "device": name,
                "model": model if one is None else one.model,
                "training": [] if one is None else list(one.training),
                "holds": [] if one is None else list(one.holds),
                "memory_gb": _gigabytes(None if one is None else one.used_bytes),
                "memory_total_gb": _gigabytes(None if one is None else one.total_bytes),
                "chunks": chunks[name],
            }
        )
    frame = pd.DataFrame(visible_json(rows), columns=columns)
    if any(one.host for one in devices):
        frame.insert(1, "host", [now[name].host if name in now else "" for name in state.devices])
    return frame


def _gigabytes(count: int | None) -> float | None:
    return None if count is None else round(count / 1e9, 2)


def runs_frame(state: ExperimentState, mlflow_ids: Mapping[int, str]) -> pd.DataFrame:
    """A row per run: our columns, those of RapidFire AI, and the config, flattened.

    Its columns are dotted.

    Args:
        state: The experiment's state.
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
                "name": handle.name,
                "tags": list(handle.tags),
                "note": handle.note,
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
                **dict.fromkeys(SPEEDS),
                **handle.speed,
                **_rapidfire_columns(state, handle, policies),
                "metric_run_id": mlflow_ids.get(record.run_id),
                **flat,
            }
        )
    return pd.DataFrame(visible_json(rows))


def texts_frame(prompts: Sequence[str], written: Mapping[int, Sequence[str]]) -> pd.DataFrame:
    """What runs wrote: a row for each prompt, a column for each run.

    Args:
        prompts: What was asked.
        written: The answers, by run id.
    """
    import pandas as pd

    columns = {f"run {run_id}": visible_json(texts) for run_id, texts in written.items()}
    return pd.DataFrame(columns, index=pd.Index(visible_json(prompts), name="prompt"))


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


def _rapidfire_columns(
    state: ExperimentState, handle: Run, policies: _PoliciesAtWork
) -> dict[str, Any]:
    """What RapidFire AI's table says of a run, where it has another name for it."""
    record = state.record(handle.id)
    progress = state.live[handle.id].progress if handle.id in state.live else record.progress
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
    source = (
        "Initial"
        if handle.parent is None
        else _BY_USER
        if made_by is None
        else _MADE_BY.get(made_by, made_by)
    )
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
    """Which policy stopped and made which run last.

    Runs that a user stopped or made are not there.
    """

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


def _shown(value: Json) -> Json:
    if isinstance(value, dict) and "$secret" in value:
        return REDACTED
    if isinstance(value, dict) and "$object" in value:
        return object_words(value["$object"])
    if isinstance(value, dict):
        return {name: _shown(item) for name, item in value.items()}
    return [_shown(item) for item in value] if isinstance(value, list) else value
