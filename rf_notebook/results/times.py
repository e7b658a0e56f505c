"""How long will it take?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rf_notebook.planning.eta import Pace, remaining_seconds

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState


def etas(state: ExperimentState) -> dict[int, float]:
    """Wall seconds until each unfinished run is over, by id."""
    paces = []
    for record in state.ready():
        live = state.live.get(record.run_id)
        progress = record.progress if live is None else live.progress
        total = progress.total_samples or _total_samples(state)
        spent, trained = record.train_seconds + record.overhead_seconds, record.progress.samples
        paces.append(
            Pace(
                run_id=record.run_id,
                samples_left=max(total - progress.samples, 0),
                seconds_per_sample=spent / trained if trained else None,
            )
        )
    return remaining_seconds(paces, devices=max(1, len(state.devices)))


def _total_samples(state: ExperimentState) -> int:
    return max((record.progress.total_samples for record in list(state.runs.values())), default=0)
