"""Which checkpoints of a run stay on the disk?"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from rf_notebook.core.run import MetricPoint, SavedRun


class Keep(StrEnum):
    """The choices of ``run_fit(keep=...)``. The newest two always stay, so that a damaged one has one before it."""

    BEST = "best"
    """The newest two and the best."""
    LAST = "last"
    """The newest two."""
    ALL = "all"
    """Every one."""


def superseded(checkpoints: tuple[SavedRun, ...], points: Iterable[MetricPoint], keep: Keep) -> tuple[str, ...]:
    """Paths of the checkpoints that are not to stay.

    Args:
        checkpoints: Those in use, oldest first.
        points: All points of the run.
        keep: The policy. The best is the one with the lowest eval_loss, or loss without evaluation.
    """
    if keep is Keep.ALL:
        return ()
    stay = {saved.folder.path for saved in checkpoints[-2:]}
    if keep is Keep.BEST:
        best = _best(checkpoints, points)
        if best is not None:
            stay.add(best.folder.path)
    return tuple(saved.folder.path for saved in checkpoints if saved.folder.path not in stay)


def _best(checkpoints: tuple[SavedRun, ...], points: Iterable[MetricPoint]) -> SavedRun | None:
    by_step = {point.step: point.metrics for point in points}
    for metric in ("eval_loss", "loss"):
        scored = [
            (by_step[saved.folder.steps][metric], saved)
            for saved in checkpoints
            if metric in by_step.get(saved.folder.steps, {})
        ]
        if scored:
            return min(scored, key=lambda pair: pair[0])[1]
    return None
