"""Asynchronous halving (Li et al., 2020).

A run continues past a rung while it is among the best of those that came there.
"""

from __future__ import annotations

from collections.abc import Sequence

from rf_notebook.automation.policy import Decision, RunView, Stop, View, ranked, stop_diverged
from rf_notebook.core.errors import ConfigError


class AsyncHalving:
    """Like Halving, without barriers.

    Clones and runs that join later are judged when they come to a rung.

    Args:
        metric: By which runs are ranked.
        mode: "min" or "max"; follows from the metric's name when omitted.
        eta: One run in ``eta`` of those that came to a rung continues.
        first: Chunks before the first rung; the next ones come after ``first * eta``, ``first *
            eta**2``, ...
    """

    def __init__(
        self, metric: str = "eval_loss", mode: str | None = None, eta: int = 2, first: int = 1
    ) -> None:
        for name, value, least in (("eta", eta, 2), ("first", first, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigError(
                    f"AsyncHalving({name}={value!r}): {name} must be a whole number of at least {least}."
                )
        if mode not in (None, "min", "max"):
            raise ConfigError(f"AsyncHalving(mode={mode!r}): mode is 'min' or 'max'.")
        self.metric, self.mode, self.eta, self.first = metric, mode, eta, first

    @property
    def name(self) -> str:
        """See Policy."""
        return "async halving"

    @property
    def watches(self) -> tuple[str, ...]:
        """See Policy."""
        return (self.metric,)

    def decide(self, view: View) -> Sequence[Decision]:
        """See Policy."""
        decisions: list[Decision] = [*stop_diverged(view)]
        for run in view.live:
            rung = self._rung(run)
            is_left_alone = (
                run.diverged_at is not None
                or run.id in view.given_back
                or not run.may_log(self.metric)
            )
            if rung is None or is_left_alone:
                continue
            samples = round(rung * run.chunk_samples)
            came = [
                other
                for other in view.runs.values()
                if other.chunks >= rung
                and other.scale(self.metric) == run.scale(self.metric)
                and other.may_log(self.metric)
            ]
            if run.value(self.metric, samples) is None and not run.lacks(self.metric):
                continue  # its figure is still to come
            if all(other.value(self.metric, samples) is None for other in came):
                continue
            (order,) = ranked(came, self.metric, self.mode, samples)
            place = next(i for i, (_, other) in enumerate(order) if other.id == run.id)
            if len(came) >= self.eta and place >= max(1, len(came) // self.eta):
                decisions.append(
                    Stop(run.id, self._reason(run, rung, place + 1, len(came), samples))
                )
        return decisions

    def _rung(self, run: RunView) -> int | None:
        """The last rung that the run has come to, in chunks; none at its end."""
        rung = self.first
        if run.chunks < rung or run.chunks >= run.total_chunks:
            return None
        while rung * self.eta <= run.chunks:
            rung *= self.eta
        return rung

    def _reason(self, run: RunView, rung: int, place: int, came: int, samples: int) -> str:
        value = run.value(self.metric, samples)
        figure = f"has no {self.metric}" if value is None else f"{self.metric} {value:.4g}"
        return (
            f"{figure} after {rung} chunks is number {place} of the {came} runs that came so far."
        )
