"""A callback in the style of RapidFire AI as a policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rf_notebook.automation.policy import Boundary, Clone, Decision, Policy, RunView, Stop, View
from rf_notebook.core.errors import ConfigError

if TYPE_CHECKING:
    from rf_notebook.automl.callbacks import Metrics

_METHODS = ("on_chunk_complete", "on_shard_complete")


def as_policy(given: Any) -> Policy:
    """A policy as it is, and a callback as a policy."""
    if not callable(getattr(given, "decide", None)) and any(
        callable(getattr(given, name, None)) for name in _METHODS
    ):
        return CallbackPolicy(given)
    policy: Policy = given
    return policy


class CallbackPolicy:
    """Tells a callback of every run and every chunk, in their order, and does what it decides.

    A callback may remember what it was told: when an experiment that was killed continues, it is told
    everything again from the beginning, and only what it decides of runs that still train is done.
    """

    def __init__(self, callback: Any) -> None:
        self._callback = callback
        self._registered: set[int] = set()
        self._told = 0
        """Entries of the history."""
        self._is_over = False

    @property
    def name(self) -> str:
        """See Policy."""
        return type(self._callback).__name__[:100]

    def decide(self, view: View) -> Sequence[Decision]:
        """See Policy."""
        new = {run.id: run.config for run in view.runs.values() if run.id not in self._registered}
        if new:
            self._registered.update(new)
            self._call("register_runs", new)
        live = {run.id for run in view.live} - view.given_back
        decisions: list[Decision] = []
        self._told = min(self._told, len(view.history))  # what was lost is told again
        for event in view.history[self._told :]:
            if isinstance(event, Boundary):
                decisions += self._ask(view.runs[event.run], event, live)
        self._told = len(view.history)
        if not live and not self._is_over and not any(run.is_live for run in view.runs.values()):
            self._is_over = True
            self._call(
                "finalize", {run.id: _metrics(run, run.samples) for run in view.runs.values()}
            )
        return decisions

    def _ask(self, run: RunView, at: Boundary, live: set[int]) -> list[Decision]:
        method = next(name for name in _METHODS if callable(getattr(self._callback, name, None)))
        decision = self._call(method, run.id, at.chunks - 1, _metrics(run, at.samples))
        action = getattr(decision, "action", None)
        if action not in ("continue", "prune"):
            raise ConfigError(
                f"{method} gave {decision!r:.80}; give RunDecision('continue') or RunDecision('prune')."
            )
        if action == "continue" or run.id not in live:
            return []
        live.discard(run.id)
        decisions: list[Decision] = [
            Stop(run.id, f"{self.name} pruned it after chunk {at.chunks}.")
        ]
        given = decision.replacement_config
        if given is not None:
            edits = (
                {k: v for k, v in given.items() if k != "trainer_type"}
                if isinstance(given, Mapping)
                else given
            )
            decisions.append(Clone(run.id, f"{self.name} replaced run {run.id}.", edits))
        return decisions

    def _call(self, name: str, *arguments: Any) -> Any:
        method = getattr(self._callback, name, None)
        return method(*arguments) if callable(method) else None


def _metrics(run: RunView, samples: int) -> Metrics:
    found: dict[str, list[tuple[int, float]]] = {}
    for point in run.points():
        if point.samples <= samples:
            for name, value in point.metrics.items():
                found.setdefault(name, []).append((point.step, value))
    return found
