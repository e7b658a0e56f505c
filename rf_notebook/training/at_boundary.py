"""What does a run do at a boundary, outside its own course?

It is evaluated and answers prompts. Its state, logs and streams are as if nothing had happened.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from rf_notebook.core.run import Failure, Generation, GenerationSpeed
from rf_notebook.training.failures import failure_of
from rf_notebook.training.generation import generation_speed, sample_texts, texts_of
from rf_notebook.training.parked import StopTraining

if TYPE_CHECKING:
    from rf_notebook.core.run import MetricPoint, RunConfig
    from rf_notebook.core.values import Json
    from rf_notebook.training.memory_estimate import Need
    from rf_notebook.training.parked import ParkedRun
    from rf_notebook.training.resources import Resources


class StandingRun(Protocol):
    """What is needed of a run: see ``ActiveRun``."""

    run_id: int
    config: RunConfig
    parked: ParkedRun
    points: list[MetricPoint]
    notes: tuple[str, ...]
    need: Need | None

    @property
    def trainer(self) -> Any:
        """Trl's."""

    def inside(self) -> AbstractContextManager[None]:
        """Under the parked run's process state."""


class AtBoundary:
    """Of one run.

    What ends in ``_here`` is done under the process state that is installed.
    """

    def __init__(self, run: StandingRun, resources: Resources, *, evaluates: bool) -> None:
        """Nothing is done yet.

        Args:
            run: It stands at a boundary when something is asked.
            resources: What it shares with others.
            evaluates: Whether there is evaluation data.
        """
        self._run = run
        self._resources = resources
        self._evaluates = evaluates
        self._failure: Failure | None = None
        """Why the evaluation failed."""
        self._samples: tuple[Generation, ...] | None = None
        """None before they are written."""
        self._writes_no_samples = False
        self.eval_seconds = 0.0
        """Of evaluations since the last commit."""
        self.speed: GenerationSpeed | None = None
        """How fast the model writes, where that was measured since the last commit."""
        self._is_measured = False

    def leave(self) -> None:
        """What was done here is committed."""
        self._samples, self.eval_seconds, self.speed = None, 0.0, None

    @property
    def is_to_be_evaluated(self) -> bool:
        """Whether there is no evaluation of this step."""
        points, step = self._run.points, self._run.parked.step
        is_done = points and points[-1].step == step
        return self._evaluates and not (is_done and "eval_loss" in points[-1].metrics)

    @property
    def is_evaluated(self) -> bool:
        """Whether what comes next is to save the run."""
        return self._failure is None and not self.is_to_be_evaluated

    @property
    def is_to_write_samples(self) -> bool:
        """Whether there are no samples yet, and nothing speaks against them."""
        can_write = self._run.config.writes and not self._writes_no_samples
        is_asked = bool(self._resources.sample_prompts) and can_write
        return is_asked and self._samples is None and self._failure is None

    def evaluate(self) -> Failure | None:
        """Evaluate the run where that is not done. Returns why it failed."""
        if self._failure is None and self.is_to_be_evaluated:
            started = time.perf_counter()
            with self._run.inside():
                self.evaluate_here()
            self.eval_seconds += time.perf_counter() - started
        failure, self._failure = self._failure, None
        return failure

    def evaluate_here(self) -> None:
        """Evaluate the run; a failure is told by the result of its turn."""
        run = self._run
        try:
            run.trainer.evaluate_aside()
        except StopTraining:
            raise
        except BaseException as error:  # noqa: BLE001 - a failing metric is this run's failure, sys.exit() too
            self._failure = failure_of(error, run.config, need=run.need)

    def write_samples(self) -> tuple[Generation, ...]:
        """Let the run answer the sample prompts where that is not done. Returns the answers."""
        if self.is_to_write_samples:
            with self._run.inside():
                self.write_samples_here()
        if self._samples and not self._is_measured:
            with self._run.inside():
                self._measure(self._samples[0].prompt)
        return self._samples or ()

    def _measure(self, prompt: str) -> None:
        """Once a run: how fast its model writes does not change while it trains."""
        run, self._is_measured = self._run, True
        chat = self._resources.trainers.is_chat(run.config)
        is_over, model = self._resources.abandoned.is_set, run.trainer.model
        try:
            self.speed = generation_speed(
                model, run.trainer.processing_class, prompt, is_over, is_chat=chat
            )
        except StopTraining:
            raise
        except BaseException as error:  # noqa: BLE001 - as with the answers
            failure = failure_of(error, run.config)
            run.notes += (f"how fast run {run.run_id} writes was not measured: {failure.message}",)

    def write_samples_here(self) -> None:
        """Let the run answer the sample prompts. What fails here fails nothing."""
        run, resources = self._run, self._resources
        try:
            asked = resources.sample_prompts
            exchanges = resources.trainers.exchanges(run.config)
            rows = list(islice(exchanges, asked)) if isinstance(asked, int) else []
            prompts, texts = self._answers(asked, rows, {})
            words = [one.words for one in rows] if isinstance(asked, int) else asked
            expected = ["" if one.is_guess else one.expected for one in rows]
            self._samples = tuple(
                Generation(
                    prompt=prompt,
                    text=text,
                    asked="" if asked_for == prompt else asked_for,
                    expected=answer,
                )
                for prompt, text, asked_for, answer in zip(
                    prompts, texts, words, expected or [""] * len(texts), strict=True
                )
            )
        except StopTraining:
            raise
        except BaseException as error:  # noqa: BLE001 - answers are to look at; training does not need them
            self._writes_no_samples = True
            run.notes += (
                f"run {run.run_id} writes no samples: {failure_of(error, run.config).message}",
            )

    def texts(self, prompts: Sequence[str], settings: Mapping[str, Json]) -> list[str]:
        """What the run's model writes now.

        Args:
            prompts: What a user asks.
            settings: Arguments of ``generate``, and ``seed``.
        """
        run, resources = self._run, self._resources
        resources.bring_in(resources.trainers.modules_of(run.config), [run.run_id])
        with run.inside():
            return self.texts_here(prompts, settings)

    def texts_here(self, prompts: Sequence[str], settings: Mapping[str, Json]) -> list[str]:
        """As ``texts``."""
        return self._answers(prompts, (), settings)[1]

    def _answers(
        self, asked: int | Sequence[str], exchanges: Any, settings: Mapping[str, Json]
    ) -> tuple[list[str], list[str]]:
        run, resources = self._run, self._resources
        tokenizer, chat = run.trainer.processing_class, resources.trainers.is_chat(run.config)
        prompts = sample_texts(asked, exchanges, tokenizer, is_chat=chat)
        is_over, model = resources.abandoned.is_set, run.trainer.model
        return prompts, texts_of(model, tokenizer, prompts, settings, is_over, is_chat=chat)
