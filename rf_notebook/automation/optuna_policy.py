"""Optuna at the wheel: runs are trials.

The weak are stopped, and suggestions take the places of those that are over.

The study is a fold of the experiment's history, in its order, so that one that was killed continues
with the same study: samplers are asked, values reported and trials ended as they were before.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rf_notebook.automation.policy import (
    Boundary,
    Clone,
    Decision,
    RunView,
    Stop,
    View,
    beaten_words,
    divergence_words,
)
from rf_notebook.core.metrics import cost_of, dominates
from rf_notebook.core.run import FINISHED, RunState

if TYPE_CHECKING:
    import optuna

    from rf_notebook.automl.optuna_search import RFOptuna
    from rf_notebook.core.objects import Objects

#: Runs that have to have come as far before the median of them means something.
_OTHERS = 3


class OptunaPolicy:
    """One search's study at work."""

    def __init__(
        self,
        search: RFOptuna,
        objects: Objects,
        *,
        seed: int,
        data_seed: int | None,
        chunks_a_pass: int,
    ) -> None:
        """Nothing is asked before the first boundary.

        Args:
            search: Says what is searched, and is given the study.
            objects: Takes what JSON cannot hold.
            seed: The training's seed, for configs that set none.
            data_seed: The experiment's seed of the data's order.
            chunks_a_pass: ``num_chunks``.
        """
        self._search, self._objects = search, objects
        self._seeds: dict[str, Any] = {"seed": seed, "data_seed": data_seed}
        self._every = chunks_a_pass if search.granularity == "epoch" else 1
        self._given_back: set[int] = set()
        self._begin()

    @property
    def name(self) -> str:
        """See Policy."""
        return "optuna"

    @property
    def study(self) -> optuna.Study:
        """As it is now."""
        return self._study

    @property
    def watches(self) -> tuple[str, ...]:
        """See Policy."""
        return tuple(metric for metric, _ in self._search.objectives)

    def decide(self, view: View) -> Sequence[Decision]:
        """See Policy."""
        if len(view.history) < self._done or view.given_back != self._given_back:
            self._begin()  # what was undone does not end a trial
            self._given_back = view.given_back
        self._follow(view)
        decisions: list[Decision] = []
        for run in self._live(view):
            reason = (
                None if run.is_pinned or run.id in view.given_back else self._why_stop(run, view)
            )
            if reason is not None:
                decisions.append(Stop(run.id, reason))
        for stop in decisions:
            self._tell(stop.run, self._state.PRUNED)
        return [*decisions, *self._suggest(view, {one.run for one in decisions})]

    def waits_for(self, view: View) -> str:
        """See Policy."""
        live, tried = self._live(view), len(self._trials)
        return (
            f"the next chunk of {len(live)} runs; {tried} of {self._search.budget} trials are tried"
        )

    # ---- the fold

    def _begin(self) -> None:
        self._study = self._search.new_study()
        self._search.keep(self._study)
        self._trials: dict[int, optuna.trial.Trial] = {}
        """By run."""
        self._configs: dict[str, optuna.trial.Trial] = {}
        """Suggestions whose runs are still to come, by the digest of their config."""
        self._verdicts: dict[int, bool] = {}
        """What the study's own pruner said of each run last."""
        self._told: set[int] = set()
        self._done = 0
        self._has_begun = False

    def _follow(self, view: View) -> None:
        """Take in what happened since."""
        if not self._has_begun:
            self._has_begun = True
            self._bind_first(view)
        for event in view.history[self._done :]:
            if isinstance(event, Boundary):
                self._report(view.runs[event.run], event)
            elif event.made is not None:
                self._bind(
                    view.runs[event.made],
                    is_ours=event.by_policy,
                    seen=self._digests(view, event.made),
                )
            elif event.what == "stop" and event.by_policy and event.run not in view.given_back:
                self._tell(event.run, self._state.PRUNED)
        self._done = len(view.history)
        for run in view.runs.values():
            if run.state in (RunState.FAILED, RunState.DELETED):
                self._tell(run.id, self._state.FAIL)
        for trial in self._configs.values():  # their clones were refused
            self._study.tell(trial, state=self._state.FAIL)
        self._configs.clear()

    @property
    def _state(self) -> Any:
        from optuna.trial import TrialState

        return TrialState

    def _bind_first(self, view: View) -> None:
        """The first runs are the first suggestions, asked for again."""
        first = {run.run_config.digest(): run for run in view.runs.values() if run.parent is None}
        seen: set[str] = set()
        for _ in range(self._search.n_initial):
            asked = self._search.ask(self._study, self._objects, seen, **self._seeds)
            if asked is None:
                break
            trial, config = asked
            seen.add(config.digest())
            run = first.pop(config.digest(), None)
            if run is not None:
                self._take(run, trial)
            else:
                self._study.tell(trial, state=self._state.FAIL)

    def _bind(self, run: RunView, *, is_ours: bool, seen: set[str]) -> None:
        """A clone is a trial, too, when it lies inside of the search and starts from scratch."""
        if run.inherited or run.id in self._trials:
            return
        digest = run.run_config.digest()
        trial = self._configs.pop(digest, None)
        if (
            trial is None
            and self._search.parameters_of(run.run_config, self._objects, **self._seeds) is None
        ):
            return
        if trial is None and is_ours:  # asked for before a kill, and asked for again
            asked = self._search.ask(self._study, self._objects, seen, **self._seeds)
            if asked is not None and asked[1].digest() == digest:
                trial = asked[0]
            elif asked is not None:
                self._study.tell(asked[0], state=self._state.FAIL)
        if trial is None:
            trial = self._search.enqueue(self._study, run.run_config, self._objects, **self._seeds)
        if trial is not None:
            self._take(run, trial)

    def _take(self, run: RunView, trial: optuna.trial.Trial) -> None:
        self._trials[run.id] = trial
        trial.set_user_attr("run", run.id)

    def _report(self, run: RunView, at: Boundary) -> None:
        trial = self._trials.get(run.id)
        if trial is None or run.id in self._told:
            return
        values = self._values(run, at.samples)
        is_over = run.state in FINISHED and at.chunks == run.chunks
        if values is None:
            if is_over:
                self._tell(run.id, self._state.FAIL)
            return
        if len(values) == 1 and at.chunks % self._every == 0:
            trial.report(values[0], step=at.chunks)
            if not isinstance(self._search.pruner, str | None):
                self._verdicts[run.id] = trial.should_prune()
        if is_over and (run.state is RunState.DIVERGED or not all(map(math.isfinite, values))):
            self._tell(
                run.id, self._state.PRUNED
            )  # which samplers take for worse than whatever ended; FAIL tells them nothing
        elif is_over:
            self._told.add(run.id)
            self._study.tell(trial, values)

    def _tell(self, run_id: int, state: Any) -> None:
        trial = self._trials.get(run_id)
        if trial is not None and run_id not in self._told:
            self._told.add(run_id)
            self._study.tell(trial, state=state)

    # ---- decisions

    def _live(self, view: View) -> list[RunView]:
        return [run for run in view.runs.values() if run.is_live and run.id in self._trials]

    def _why_stop(self, run: RunView, view: View) -> str | None:
        pruner, now = self._search.pruner, self._values(run, run.samples)
        if pruner is None or now is None or not run.chunks or run.chunks % self._every:
            return None
        if run.diverged_at is not None:
            return divergence_words(run)
        if not all(map(math.isfinite, now)):
            return f"an objective is not a number after {run.samples} samples."
        others = [view.runs[other] for other in self._trials if other != run.id]
        if any(other.is_live and other.samples < run.samples for other in others):
            return None  # they have their turns first
        came = [
            (other, values)
            for other in others
            if other.samples >= run.samples
            and (values := self._values(other, run.samples)) is not None
            and all(map(math.isfinite, values))
        ]
        if len(now) > 1:
            return next(
                (
                    words
                    for other, values in came
                    if (words := self._beaten(other, values, run, now))
                ),
                None,
            )
        metric, direction = self._search.objectives[0]
        if not isinstance(pruner, str):
            pruned = self._verdicts.get(run.id, False)
            return (
                f"{type(pruner).__name__}: {metric} {now[0]:.4g} after {run.samples} samples."
                if pruned
                else None
            )
        if len(came) < _OTHERS:
            return None
        median = statistics.median(values[0] for _, values in came)
        is_worse = now[0] > median if direction == "minimize" else now[0] < median
        if not is_worse:
            return None
        return (
            f"{metric} {now[0]:.4g} after {run.samples} samples is worse than {median:.4g}, the median of "
            f"{len(came)} other runs there."
        )

    def _suggest(self, view: View, stopped: set[int]) -> Iterable[Decision]:
        """A new run for every place that is free, while the budget lasts."""
        taken = {run.id for run in self._live(view)} - stopped
        places = itertools.cycle([*sorted(stopped), *sorted(self._trials.keys() - taken - stopped)])
        free = min(self._search.n_initial - len(taken), self._search.budget - len(self._trials))
        seen = self._digests(view)
        for _ in range(free):
            asked = self._search.ask(self._study, self._objects, seen, **self._seeds)
            if asked is None:
                return
            trial, config = asked
            seen.add(config.digest())
            self._configs[config.digest()] = trial
            number = len(self._trials) + len(self._configs)
            chosen = ", ".join(
                f"{name.rpartition('.')[2]}={_short(value)}" for name, value in trial.params.items()
            )
            reason = f"trial {number} of {self._search.budget}: {chosen}."
            yield Clone(next(places), reason, config)

    def _digests(self, view: View, before: int | None = None) -> set[str]:
        """Of all configs that there are, or were before a run was made."""
        known = [run for run in view.runs.values() if before is None or run.id < before]
        return {run.run_config.digest() for run in known}

    def _values(self, run: RunView, samples: int) -> list[float] | None:
        """Values of the objectives after this many samples; None when one was not logged."""
        found = [run.value(metric, samples) for metric, _ in self._search.objectives]
        values = [value for value in found if value is not None]
        return values if len(values) == len(found) else None

    def _beaten(
        self, other: RunView, values: Sequence[float], run: RunView, now: Sequence[float]
    ) -> str | None:
        """Why a run is stopped, when another's objectives dominate its own."""
        modes = [
            "min" if direction == "minimize" else "max" for _, direction in self._search.objectives
        ]
        costs, own = (
            [cost_of(one, mode) for one, mode in zip(some, modes, strict=True)]
            for some in (values, now)
        )
        if not dominates(costs, own):
            return None
        words = beaten_words(other.id, "objectives", self.watches, costs, own)
        return f"{words} after {run.samples} samples."


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)[:40]
