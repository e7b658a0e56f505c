"""Rules that stop a run by what it does itself: no numbers, divergence, no progress, overfitting.

And budgets for all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rf_notebook.automation.policy import Decision, RunView, Stop, View, divergence_words
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.metrics import direction

_SECONDS_AN_HOUR = 3600.0


class StopRules:
    """Stops runs that fail one of the rules, and all runs when a budget is used up.

    Rules left out do not hold.

    Args:
        metric: What the rules on progress and divergence look at.
        mode: "min" or "max"; follows from the metric's name when omitted.
        on_nan: Stop a run that diverged: its loss, its gradients or the metric's newest value are
            NaN or infinite.
        diverges: Stop a run whose newest value is worse than this many times its best (2.0: twice the
            loss); for metrics above 0 of which less is better.
        patience: Stop a run whose metric has not become better for this many chunks.
        min_delta: By which a value has to be better to count.
        gap: Stop a run whose eval_loss lies so far above its lowest while its loss still falls: it
            overfits.
        max_samples: Of all runs together; no chunk is begun that would go beyond.
        max_seconds: Seconds of the device's time, over all runs.
        max_cost: The same as a cost, in the currency of ``cost_per_hour``.
        cost_per_hour: What an hour of the device costs.
    """

    def __init__(
        self,
        metric: str = "eval_loss",
        mode: str | None = None,
        *,
        on_nan: bool = True,
        diverges: float | None = None,
        patience: int | None = None,
        min_delta: float = 0.0,
        gap: float | None = None,
        max_samples: int | None = None,
        max_seconds: float | None = None,
        max_cost: float | None = None,
        cost_per_hour: float | None = None,
    ) -> None:
        if mode not in (None, "min", "max"):
            raise ConfigError(f"StopRules(mode={mode!r}): mode is 'min' or 'max'.")
        numbers = {
            "diverges": diverges,
            "patience": patience,
            "gap": gap,
            "max_samples": max_samples,
            "max_seconds": max_seconds,
            "max_cost": max_cost,
            "cost_per_hour": cost_per_hour,
        }
        for name, value in numbers.items():
            is_number = (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and math.isfinite(value)
            )
            if value is not None and not (is_number and value > 0):
                raise ConfigError(f"StopRules({name}={value!r}): {name} must be a number above 0.")
        if (max_cost is None) != (cost_per_hour is None):
            raise ConfigError(
                "StopRules needs max_cost and cost_per_hour together; give both or neither."
            )
        if diverges is not None and diverges <= 1:
            raise ConfigError(f"StopRules(diverges={diverges!r}): diverges must be above 1.")
        self._is_named = metric != "eval_loss"
        self.metric, self.mode = metric, mode or direction(metric)
        self.on_nan, self.diverges, self.patience, self.min_delta, self.gap = (
            on_nan,
            diverges,
            patience,
            min_delta,
            gap,
        )
        self.max_samples, self.max_seconds = max_samples, max_seconds
        self.max_cost, self.cost_per_hour = max_cost, cost_per_hour

    @property
    def name(self) -> str:
        """See Policy."""
        return "rules"

    @property
    def watches(self) -> tuple[str, ...]:
        """See Policy: what the rules need that were asked for."""
        named = (
            [self.metric]
            if self._is_named or self.diverges is not None or self.patience is not None
            else []
        )
        return (*named, *(("eval_loss", "loss") if self.gap is not None else ()))

    def decide(self, view: View) -> Sequence[Decision]:
        """See Policy."""
        used_up = self._budget(view)
        decisions: list[Decision] = []
        for run in view.live:
            own = None if run.id in view.given_back else self._reason(run)
            if used_up or own:
                decisions.append(Stop(run.id, used_up or own or ""))
        return decisions

    def is_spent(self, view: View) -> bool:
        """See Policy."""
        return self._budget(view) is not None

    def _budget(self, view: View) -> str | None:
        next_chunk = max((run.chunk_samples for run in view.runs.values()), default=0.0)
        if self.max_samples is not None and view.samples + next_chunk > self.max_samples:
            return f"a further chunk would go beyond the budget of {self.max_samples} samples; {view.samples} are trained."
        if self.max_seconds is not None and view.seconds >= self.max_seconds:
            return f"the budget of {self.max_seconds:g} s of the device is used up."
        if self.max_cost is not None and self.cost_per_hour is not None:
            cost = view.seconds / _SECONDS_AN_HOUR * self.cost_per_hour
            if cost >= self.max_cost:
                return f"the budget of {self.max_cost:g} is used up: {view.seconds:.0f} s at {self.cost_per_hour:g} an hour."
        return None

    def _reason(self, run: RunView) -> str | None:
        if self.on_nan and run.diverged_at is not None:
            return divergence_words(run)
        for metric in ("loss", self.metric) if self.on_nan else ():
            value = run.value(metric)
            if value is not None and not math.isfinite(value):
                return f"its {metric} is {value} after {run.samples} samples."
        curve = [(at, value) for at, value in run.curve(self.metric) if math.isfinite(value)]
        if not curve:
            return None
        return self._diverged(run, curve) or self._stands_still(run, curve) or self._overfits(run)

    def _diverged(self, run: RunView, curve: Sequence[tuple[int, float]]) -> str | None:
        best, newest = min(value for _, value in curve), curve[-1][1]
        if (
            self.diverges is None
            or self.mode != "min"
            or best <= 0
            or newest <= self.diverges * best
        ):
            return None
        return f"its {self.metric} {newest:.4g} is {newest / best:.2g} times its best, {best:.4g}."

    def _stands_still(self, run: RunView, curve: Sequence[tuple[int, float]]) -> str | None:
        if self.patience is None or not run.chunks:
            return None
        sign = 1.0 if self.mode == "min" else -1.0
        best_at, best = curve[0]
        for at, value in curve[1:]:
            if sign * value < sign * best - self.min_delta:
                best_at, best = at, value
        waited = (run.samples - best_at) / (run.samples / run.chunks)
        if waited < self.patience:
            return None
        return f"its {self.metric} has not been better than {best:.4g} for {waited:.3g} chunks."

    def _overfits(self, run: RunView) -> str | None:
        evaluated = [value for _, value in run.curve("eval_loss") if math.isfinite(value)]
        trained = [value for _, value in run.curve("loss") if math.isfinite(value)]
        if self.gap is None or len(evaluated) < 2 or len(trained) < 2:
            return None
        risen = evaluated[-1] - min(evaluated)
        if risen < self.gap or trained[-1] >= trained[0]:
            return None
        return f"its eval_loss {evaluated[-1]:.4g} lies {risen:.3g} above its lowest while its loss fell to {trained[-1]:.4g}."
