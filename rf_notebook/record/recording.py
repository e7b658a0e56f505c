"""An experiment's state becomes the record that travels."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rf_notebook.core.events import OperationObeyed, Recorded
from rf_notebook.core.labels import UNLABELLED
from rf_notebook.core.operations import CloneRun, verb
from rf_notebook.core.redaction import private_json
from rf_notebook.core.values import Json, digest
from rf_notebook.record.record import FORMAT, SHORT, VERSION, part_digests, portable, record_digest

if TYPE_CHECKING:
    from rf_notebook.core.run import MetricPoint, RunConfig, StoredFolder
    from rf_notebook.core.state import ExperimentState, RunRecord

#: Points of a curve, and significant digits of its values.
_POINTS = 40
_DIGITS = 6
#: Whose curves and values by chunk are in the record: the first few that there are. Digests cover
#: all.
_METRICS = ("eval_loss", "loss", "eval_reward", "reward")
_MOST_METRICS = 3


#: What was computed of chunks, which do not change: by run, and path and digest of the checkpoint
#: at their end.
Known = dict[tuple[int, str, str], dict[str, Json]]


def record_of(state: ExperimentState, known: Known | None = None) -> dict[str, Json]:
    """The record as JSON, without secrets and home folders; ``run_fit`` has been called.

    Args:
        state: The experiment's state.
        known: Kept by a caller that asks repeatedly.
    """
    started, launch = state.started, state.launch
    assert started is not None
    runs = [state.runs[run_id] for run_id in sorted(state.runs)]
    spec = {
        "search": None if launch is None else launch.search,
        "configs": [_config(run.config) for run in runs if run.parent_id is None],
        "num_chunks": started.num_chunks,
        "seed": started.seed,
        "data_seed": started.data_seed,
        "execution": started.execution,
        "keep": started.keep,
        "options": {} if launch is None else dict(launch.options),
        "data": dict(started.data),
        "data_origin": {} if launch is None else dict(launch.data),
        "models": [asdict(model) for model in list(state.base_models.values())],
        "functions": {
            name: source.splitlines(keepends=True) for name, source in state.functions.items()
        },
        "cells": []
        if launch is None
        else [cell.splitlines(keepends=True) for cell in launch.cells],
        "versions": dict(started.versions),
        "environment": {} if launch is None else dict(launch.environment),
    }
    if state.devices:
        spec["devices"] = dict(state.devices)
    written = portable(
        private_json(
            {
                "format": FORMAT,
                "version": VERSION,
                "experiment": started.name,
                "identity": started.identity,
                "spec": spec,
                "operations": [_operation(recorded) for recorded in list(state.operations)],
                "results": [_result(run, known) for run in runs],
                "curves": _curves(runs),
                **({"labels": labels} if (labels := _labels(state)) else {}),
            }
        )
    )
    written["parts"] = part_digests(written)
    written["digest"] = record_digest(written)
    return written


def chunks_of(run: RunRecord, known: Known | None = None) -> list[dict[str, Json]]:
    """What a run had at each of its checkpoints, portable.

    Args:
        run: All that is committed of it.
        known: Takes and gives what was computed before.
    """
    known = {} if known is None else known
    points = list(run.all_points())
    chunks: list[dict[str, Json]] = []
    done = 0
    for saved in run.saved:
        stop = bisect_right(points, saved.steps, lo=done, key=lambda point: point.step)
        key = (run.run_id, saved.path, saved.sha256)
        if key not in known:
            known[key] = _chunk(saved, points[done:stop])
        chunks.append(known[key])
        done = stop
    return chunks


def _chunk(saved: StoredFolder, logged: Sequence[MetricPoint]) -> dict[str, Json]:
    last = newest(logged)
    return portable(
        {
            "steps": saved.steps,
            "samples": saved.samples,
            "metrics": digest(portable([[point.step, dict(point.metrics)] for point in logged]))[
                :SHORT
            ],
            "weights": saved.weights[:SHORT],
            "last": {name: last[name] for name in _chosen(last)},
        }
    )


def newest(points: Iterable[MetricPoint]) -> dict[str, float]:
    """The newest value of every metric."""
    return {name: value for point in points for name, value in point.metrics.items()}


def _config(config: RunConfig) -> dict[str, Json]:
    return asdict(config)


def _operation(recorded: Recorded) -> dict[str, Json]:
    event = recorded.event
    assert isinstance(event, OperationObeyed)
    operation = event.operation
    clone = operation if isinstance(operation, CloneRun) else None
    return {
        "what": verb(operation),
        "run": operation.run_id,
        "steps": event.steps,
        "samples": event.samples,
        "run_state": None if event.run_state is None else str(event.run_state),
        "origin": event.origin,
        "at": recorded.at,
        "config": None if clone is None else _config(clone.config),
        "edits": {} if clone is None else dict(clone.edits),
        "warm_start": clone is not None and clone.warm_start,
        "reason": event.reason,
    }


def _result(run: RunRecord, known: Known | None) -> dict[str, Json]:
    return {
        "run": run.run_id,
        "parent": run.parent_id,
        "state": str(run.state),
        "steps": run.progress.steps,
        "samples": run.progress.samples,
        "failure": None if run.failure is None else run.failure.message,
        "fused": run.is_joint,
        "metrics": newest(run.all_points()),
        "chunks": chunks_of(run, known),
    }


def _labels(state: ExperimentState) -> list[dict[str, Json]]:
    labels = sorted(state.labels.items(), key=lambda one: one[0] or 0)
    return [
        {"run": run_id, "name": label.name, "tags": list(label.tags), "note": label.note}
        for run_id, label in labels
        if label != UNLABELLED
    ]


def _curves(runs: Sequence[RunRecord]) -> dict[str, dict[str, Json]]:
    names = dict.fromkeys(name for run in runs for name in newest(run.all_points()))
    shown = _chosen(names)
    curves: dict[str, dict[str, Json]] = {name: {} for name in shown}
    for run in runs:
        by_metric: dict[str, list[tuple[int, float]]] = {}
        for point in run.all_points():
            for name in shown:
                if name in point.metrics:
                    by_metric.setdefault(name, []).append((point.samples, point.metrics[name]))
        for name, pairs in by_metric.items():
            kept = _thinned(pairs)
            curves[name][str(run.run_id)] = {
                "samples": [samples for samples, _ in kept],
                "values": [float(f"{value:.{_DIGITS}g}") for _, value in kept],
            }
    return curves


def _chosen(names: Iterable[str]) -> list[str]:
    known = list(names)
    return list(dict.fromkeys([*(name for name in _METRICS if name in known), *known]))[
        :_MOST_METRICS
    ]


def _thinned(pairs: Sequence[tuple[int, float]]) -> Sequence[tuple[int, float]]:
    """At most ``_POINTS`` of them, evenly, the last one included."""
    if len(pairs) <= _POINTS:
        return pairs
    return [pairs[round(i * (len(pairs) - 1) / (_POINTS - 1))] for i in range(_POINTS)]
