"""Several metrics at once: whoever is off the Pareto front stops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rf_notebook.automation.policy import Decision, RunView, Stop, View, beaten_words, stop_diverged
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.metrics import cost_of, dominates


class KeepPareto:
    """Stops runs that another one dominates after equally many samples.

    In no metric worse and in one better.

    The rest is the Pareto front. Runs that are equal in every metric stay.

    Args:
        metrics: "min" or "max" by metric, two or more.
        after: Chunks that a run is left alone.
    """

    def __init__(self, metrics: Mapping[str, str], after: int = 1) -> None:
        if (
            not isinstance(metrics, Mapping)
            or len(metrics) < 2
            or set(metrics.values()) - {"min", "max"}
        ):
            raise ConfigError(
                f"KeepPareto(metrics={metrics!r:.80}): give 'min' or 'max' for two metrics or more, as in "
                "{'eval_loss': 'min', 'reward': 'max'}."
            )
        if isinstance(after, bool) or not isinstance(after, int) or after < 1:
            raise ConfigError(
                f"KeepPareto(after={after!r}): after must be a whole number of at least 1."
            )
        self.metrics, self.after = dict(metrics), after

    @property
    def name(self) -> str:
        """See Policy."""
        return "pareto"

    @property
    def watches(self) -> tuple[str, ...]:
        """See Policy."""
        return tuple(self.metrics)

    def decide(self, view: View) -> Sequence[Decision]:
        """See Policy."""
        decisions: list[Decision] = [*stop_diverged(view)]
        for run in view.live:
            if run.chunks < self.after or run.id in view.given_back or run.diverged_at is not None:
                continue
            reasons = (self._reason(other, run) for other in view.runs.values())
            reason = next((reason for reason in reasons if reason is not None), None)
            if reason is not None:
                decisions.append(Stop(run.id, reason))
        return decisions

    def _reason(self, other: RunView, run: RunView) -> str | None:
        """Why a run is off the front, when the other dominates it."""
        if other.id == run.id or other.samples < run.samples:
            return None
        own, others = (
            {name: one.value(name, run.samples) for name in self.metrics} for one in (run, other)
        )
        if any(own[name] is None or others[name] is None for name in self.metrics):
            return None
        if any(other.scale(name) != run.scale(name) for name in self.metrics):
            return None
        costs, own_costs = (
            [cost_of(values[n], mode) for n, mode in self.metrics.items()]
            for values in (others, own)
        )
        if not dominates(costs, own_costs):
            return None
        told = ", ".join(f"{name} {others[name]:.4g}" for name in self.metrics)
        words = beaten_words(other.id, "metrics", list(self.metrics), costs, own_costs)
        return f"{words} after {run.samples} samples: {told}."
