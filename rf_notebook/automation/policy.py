"""What does a policy see at a chunk boundary, and what may it ask for?

Values only: a policy reads and writes nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from rf_notebook.core.metrics import SPEEDS, cost_of, direction, may_log, scale_of
from rf_notebook.core.operations import verb
from rf_notebook.core.run import READY, MetricPoint, RunConfig, RunState
from rf_notebook.results.decisions import obeyed_of
from rf_notebook.results.speed import speed_of

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState, RunRecord
    from rf_notebook.core.values import Json

#: Of the paired bootstrap.
_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Stop:
    """Take a run out of the rotation; nothing of it is lost."""

    run: int
    reason: str
    """A sentence for the user."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Put a stopped run back."""

    run: int
    reason: str


@dataclass(frozen=True, slots=True)
class Clone:
    """Add a run with the config of another and edits."""

    run: int
    reason: str
    edits: Any = field(default_factory=dict)
    """A dict by dotted key, or whatever else ``Experiment.clone`` takes; a RunConfig is the whole
    config."""
    warm_start: bool = False


Decision = Stop | Resume | Clone


@dataclass(frozen=True, slots=True)
class Boundary:
    """A run came to the end of a chunk."""

    run: int
    chunks: int
    """That it had trained then."""
    samples: int


@dataclass(frozen=True, slots=True)
class Obeyed:
    """An operation was obeyed, of a user's or of a policy's."""

    what: str
    """stop, resume, clone or delete."""
    run: int
    made: int | None
    """The run that a clone made."""
    samples: int
    """That the run had trained then."""
    by_policy: bool


class RunView:
    """One run as a policy sees it."""

    def __init__(
        self,
        record: RunRecord,
        *,
        is_pinned: bool,
        inherited: int = 0,
        evaluates: bool = True,
        sources: Mapping[str, str] | None = None,
    ) -> None:
        self._record = record
        self._evaluates, self._sources = evaluates, sources or {}
        self.is_pinned = is_pinned
        """Whether the user wants it left alone."""
        self.inherited = inherited
        """Rows that its line had trained on before it: those behind the adapter that it started
        from."""

    @property
    def id(self) -> int:
        """1, 2, 3, ..."""
        return self._record.run_id

    @property
    def parent(self) -> int | None:
        """The run that it was cloned from."""
        return self._record.parent_id

    @property
    def state(self) -> RunState:
        """Where it stands."""
        return self._record.state

    @property
    def is_live(self) -> bool:
        """Whether it takes turns."""
        return self._record.state in READY

    @property
    def diverged_at(self) -> int | None:
        """The first step whose loss or gradients were NaN or infinite, while they still are.

        None for a healthy run.
        """
        return self._record.progress.diverged_at

    @property
    def config(self) -> dict[str, Json]:
        """Its choices, in the shape that users edit: keys of RFModelConfig."""
        return self._record.config.as_json()

    @property
    def chunks(self) -> int:
        """That it has trained."""
        return self._record.progress.chunks

    @property
    def total_chunks(self) -> int:
        """Of its plan; 0 until it trained for the first time."""
        return self._record.progress.total_chunks

    @property
    def samples(self) -> int:
        """Rows that it has trained on."""
        return self._record.progress.samples

    @property
    def total_samples(self) -> int:
        """Of its plan; 0 until it trained for the first time."""
        return self._record.progress.total_samples

    @property
    def schedule(self) -> str:
        """How its learning rate goes: trl's lr_scheduler_type and its arguments."""
        training = self._record.config.training
        return f"{training.get('lr_scheduler_type', 'linear')} {training.get('lr_scheduler_kwargs') or ''}".strip()

    @property
    def run_config(self) -> RunConfig:
        """Its choices, as the engine keeps them."""
        return self._record.config

    @property
    def chunk_samples(self) -> float:
        """Of one of its chunks; 0 until it trained for the first time."""
        progress = self._record.progress
        return progress.total_samples / progress.total_chunks if progress.total_chunks else 0.0

    @property
    def seconds(self) -> float:
        """Device time that it has taken."""
        return self._record.train_seconds + self._record.overhead_seconds

    def points(self) -> Iterable[MetricPoint]:
        """Everything that was logged, oldest first."""
        return self._record.all_points()

    def curve(self, metric: str) -> list[tuple[int, float]]:
        """Samples and value, wherever the metric was logged."""
        return [
            (p.samples, p.metrics[metric]) for p in self._record.all_points() if metric in p.metrics
        ]

    def value(self, metric: str, samples: int | None = None) -> float | None:
        """The newest value of a metric, or the newest at or before this many samples.

        None when there is none. Of SPEEDS there is the newest one only.
        """
        if metric in SPEEDS:
            return speed_of(self._record).get(metric)
        for points in reversed(self._record.points):
            for point in reversed(points):
                if metric in point.metrics and (samples is None or point.samples <= samples):
                    return point.metrics[metric]
        return None

    def has(self, metric: str) -> bool:
        """Whether it has logged a metric."""
        if metric in SPEEDS:
            return metric in speed_of(self._record)
        return any(metric in point.metrics for point in self._record.all_points())

    def may_log(self, metric: str) -> bool:
        """Whether it has logged a metric, or may still."""
        return may_log(
            self._record.config, metric, evaluates=self._evaluates, sources=self._sources
        ) or self.has(metric)

    def lacks(self, metric: str) -> bool:
        """Whether it has not logged a metric although it logged others of its kind."""
        logs_its_kind = metric.startswith("eval_") or self.has(
            "loss"
        )  # what is evaluated comes at every boundary
        return self.chunks > 0 and logs_its_kind and not self.has(metric)

    def scale(self, metric: str) -> str:
        """Runs with equal ones can be compared by the metric."""
        return scale_of(self._record.config, metric)


