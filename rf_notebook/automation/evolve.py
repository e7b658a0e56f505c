"""Population based training (Jaderberg et al., 2017).

The worst give way to changed copies of the best, which continue to learn.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rf_notebook.automation.policy import (
    Clone,
    Decision,
    Obeyed,
    RunView,
    Stop,
    View,
    divergence_words,
    ranked,
    stop_diverged,
)
from rf_notebook.automl.search_space import List, Range
from rf_notebook.core.errors import ConfigError

#: By which a number is multiplied or divided.
_FACTOR = 1.25


class Evolve:
    """Every few chunks, changed warm clones of the best runs take the places of the worst.

    A clone continues from its parent's adapter, so a line of clones has trained what its ancestors
    have, too; lines are compared, and end, at equal samples of the whole line. A clone's learning
    rate schedule begins again: a constant one suits best.

    Args:
        knobs: What changes, by dotted key: a ``Range`` (the parent's value times or divided by
            1.25, within it) or a ``List`` (a neighbour of the parent's value), as in
            ``{"learning_rate": Range(1e-5, 1e-2)}``.
        metric: By which runs are ranked.
        mode: "min" or "max"; follows from the metric's name when omitted.
        every: Chunks between two generations.
        share: Share of the population that gives way each time.
        seed: Makes the random changes.
    """

    def __init__(
        self,
        knobs: Mapping[str, List | Range],
        metric: str = "eval_loss",
        mode: str | None = None,
        *,
        every: int = 1,
        share: float = 0.25,
        seed: int = 0,
    ) -> None:
        if (
            not isinstance(knobs, Mapping)
            or not knobs
            or not all(isinstance(v, List | Range) for v in knobs.values())
        ):
            raise ConfigError(
                f"Evolve(knobs={knobs!r:.80}): give a Range or a List by the name of a knob, as in "
                "{'learning_rate': Range(1e-5, 1e-2)}."
            )
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ConfigError(
                f"Evolve(every={every!r}): every must be a whole number of at least 1."
            )
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 0.5:
            raise ConfigError(f"Evolve(share={share!r}): share must be above 0 and at most 0.5.")
        if mode not in (None, "min", "max"):
            raise ConfigError(f"Evolve(mode={mode!r}): mode is 'min' or 'max'.")
        self.knobs, self.metric, self.mode = dict(knobs), metric, mode
        self.every, self.share, self.seed = every, share, seed

    @property
    def name(self) -> str:
        """See Policy."""
        return "evolve"

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
        made = {
            e.made
            for e in view.history
            if isinstance(e, Obeyed) and e.by_policy and e.made is not None
        }
        over = [
            Stop(run.id, f"its line has trained {_line(run)} samples, as many as a whole plan.")
            for run in view.live
            if run.inherited
            and run.total_samples
            and _line(run) >= run.total_samples
            and run.id not in view.given_back
        ]
        ended = {stop.run for stop in over}
        populations: dict[str, list[RunView]] = {}
        for run in view.runs.values():
            if not run.is_pinned and run.id not in view.given_back and run.may_log(self.metric):
                populations.setdefault(run.scale(self.metric), []).append(run)
        generations = [
            one for runs in populations.values() for one in self._next_generation(runs, made, ended)
        ]
        decided = {*ended, *(one.run for one in generations if isinstance(one, Stop))}
        judged = {run.id for runs in populations.values() for run in runs}
        others = [
            stop for stop in stop_diverged(view) if stop.run not in judged
        ]  # they log something else
        return [*over, *generations, *(stop for stop in others if stop.run not in decided)]

    def _next_generation(
        self, runs: Sequence[RunView], made: set[int], ended: set[int]
    ) -> Iterable[Decision]:
        population = [run for run in runs if run.id not in made]
        replaced = max(1, int(len(population) * self.share))
        live = [run for run in runs if run.is_live and run.id not in ended]
        generation = sum(run.id in made for run in runs) // replaced + 1
        known = next((run for run in live if run.chunk_samples), None)
        if known is None:
            return
        barrier = round(generation * self.every * known.chunk_samples)
        if len(live) <= replaced or barrier >= known.total_samples:
            yield from _stops(run for run in live if run.diverged_at is not None)
            return
        if any(_line(run) < barrier for run in live) or len({run.chunks for run in live}) > 1:
            return
        # A clone whose line was beyond the barrier before it joined has no figure there: its newest
        # one counts.
        at = {
            run.id: barrier - run.inherited if run.inherited < barrier else run.samples
            for run in live
        }
        (order,) = ranked(live, self.metric, self.mode, at)
        healthy = [run for cost, run in order if math.isfinite(cost)]
        if not healthy:  # the figures are still to come, or nobody will have any
            yield from _stops(run for run in live if run.diverged_at is not None)
            return
        best = list(itertools.islice(itertools.cycle(healthy), replaced))
        stay, worst = (
            [run for _, run in order[: len(order) - replaced]],
            [run for _, run in order[len(order) - replaced :]],
        )
        yield from _stops(run for run in stay if run.diverged_at is not None)
        for place, (parent, run) in enumerate(zip(best, reversed(worst), strict=True)):
            value = run.value(self.metric, at[run.id])
            figure = f"has no {self.metric}" if value is None else f"{self.metric} {value:.4g}"
            if run.diverged_at is not None:
                figure = f"it diverged at step {run.diverged_at}, so it"
            yield Stop(
                run.id,
                f"generation {generation}: {figure} is among the worst {replaced} of {len(order)}.",
            )
            edits = self._changed(parent, random.Random(f"{self.seed}-{generation}-{place}"))
            yield Clone(
                parent.id,
                f"generation {generation}: run {parent.id} leads; run {run.id} made room.",
                edits,
                True,
            )

    def _changed(self, parent: RunView, rng: random.Random) -> dict[str, Any]:
        """Every knob a step away from the parent's."""
        edits = {}
        for knob, space in self.knobs.items():
            now = _value_of(parent.config, knob)
            if isinstance(space, Range):
                if isinstance(now, bool) or not isinstance(now, int | float):
                    edits[knob] = space.sample(rng)
                    continue
                moved = min(max(now * rng.choice([_FACTOR, 1 / _FACTOR]), space.start), space.end)
                edits[knob] = round(moved) if space.dtype == "int" else moved
            else:
                known = (
                    space.values.index(now)
                    if now in space.values
                    else rng.randrange(len(space.values))
                )
                edits[knob] = space.values[
                    min(max(known + rng.choice([-1, 1]), 0), len(space.values) - 1)
                ]
        return edits


def _stops(runs: Iterable[RunView]) -> Iterable[Stop]:
    return [Stop(run.id, divergence_words(run)) for run in runs]


def _line(run: RunView) -> int:
    """Samples that a run and those before it in its line have trained."""
    return run.inherited + run.samples


def _value_of(config: Mapping[str, Any], knob: str) -> Any:
    """By dotted key, or by a bare name of an argument."""
    section, dot, name = knob.rpartition(".")
    for place in [section] if dot else ["training_args", "peft_config"]:
        inner = config.get(place)
        if isinstance(inner, Mapping) and name in inner:
            return inner[name]
    return config.get(knob)
