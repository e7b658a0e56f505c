"""What is shown of a run, and what a library has to do to show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rf_notebook.core.events import (
    ChunkTrained,
    Labelled,
    OperationObeyed,
    Recorded,
    RunAdded,
    RunFailed,
    StateChanged,
    WarmStarted,
)
from rf_notebook.core.labels import UNLABELLED, Label
from rf_notebook.core.operations import verb
from rf_notebook.core.redaction import redact
from rf_notebook.core.run import MetricPoint, RunState
from rf_notebook.tracking.shown import shown_config

#: Operations of a run that are told; a hostile record might have millions.
_MOST_OPERATIONS = 200


def as_in_transformers(point: MetricPoint) -> dict[str, float]:
    """A point's figures under the names that transformers' own callbacks give them.

    So curves of plain TRL lie beside them. Source: transformers 5.23, ``rewrite_logs``.
    """
    renamed = {
        f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}": value
        for name, value in point.metrics.items()
    }
    return {**renamed, "train/epoch": point.epoch, "train/samples": point.samples}


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The experiment whose runs are shown."""

    folder: Path
    name: str
    identity: str
    """Tells it from others of its name."""


@dataclass(slots=True, kw_only=True)
class ShownRun:
    """A run as the record has it so far."""

    run_id: int
    config: dict[str, str | int | float | bool]
    """Flat, functions by name, secrets left out; with "parent" and "warm_start" where it is a clone."""
    state: RunState = RunState.QUEUED
    step: int = 0
    """Of the last point that was told."""
    progress: str = ""
    error: str = ""
    label: Label = UNLABELLED
    operations: list[str] = field(default_factory=list)
    """What was asked of it, by whom and when: "stop at step 20 (button)"."""

    @property
    def name(self) -> str:
        """Its own, which does not change."""
        return f"run {self.run_id}"

    @property
    def title(self) -> str:
        """The name that the user gave it, or its own."""
        return redact(self.label.name) or self.name

    @property
    def tags(self) -> tuple[str, ...]:
        """Those that the user gave it."""
        return tuple(map(redact, self.label.tags))

    @property
    def note(self) -> str:
        """The user's."""
        return redact(self.label.note)


class Tracker(Protocol):
    """One library, in a process of its own; runs are told anew, from their first, whenever it starts."""

    def __init__(self, opened: Opened) -> None:
        """Raises ImportError where the library is missing."""

    def add(self, run: ShownRun) -> None:
        """A run joined."""

    def log(self, run: ShownRun, points: Sequence[MetricPoint], at: float) -> None:
        """A run advanced.

        Args:
            run: With what the points say of its progress.
            points: In the order of their steps, none of which was told since this was made.
            at: When they were recorded, in seconds since 1970.
        """

    def change(self, run: ShownRun) -> None:
        """Its state, label or operations are others."""

    def close(self) -> None:
        """Everything was told; write what is left."""


class Teller:
    """Tells a tracker what an experiment's log says."""

    def __init__(self, tracker: Tracker) -> None:
        """Of an experiment of which the tracker was told nothing."""
        self._tracker = tracker
        self._runs: dict[int, ShownRun] = {}

    def tell(self, recorded: Recorded) -> None:
        """One event, in the log's order."""
        event = recorded.event
        if isinstance(event, RunAdded):
            run = self._runs[event.run_id] = ShownRun(
                run_id=event.run_id,
                config=shown_config(event.config) | _lineage(event),
            )
            self._tracker.add(run)
            return
        run_id = getattr(event, "run_id", None)
        if isinstance(event, OperationObeyed):
            run_id = getattr(event.operation, "run_id", None)
        known = self._runs.get(run_id) if run_id is not None else None
        if known is None:
            return
        match event:
            case ChunkTrained():
                known.state = RunState.RUNNING
                known.progress = f"{event.progress.fraction:.1%}"
                # what is trained again after a damaged checkpoint was told already
                points = [point for point in event.points if point.step > known.step]
                known.step = max((point.step for point in points), default=known.step)
                self._tracker.log(known, points, recorded.at)
                return
            case StateChanged():
                known.state = event.state
            case RunFailed():
                known.state, known.error = RunState.FAILED, redact(event.failure.message[:500])
            case Labelled():
                known.label = event.label
            case WarmStarted():
                known.operations.append(event.report.sentence())
            case OperationObeyed() if len(known.operations) < _MOST_OPERATIONS:
                known.operations.append(_operation(event))
            case _:
                return
        self._tracker.change(known)


def _lineage(event: RunAdded) -> dict[str, str | int | float | bool]:
    """From which run it came, if from one."""
    if event.parent_id is None:
        return {}
    return {"parent": event.parent_id, "warm_start": event.warm_start is not None}


def _operation(event: OperationObeyed) -> str:
    why = f": {redact(event.reason[:200])}" if event.reason else ""
    return f"{verb(event.operation)} at step {event.steps} ({event.origin}){why}"
