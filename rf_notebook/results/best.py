"""Which run is the best? One answer, or a sentence that says why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rf_notebook.core.errors import ConfigError, UnknownRun
from rf_notebook.core.metrics import headline
from rf_notebook.core.redaction import brief
from rf_notebook.results.metrics import best_runs, diverged_at, figures_of

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState


def best_run(
    state: ExperimentState,
    metric: str | None,
    mode: str | None = None,
    among: Sequence[int] | None = None,
) -> int:
    """The id of the run with the best latest value of a metric.

    Never one that failed, diverged or was deleted.

    Args:
        state: The experiment's state.
        metric: The headline metric of the runs' method when None.
        mode: "min" or "max"; follows from the metric's name when None.
        among: Ids of the runs that are compared; all when None.

    Raises:
        UnknownRun: when no run has the metric, or none of those that have it can be the best.
        ConfigError: when the metric lies on several scales, such as the loss of SFT and of DPO.
    """
    if mode not in (None, "min", "max"):
        raise ConfigError(f"best(mode={mode!r}): mode is 'min' or 'max'.")
    if not isinstance(metric, str | None):
        raise ConfigError(f"best(metric={brief(metric)}): a metric is a name such as 'eval_loss'.")
    compared = sorted(state.runs) if among is None else list(among)
    logged = {run_id: figures_of(state, run_id) for run_id in compared}
    names = sorted({name for metrics in logged.values() for name in metrics})
    metric = metric or headline({state.record(run_id).config.method for run_id in compared}, names)
    found = best_runs(state, metric, mode, compared)
    if not found and metric in names:
        out = [run_id for run_id in compared if metric in logged[run_id]]
        told = ", ".join(f"run {run_id} {_standing(state, run_id)}" for run_id in out)
        raise UnknownRun(f"no run can be the best by {metric!r}: {told}.")
    if not found:
        raise UnknownRun(
            f"no run has the metric {metric!r} yet; there are: {', '.join(names) or 'none'}."
        )
    if len(found) > 1:
        raise ConfigError(
            f"{metric!r} of {' and '.join(found)} runs cannot be compared; say which runs are meant with among=[...]."
        )
    return next(iter(found.values()))


def _standing(state: ExperimentState, run_id: int) -> str:
    return str(state.record(run_id).state) if diverged_at(state, run_id) is None else "diverged"
