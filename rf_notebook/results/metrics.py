"""What did a run log, and which run is the best?"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from rf_notebook.core.metrics import HEADLINES, cost_of, direction, headline, scale_of
from rf_notebook.core.run import MetricPoint, RunState
from rf_notebook.results.speed import speed_of

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState

ScaleT = TypeVar("ScaleT")


def points_of(state: ExperimentState, run_id: int) -> Iterator[MetricPoint]:
    """Every point of a run: the committed ones, then those of the chunk in progress."""
    live = state.live.get(run_id)
    last = 0
    for point in state.record(run_id).all_points():
        last = point.step
        yield point
    if live is not None:
        yield from (point for point in list(live.points) if point.step > last)


def diverged_at(state: ExperimentState, run_id: int) -> int | None:
    """The first step of which a run's loss or gradients were NaN or infinite, while they still are."""
    live = state.live.get(run_id)
    return (state.record(run_id).progress if live is None else live.progress).diverged_at


def can_lead(state: ExperimentState, run_id: int) -> bool:
    """Whether a run may be called the best.

    One that failed, diverged or was deleted may not, whatever it logged before.
    """
    out = (RunState.FAILED, RunState.DIVERGED, RunState.DELETED)
    return state.record(run_id).state not in out and diverged_at(state, run_id) is None


def best_runs(
    state: ExperimentState,
    metric: str | None,
    mode: str | None = None,
    among: Iterable[int] | None = None,
) -> dict[str, int]:
    """Ids of the runs with the best latest value, one for each scale on which the metric lies.

    The latest value rather than the best ever, so that a run is judged by the adapter that it has.

    Args:
        state: The experiment's state.
        metric: By which; None judges the runs of each method by its headline metric.
        mode: "min" or "max"; follows from the metric's name when None.
        among: Ids of the runs that are compared; all when None.
    """
    scored: dict[str, list[tuple[float, int]]] = {}
    for run_id in list(state.runs) if among is None else among:
        if not can_lead(state, run_id):
            continue
        config, latest = state.record(run_id).config, figures_of(state, run_id)
        name = headline([config.method], latest) if metric is None else metric
        cost = cost_of(latest.get(name), mode or direction(name))
        if math.isfinite(cost):
            scale = config.method if metric is None else scale_of(config, name)
            scored.setdefault(scale, []).append((cost, run_id))
    return best_of(scored)


def best_of(scored: Mapping[ScaleT, Sequence[tuple[float, int]]]) -> dict[ScaleT, int]:
    """Of costs and the runs that have them, for each scale the run with the lowest.

    The first of equals.
    """
    return {scale: min(pairs)[1] for scale, pairs in scored.items()}


def latest_metrics(state: ExperimentState, run_id: int) -> dict[str, float]:
    """The newest value of each metric of a run."""
    latest: dict[str, float] = {}
    for point in points_of(state, run_id):
        latest.update(point.metrics)
    return latest


def figures_of(state: ExperimentState, run_id: int) -> dict[str, float]:
    """The newest value of each metric of a run, and its speed."""
    return latest_metrics(state, run_id) | speed_of(state.record(run_id))


def shown_metrics(methods: Collection[str]) -> list[str]:
    """What is worth a place in one line: the headline metrics of these methods, and the losses."""
    names = [HEADLINES[method] for method in dict.fromkeys(methods) if method in HEADLINES]
    return list(
        dict.fromkeys(
            ["loss", "eval_loss", *(one for name in names for one in (name, f"eval_{name}"))]
        )
    )
