"""At which optimizer steps do a run's chunks end?

Chunks are counted in samples, so chunk k covers the same share of the data in every run whatever
its batch size. The step counts are those of ``transformers.Trainer``: a pass over ``rows`` rows in
batches of ``batch_size`` makes ``ceil(rows / batch_size)`` batches and ``ceil(batches /
accumulation)`` optimizer steps (at least one).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.run import MetricPoint, Progress


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run's whole course, fixed when its trainer has been built."""

    rows: int
    """Rows that the trainer's DataLoader goes through in one pass; fewer than ``examples`` when
    packed."""
    examples: int
    """Rows of the data as the user handed them in."""
    batch_size: int
    """Rows a micro-batch."""
    accumulation: int
    """Micro-batches an optimizer step."""
    total_steps: int
    """Optimizer steps in all."""
    num_chunks: int
    """Chunks a pass."""
    drop_last: bool = False
    repeats: int = 1
    """How often each row is part of a micro-batch: GRPO's generations times its iterations."""

    @cached_property
    def steps_per_pass(self) -> int:
        """Optimizer steps of one pass over the data."""
        return steps_per_pass(
            self.rows * self.repeats, self.batch_size, self.accumulation, drop_last=self.drop_last
        )

    def samples(self, step: int) -> int:
        """Examples of the user's data seen when ``step`` optimizer steps are done."""
        passes, rest = divmod(step, self.steps_per_pass)
        rows = passes * self.rows + min(
            rest * self.batch_size * self.accumulation // self.repeats, self.rows
        )
        return rows * self.examples // self.rows

    def epoch(self, step: int) -> float:
        """Passes done, with a fraction."""
        return self.samples(step) / self.examples

    @cached_property
    def total_samples(self) -> int:
        """Examples seen when all is done, each as often as it is trained on."""
        return self.samples(self.total_steps)

    @cached_property
    def total_chunks(self) -> int:
        """Chunks of the whole course; the last one may be short."""
        return max(1, math.ceil(self.total_samples * self.num_chunks / self.examples))

    def chunk_end(self, chunk: int) -> int:
        """The step at which chunk number ``chunk`` (from 1) ends.

        The first that has seen its samples.
        """
        if chunk >= self.total_chunks:
            return self.total_steps
        low, high = 0, self.total_steps
        while low < high:
            middle = (low + high) // 2
            if self.samples(middle) * self.num_chunks >= chunk * self.examples:
                high = middle
            else:
                low = middle + 1
        return low

    def chunks_done(self, step: int) -> int:
        """Chunks that are complete when ``step`` steps are done."""
        if step >= self.total_steps:
            return self.total_chunks
        return min(self.samples(step) * self.num_chunks // self.examples, self.total_chunks)

    def progress(self, step: int, *, diverged_at: int | None = None) -> Progress:
        """How far a run of this plan is after ``step`` optimizer steps.

        Args:
            step: Optimizer steps done.
            diverged_at: The first step whose loss or gradients were NaN or infinite.
        """
        return Progress(
            steps=step,
            samples=self.samples(step),
            epoch=self.epoch(step),
            chunks=self.chunks_done(step),
            total_steps=self.total_steps,
            total_samples=self.total_samples,
            total_chunks=self.total_chunks,
            diverged_at=diverged_at,
        )

    def next_boundary(self, step: int) -> int:
        """The step at which the chunk that follows ``step`` ends.

        Always beyond ``step`` unless the run is over.
        """
        return self.chunk_end(self.chunks_done(step) + 1)

    def chunk_of(self, step: int) -> int:
        """The chunk (from 1) that holds this step (from 1)."""
        return min(self.chunks_done(step - 1) + 1, self.total_chunks)

    def point(self, step: int, metrics: Mapping[str, float], *, at: float) -> MetricPoint:
        """What was logged after ``step`` optimizer steps.

        Args:
            step: Optimizer steps done.
            metrics: By name.
            at: When, in seconds since 1970.
        """
        return MetricPoint(
            step=step,
            samples=self.samples(step),
            epoch=self.epoch(step),
            chunk=self.chunk_of(max(step, 1)),
            metrics=metrics,
            at=at,
        )


def steps_per_pass(
    rows: int, batch_size: int, accumulation: int, *, drop_last: bool = False
) -> int:
    """Optimizer steps of one pass, as ``transformers.Trainer`` counts them."""
    batches = rows // batch_size if drop_last else math.ceil(rows / batch_size)
    return max(math.ceil(batches / accumulation), 1)


def check_num_chunks(
    num_chunks: int, *, rows: int, batch_size: int, accumulation: int, repeats: int = 1
) -> None:
    """Refuse more chunks a pass than there are optimizer steps a pass.

    Raises:
        ConfigError: with the numbers and the range that would do.
    """
    steps = steps_per_pass(rows * repeats, batch_size, accumulation)
    if not 1 <= num_chunks <= steps:
        accumulated = f" x {accumulation} accumulation steps" if accumulation > 1 else ""
        accumulated += f", {repeats} times each," if repeats > 1 else ""
        raise ConfigError(
            f"num_chunks={num_chunks} does not fit: {rows} examples in batches of {batch_size}{accumulated} make "
            f"{steps} optimizer steps a pass, so num_chunks must be between 1 and {steps}."
        )
