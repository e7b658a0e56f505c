"""Synchronous successive halving (Jamieson and Talwalkar, 2016).

After 1, 2, 4, ... chunks only the better half continues.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rf_notebook.automation.policy import (
    Decision,
    RunView,
    Stop,
    View,
    ranked,
    stop_diverged,
    sureness,
)
from rf_notebook.core.errors import ConfigError

_WAYS = ("samples", "fraction", "schedule")


class Halving:
    """Stops all but the best at chunk barriers; stopped runs are frozen, not deleted.

    Runs advance side by side, so at a barrier all have trained on equally many samples. Runs whose
    metrics cannot be compared (the losses of SFT and of DPO) are halved apart.

    Args:
        metric: By which runs are ranked.
        mode: "min" or "max"; follows from the metric's name when omitted.
        eta: One run in ``eta`` continues at each barrier.
        first: Chunks before the first barrier; the next ones come after ``first * eta``, ``first *
            eta**2``, ...
        keep: How many runs continue to their end.
        compare: "samples": all at equal samples. "fraction": all at an equal share of their own
            plans, for plans of different lengths (a rung is counted in chunks of the longest).
            "schedule": at equal samples, but runs of each kind of learning rate schedule by
            themselves, for one that decays looks worse than it is until it has.
        sure: Between 0.5 and 1: stop a run only when a paired bootstrap over what both logged is so
            sure that the last of those that continue is better; otherwise both continue, and the next
            boundary asks again.
    """

    def __init__(
        self,
        metric: str = "eval_loss",
        mode: str | None = None,
        eta: int = 2,
        first: int = 1,
        keep: int = 1,
        compare: str = "samples",
        sure: float | None = None,
    ) -> None:
        for name, value, least in (("eta", eta, 2), ("first", first, 1), ("keep", keep, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(
                    f"Halving({name}={value!r}): {name} must be a whole number of at least {least}."
                )
        if mode not in (None, "min", "max"):
            raise ConfigError(f"Halving(mode={mode!r}): mode is 'min' or 'max'.")
        if compare not in _WAYS:
            raise ConfigError(
                f"Halving(compare={compare!r}): there is no such way; use {', '.join(map(repr, _WAYS))}."
            )
        if sure is not None and not 0.5 <= sure <= 1:
            raise ConfigError(f"Halving(sure={sure!r}): sure must be between 0.5 and 1.")
        self.metric, self.mode, self.eta, self.first, self.keep = metric, mode, eta, first, keep
        self.compare, self.sure = compare, sure

    @property
    def name(self) -> str:
        """See Policy."""
        return "halving"

    @property
    def barrier(self) -> bool:
        """See Policy."""
        return True

    @property
    def watches(self) -> tuple[str, ...]:
        """See Policy."""
        return (self.metric,)

    def decide(self, view: View) -> Sequence[Decision]:
        """See Policy."""
        return [
            *stop_diverged(view),
            *(decision for runs in self._apart(view) for decision in self._halve(runs)),
        ]

    def waits_for(self, view: View) -> str:
        """See Policy."""
        for runs in self._apart(view):
            for stays, barrier, live in self._rungs(runs):
                late = [run.id for run in live if self._chunks(run, runs) < barrier]
                words = f"chunk {barrier}, after which {stays} of {len(live)} continue"
                return (
                    f"{words}; still to come there: {', '.join(f'run {i}' for i in late)}"
                    if late
                    else words
                )
        return "nothing more; those that are left train to their end"

    def _apart(self, view: View) -> list[list[RunView]]:
        """Runs that can be compared, group by group."""
        scales: dict[tuple[str, str], list[RunView]] = {}
        for run in view.runs.values():
            if not run.is_pinned and run.id not in view.given_back and run.may_log(self.metric):
                schedule = run.schedule if self.compare == "schedule" else ""
                scales.setdefault((run.scale(self.metric), schedule), []).append(run)
        return list(scales.values())

    def _rungs(self, runs: Sequence[RunView]) -> Iterable[tuple[int, int, list[RunView]]]:
        """For each rung to come: how many runs continue, after which chunk, and who is judged."""
        live = [run for run in runs if run.is_live and run.diverged_at is None]
        for rung in range(math.ceil(math.log(max(len(runs), 2), self.eta)) + 1):
            stays = max(self.keep, math.ceil(len(runs) / self.eta ** (rung + 1)))
            barrier = self.first * self.eta**rung
            if len(live) > stays and not self._is_too_late(barrier, live, runs):
                yield stays, barrier, live

    def _is_too_late(self, barrier: int, live: Sequence[RunView], runs: Sequence[RunView]) -> bool:
        if self.compare == "fraction":
            return 0 < _longest(runs) <= barrier
        return any(run.total_chunks and run.total_chunks <= barrier for run in live)

    def _chunks(self, run: RunView, runs: Sequence[RunView]) -> float:
        """That a run has trained; of the longest plan, when shares of plans are compared."""
        if self.compare != "fraction" or not run.total_chunks:
            return run.chunks
        return run.chunks / run.total_chunks * _longest(runs)

    def _halve(self, runs: Sequence[RunView]) -> Iterable[Decision]:
        for stays, barrier, live in self._rungs(runs):
            if any(self._chunks(run, runs) < barrier for run in live):
                return
            if self.compare == "fraction":
                share = barrier / _longest(runs)
                at = {run.id: math.ceil(share * run.total_samples) for run in live}
            else:
                at = dict.fromkeys((run.id for run in live), min(run.samples for run in live))
            has_figure = {run.id: run.value(self.metric, at[run.id]) is not None for run in live}
            if not any(has_figure.values()) or any(
                not has_figure[r.id] and not r.lacks(self.metric) for r in live
            ):
                return  # the figures are still to come, at a later boundary
            (order,) = ranked(live, self.metric, self.mode, at)
            last = order[stays - 1][1]
            for place, (_, run) in enumerate(order[stays:], start=stays + 1):
                how_sure = sureness(last, run, self.metric, self.mode, at[run.id])
                if (
                    self.sure is None
                    or how_sure >= self.sure
                    or run.value(self.metric, at[run.id]) is None
                ):
                    yield Stop(
                        run.id, self._reason(run, place, len(order), stays, at[run.id], how_sure)
                    )
            return

    def _reason(
        self, run: RunView, place: int, runs: int, stays: int, samples: int, how_sure: float
    ) -> str:
        value = run.value(self.metric, samples)
        figure = f"has no {self.metric}" if value is None else f"{self.metric} {value:.4g}"
        return f"{figure} after {samples} samples is number {place} of {runs} ({how_sure:.0%} sure); {stays} continue."


def _longest(runs: Sequence[RunView]) -> int:
    """Chunks of the longest plan."""
    return max(run.total_chunks for run in runs)
