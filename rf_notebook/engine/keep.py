"""Which checkpoints of a run stay on the disk?"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING

from rf_notebook.core.metrics import cost_of, direction, headline

if TYPE_CHECKING:
    from rf_notebook.core.run import MetricPoint, SavedRun


class Keep(StrEnum):
    """The choices of ``run_fit(keep=...)``.

    The newest two always stay, so that a damaged one has one before it.
    """

    BEST = "best"
    """The newest two and the best."""
    LAST = "last"
    """The newest two."""
    ALL = "all"
    """Every one."""


def superseded(
    checkpoints: tuple[SavedRun, ...], points: Iterable[MetricPoint], keep: Keep, method: str
) -> tuple[str, ...]:
    """Paths of the checkpoints that are not to stay.

    Args:
        checkpoints: Those in use, oldest first.
        points: All points of the run.
        keep: The policy.
        method: Of the run: its headline metric says which checkpoint is the best.
    """
    if keep is Keep.ALL:
        return ()
    stay = {saved.folder.path for saved in checkpoints[-2:]}
    if keep is Keep.BEST:
        best = _best(checkpoints, points, method)
        if best is not None:
            stay.add(best.folder.path)
    return tuple(saved.folder.path for saved in checkpoints if saved.folder.path not in stay)


def _best(
    checkpoints: tuple[SavedRun, ...], points: Iterable[MetricPoint], method: str
) -> SavedRun | None:
    by_step = {point.step: point.metrics for point in points}
    metrics = [by_step.get(saved.folder.steps, {}) for saved in checkpoints]
    name = headline([method], {name for logged in metrics for name in logged})
    costs = [cost_of(logged.get(name), direction(name)) for logged in metrics]
    lowest = min(costs, default=math.inf)
    return checkpoints[costs.index(lowest)] if math.isfinite(lowest) else None
