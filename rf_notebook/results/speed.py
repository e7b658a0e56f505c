"""How fast is a run, and what has it taken? Figures of the clock, which no replay gives again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rf_notebook.core.state import RunRecord


def speed_of(record: RunRecord) -> dict[str, float]:
    """A run's figures of SPEEDS, those that there are.

    Samples and tokens a second are of training alone, without evaluation and saving; in joint steps
    a run's seconds are its share of the time.
    """
    found: dict[str, float] = {}
    if record.train_seconds > 0 and record.progress.samples:
        rate = record.progress.samples / record.train_seconds
        found |= {"samples_per_second": rate, "train_seconds": record.train_seconds}
        tokens = _tokens_per_sample(record)
        if tokens is not None:
            found["tokens_per_second"] = tokens * rate
    if record.eval_seconds > 0:
        found["eval_seconds"] = record.eval_seconds
    written = record.generation_speed
    if written is not None:
        found["first_token_seconds"] = written.first_token_seconds
        if written.new_tokens > 1 and written.seconds > 0:
            found["generated_tokens_per_second"] = (written.new_tokens - 1) / written.seconds
    return found


def _tokens_per_sample(record: RunRecord) -> float | None:
    for points in reversed(record.points):
        for point in reversed(points):
            if "num_tokens" in point.metrics and point.samples:
                return point.metrics["num_tokens"] / point.samples
    return None
