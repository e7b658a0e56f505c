"""The median rule (Golovin et al., 2017).

Whoever is worse than the others were on average, at equal samples, stops.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from rf_notebook.automation.policy import Decision, RunView, Stop, View, stop_diverged
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.metrics import direction


class MedianStop:
    """Stops a run whose best value is worse than the median of the others' averages.

    Both are taken up to the same number of samples.

    Args:
        metric: That is compared.
        mode: "min" or "max"; follows from the metric's name when omitted.
        after: Chunks that a run is left alone.
        others: Runs that have to have come as far, before anything is stopped.
    """

    def __init__(
        self, metric: str = "eval_loss", mode: str | None = None, after: int = 1, others: int = 3
    ) -> None:
        for name, value in (("after", after), ("others", others)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(
                    f"MedianStop({name}={value!r}): {name} must be a whole number of at least 1."
                )
        if mode not in (None, "min", "max"):
            raise ConfigError(f"MedianStop(mode={mode!r}): mode is 'min' or 'max'.")
        self.metric, self.mode, self.after, self.others = (
            metric,
            mode or direction(metric),
            after,
            others,
        )

    @property
    def name(self) -> str:
        """See Policy."""
        return "median"

    @property
    def watches(self) -> tuple[str, ...]:
        """See Policy."""
        return (self.metric,)

    def decide(self, view: View) -> Sequence[Decision]:
        """See Policy."""
        decisions: list[Decision] = [*stop_diverged(view)]
        for run in view.live:
            is_left_alone = run.diverged_at is not None or run.id in view.given_back
            reason = None if run.chunks <= self.after or is_left_alone else self._reason(run, view)
            if reason is not None:
                decisions.append(Stop(run.id, reason))
        return decisions

    def _reason(self, run: RunView, view: View) -> str | None:
        own = self._values(run, run.samples)
        averages = [
            statistics.fmean(values)
            for other in view.runs.values()
            if other.id != run.id
            and other.samples >= run.samples
            and other.scale(self.metric) == run.scale(self.metric)
            if (values := self._values(other, run.samples))
        ]
        if not own or len(averages) < self.others:
            return None
        best = min(own) if self.mode == "min" else max(own)
        median = statistics.median(averages)
        is_worse = best > median if self.mode == "min" else best < median
        if not is_worse:
            return None
        return (
            f"its best {self.metric} {best:.4g} after {run.samples} samples is worse than {median:.4g}, the median of "
            f"what {len(averages)} others had on average by then."
        )

    def _values(self, run: RunView, samples: int) -> list[float]:
        return [
            value for at, value in run.curve(self.metric) if at <= samples and math.isfinite(value)
        ]
