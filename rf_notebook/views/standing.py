"""How does an experiment stand?

One kind and one sentence, for the panel's header, the sidebar and the status bar.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from rf_notebook.core.run import RunState
from rf_notebook.views.words import shortened

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState
    from rf_notebook.core.status import Status

_ERROR = 80


class Kind(StrEnum):
    """Of a standing."""

    ERROR = "error"
    PREPARING = "preparing"
    ELSEWHERE = "elsewhere"
    INTERRUPTED = "interrupted"
    ENDED = "ended"
    FAILED = "failed"
    """Nothing is left to train, and every run failed or diverged."""
    PAUSED = "paused"
    IDLE = "idle"
    TRAINING = "training"


@dataclass(frozen=True, slots=True)
class Standing:
    """How an experiment stands."""

    kind: Kind
    words: str


def standing(state: ExperimentState, status: Status) -> Standing:
    """The standing of an experiment."""
    if status.error:
        return Standing(
            Kind.ERROR,
            f"ended by an error, run its cell again to continue: {shortened(status.error, _ERROR)}",
        )
    if status.damage:
        return Standing(
            Kind.ERROR,
            "read only: its record is damaged; experiment.repair() continues before that",
        )
    if status.preparing:
        return Standing(Kind.PREPARING, "loading the libraries and checking the configs")
    if status.read_only:
        return Standing(Kind.ELSEWHERE, "read only: another kernel trains it")
    if not status.open:
        if state.ready():
            return Standing(Kind.INTERRUPTED, "not training; run its cell again to continue")
        return _over(state, Kind.ENDED, "ended")
    if status.paused:
        return Standing(Kind.PAUSED, "paused")
    if status.idle:
        return _over(state, Kind.IDLE, "all runs are over or stopped")
    execution = state.started.execution if state.started else "exact"
    return Standing(Kind.TRAINING, f"training · {execution}")


def _over(state: ExperimentState, kind: Kind, words: str) -> Standing:
    """Of an experiment in which nothing trains.

    What went wrong is said, and all that did looks like it.
    """
    states = [r.state for r in list(state.runs.values()) if r.state is not RunState.DELETED]
    lost = {one: states.count(one) for one in (RunState.FAILED, RunState.DIVERGED) if one in states}
    if not lost:
        return Standing(kind, words)
    if sum(lost.values()) < len(states):
        return Standing(
            kind, f"{words}: {', '.join(f'{count} {one}' for one, count in lost.items())}"
        )
    if len(lost) == 1:
        return Standing(
            Kind.FAILED,
            f"all runs {next(iter(lost))}" if len(states) > 1 else f"the run {next(iter(lost))}",
        )
    return Standing(
        Kind.FAILED,
        f"no run succeeded: {', '.join(f'{count} {one}' for one, count in lost.items())}",
    )
