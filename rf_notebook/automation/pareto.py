"""Several metrics at once: whoever is beaten in all of them stops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rf_notebook.automation.policy import Decision, RunView, Stop, View
from rf_notebook.core.errors import ConfigError


class KeepPareto:
    """Stops runs that another one beats in every metric after equally many samples; the rest is the Pareto front.

    Args:
        metrics: "min" or "max" by metric, two or more.
        after: Chunks that a run is left alone.
    """

    def __init__(self, metrics: Mapping[str, str], after: int = 1) -> None:
        if not isinstance(metrics, Mapping) or len(metrics) < 2 or set(metrics.values()) - {"min", "max"}:
            raise ConfigError(
                f"KeepPareto(metrics={metrics!r:.80}): give 'min' or 'max' for two metrics or more, as in "
                "{'eval_loss': 'min', 'reward': 'max'}."
            )
        if isinstance(after, bool) or not isinstance(after, int) or after < 1:
            raise ConfigError(f"KeepPareto(after={after!r}): after must be a whole number of at least 1.")
        self.metrics, self.after = dict(metrics), after

    @property
    def name(self) -> str:
        """See Policy."""
        return "pareto"

    def decide(self, view: View) -> Sequence[Decision]:
        """See Policy."""
        decisions: list[Decision] = []
        for run in view.live:
            if run.chunks < self.after or run.id in view.given_back:
                continue
            winner = next((other for other in view.runs.values() if self._beats(other, run)), None)
            if winner is not None:
                told = ", ".join(f"{name} {winner.value(name, run.samples):.4g}" for name in self.metrics)
                decisions.append(
                    Stop(run.id, f"run {winner.id} beats it in all metrics after {run.samples} samples: {told}.")
                )
        return decisions

    def _beats(self, other: RunView, run: RunView) -> bool:
        if other.id == run.id or other.samples < run.samples:
            return False
        for metric, mode in self.metrics.items():
            own, others = run.value(metric, run.samples), other.value(metric, run.samples)
            if own is None or others is None or other.scale(metric) != run.scale(metric):
                return False
            if not (others < own if mode == "min" else others > own):
                return False
        return True