class View:
    """The experiment as a policy sees it."""

    def __init__(self, state: ExperimentState) -> None:
        self.history: list[Boundary | Obeyed] = _history(state)
        """What happened, oldest first."""
        inherited: dict[int, int] = {}
        for event in self.history:
            if (
                isinstance(event, Obeyed)
                and event.made is not None
                and state.runs[event.made].warm_start is not None
            ):
                inherited[event.made] = event.samples + inherited.get(event.run, 0)
        self.runs: dict[int, RunView] = {
            run_id: RunView(
                record,
                is_pinned=run_id in state.pinned,
                inherited=inherited.get(run_id, 0),
                evaluates=evaluates(state),
                sources=state.functions,
            )
            for run_id, record in state.runs.items()
        }

    @property
    def live(self) -> list[RunView]:
        """Those that take turns and that a policy may touch."""
        return [run for run in self.runs.values() if run.is_live and not run.is_pinned]

    @property
    def samples(self) -> int:
        """Trained by all runs together."""
        return sum(run.samples for run in self.runs.values())

    @property
    def seconds(self) -> float:
        """Device time of all runs together."""
        return sum(run.seconds for run in self.runs.values())

    @property
    def given_back(self) -> set[int]:
        """Runs that somebody resumed.

        What a policy did to them was undone, and is not done again.
        """
        return {
            event.run
            for event in self.history
            if isinstance(event, Obeyed) and event.what == "resume"
        }


def evaluates(state: ExperimentState) -> bool:
    """Whether the experiment has evaluation data."""
    return state.started is None or state.started.data.get("eval") is not None


def _history(state: ExperimentState) -> list[Boundary | Obeyed]:
    found: list[tuple[int, Boundary | Obeyed]] = []
    reached: dict[int, int] = {}
    for turn in state.turns:
        now = turn.progress
        if now.chunks > reached.get(
            turn.run_id, 0
        ):  # a part of a chunk, or one trained again, is not a boundary
            reached[turn.run_id] = now.chunks
            found.append((turn.seq, Boundary(turn.run_id, now.chunks, now.samples)))
    for seq, event, child in obeyed_of(state):
        what, run_id = verb(event.operation), event.operation.run_id
        found.append((seq, Obeyed(what, run_id, child, event.samples, bool(event.reason))))
    return [event for _, event in sorted(found, key=lambda pair: pair[0])]


