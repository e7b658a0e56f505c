"""Synchronous successive halving (Jamieson and Talwalkar, 2016): after 1, 2, 4, ... chunks only the better half goes on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rf_notebook.automation.policy import Decision, RunView, Stop, View, ranked, sureness
from rf_notebook.core.errors import ConfigError


class Halving:
    """Stops all but the best at chunk barriers; stopped runs are frozen, not deleted.

    Runs advance side by side, so at a barrier all have trained on equally many samples. Runs whose metrics cannot be
    compared (the losses of SFT and of DPO) are halved apart.

    Args:
        metric: By which runs are ranked.
        mode: "min" or "max"; follows from the metric's name when omitted.
        eta: One in so many goes on at each barrier.
        first: Chunks before the first barrier; the next ones come after ``first * eta``, ``first * eta**2``, ...
        keep: So many runs go on to their end.
        sure: Between 0.5 and 1: stop a run only when a paired bootstrap over what both logged is so sure that the last
            of those that go on is better; otherwise both go on, and the next boundary asks again.
    """

    def __init__(
        self,
        metric: str = "eval_loss",
        mode: str | None = None,
        eta: int = 2,
        first: int = 1,
        keep: int = 1,
        sure: float | None = None,
    ) -> None:
        for name, value, least in (("eta", eta, 2), ("first", first, 1), ("keep", keep, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(f"Halving({name}={value!r}): {name} must be a whole number of at least {least}.")
        if mode not in (None, "min", "max"):
            raise ConfigError(f"Halving(mode={mode!r}): mode is 'min' or 'max'.")
        if sure is not None and not 0.5 <= sure <= 1:
            raise ConfigError(f"Halving(sure={sure!r}): sure must be between 0.5 and 1.")
        self.metric, self.mode, self.eta, self.first, self.keep, self.sure = metric, mode, eta, first, keep, sure

    @property
    def name(self) -> str:
        """See Policy."""
        return "halving"

    def decide(self, view: View) -> Sequence[Decision]:
        """See Policy."""
        taking_part = [run for run in view.runs.values() if not run.is_pinned and run.id not in view.given_back]
        scales: dict[str, list[RunView]] = {}
        for run in taking_part:
            scales.setdefault(run.scale(self.metric), []).append(run)
        return [decision for runs in scales.values() for decision in self._halve(runs)]

    def _halve(self, runs: Sequence[RunView]) -> Iterable[Decision]:
        live = [run for run in runs if run.is_live]
        for rung in range(math.ceil(math.log(max(len(runs), 2), self.eta)) + 1):
            stays = max(self.keep, math.ceil(len(runs) / self.eta ** (rung + 1)))
            barrier = self.first * self.eta**rung
            if len(live) <= stays or any(run.total_chunks and run.total_chunks <= barrier for run in live):
                continue
            if any(run.chunks < barrier for run in live):
                return
            samples = min(run.samples for run in live)
            (order,) = ranked(live, self.metric, self.mode, samples)
            last = order[stays - 1][1]
            for place, (_, run) in enumerate(order[stays:], start=stays + 1):
                how_sure = sureness(last, run, self.metric, self.mode, samples)
                if self.sure is None or how_sure >= self.sure or run.value(self.metric, samples) is None:
                    yield Stop(run.id, self._reason(run, place, len(order), stays, samples, how_sure))
            return

    def _reason(self, run: RunView, place: int, runs: int, stays: int, samples: int, how_sure: float) -> str:
        value = run.value(self.metric, samples)
        figure = f"has no {self.metric}" if value is None else f"{self.metric} {value:.4g}"
        return f"{figure} after {samples} samples is number {place} of {runs} ({how_sure:.0%} sure); {stays} go on."