class Policy(Protocol):
    """Decides at chunk boundaries.

    ``decide`` is a pure function of the view: it remembers nothing, so an experiment that was
    killed continues with the same decisions. A policy may have further members: ``watches`` is a
    tuple of the metrics that it decides by, which are checked before anything trains;
    ``waits_for(view)`` says in words what it waits for, and ``is_spent(view)`` that a budget is
    used up, so that no other policy may start anything. ``barrier`` is true for one that compares
    runs when all have trained equally many chunks: where several devices train, none gets ahead of
    the others then, and the decisions do not depend on how many there are. Without it, runs train on
    as they come, and what is decided depends on who was first.
    """

    @property
    def name(self) -> str:
        """A word or two, for the record and the panel."""

    def decide(self, view: View) -> Sequence[Decision]:
        """What to do now; called whenever a run has trained a chunk, before the next run's turn."""


def stop_diverged(view: View) -> list[Stop]:
    """Stops the live runs that diverged: they cannot win, and nothing of them is worth the time."""
    return [
        Stop(run.id, divergence_words(run))
        for run in view.live
        if run.diverged_at is not None and run.id not in view.given_back
    ]


def divergence_words(run: RunView) -> str:
    """Why a run that diverged is stopped."""
    return f"it diverged at step {run.diverged_at}: its loss or gradients are NaN or infinite."


def beaten_words(
    winner: int, what: str, names: Sequence[str], costs: Sequence[float], own: Sequence[float]
) -> str:
    """In which metrics a run dominates another, for a reason.

    Args:
        winner: Id of the run that dominates.
        what: "metrics" or "objectives".
        names: The metrics' names.
        costs: The winner's costs, by metric.
        own: The other run's costs, by metric.
    """
    better = [name for name, cost, other in zip(names, costs, own, strict=True) if cost < other]
    if len(better) == len(names):
        return f"run {winner} beats it in all {what}"
    return f"run {winner} beats it in {', '.join(better)} and is as good in the rest"


def sureness(better: RunView, worse: RunView, metric: str, mode: str | None, samples: int) -> float:
    """How sure it is that one run is better than another, between 0 and 1: a paired bootstrap.

    Both have seen the same samples wherever both logged the metric, so their differences there are
    resampled; the share of the resampled means that favour the first is the answer. With one common
    point it is 1 or 0.

    Args:
        better: That seems to be better.
        worse: That seems to be worse.
        metric: By which.
        mode: "min" or "max"; follows from the metric's name when None.
        samples: Up to which they are compared.
    """
    sign = 1.0 if (mode or direction(metric)) == "min" else -1.0
    first, second = dict(better.curve(metric)), dict(worse.curve(metric))
    differences = [
        sign * (second[at] - first[at])
        for at in sorted(first.keys() & second.keys())
        if at <= samples
    ]
    differences = [one for one in differences if math.isfinite(one)]
    if not differences:
        return 0.0
    rng = random.Random(0)
    wins = sum(sum(rng.choices(differences, k=len(differences))) > 0 for _ in range(_RESAMPLES))
    return wins / _RESAMPLES


def ranked(
    runs: Iterable[RunView], metric: str, mode: str | None, samples: int | Mapping[int, int]
) -> list[list[tuple[float, RunView]]]:
    """Runs that can be compared after this many samples, the best first, one list for each scale.

    Those without a figure, and those that diverged, come last, at an infinite cost.

    Args:
        runs: To be compared.
        metric: By which.
        mode: "min" or "max"; follows from the metric's name when None.
        samples: Every run is judged by its newest value at or before them; for each run its own,
            where they differ.
    """
    scales: dict[str, list[tuple[float, RunView]]] = {}
    for run in runs:
        value = run.value(metric, samples if isinstance(samples, int) else samples[run.id])
        cost = cost_of(value if run.diverged_at is None else None, mode or direction(metric))
        scales.setdefault(run.scale(metric), []).append((cost, run))
    return [sorted(pairs, key=lambda pair: (pair[0], pair[1].id)) for pairs in scales.values()]
