"""What does the sidebar show of a kernel's experiments?

One JSON object without ``None``, made from their states alone.

The twin of labextension/src/experiments.ts, which reads it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rf_notebook.core.metrics import direction
from rf_notebook.core.run import READY, RunState
from rf_notebook.jupyterlab.protocol import present
from rf_notebook.results.times import etas
from rf_notebook.session.cells import spec_digest
from rf_notebook.views.header import overall_progress
from rf_notebook.views.runs_filter import SHORT_NAMES
from rf_notebook.views.runs_table import runs_view
from rf_notebook.views.series import CurveSettings, ExperimentSeries
from rf_notebook.views.standing import standing
from rf_notebook.views.words import config_value, knob_name, shortened
from rf_notebook.widgets.controls import VERBS, why_not

#: The sidebar's buttons.
_VERBS = tuple(verb for verb in VERBS if verb != "label")

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState
    from rf_notebook.core.status import Status
    from rf_notebook.core.values import Json
    from rf_notebook.jupyterlab.protocols import Experiments, LabExperiment
    from rf_notebook.views.run_row import RunRow

#: Points of a sparkline, about.
_SPARK_POINTS = 16
_MOST_RUNS = 200
_KNOBS = 3
_WORDS = 60
_SENTENCE = 300


class ExperimentsView:
    """Makes the object.

    Keeps each experiment's series between two looks, so that a look costs what is new.
    """

    def __init__(self, experiments: Experiments) -> None:
        self._experiments = experiments
        self._series: dict[str, tuple[ExperimentState, ExperimentSeries]] = {}
        self._specs: dict[str, tuple[int, str | None]] = {}

    def now(self) -> dict[str, Json]:
        """As things stand."""
        known = list(self._experiments.known())
        self._series = {
            key: held
            for key, held in self._series.items()
            if key in {str(one.folder) for one in known}
        }
        made = {str(one.folder): self._one(one) for one in known}
        current = next((str(one.folder) for one in reversed(known)), None)
        return present(
            current=current,
            experiments=made,
            recorded={name: dict(found) for name, found in self._experiments.recorded().items()},
        )

    def _one(self, one: LabExperiment) -> dict[str, Json]:
        state, status = one.session.recent_state, one.session.status()
        held = self._series.get(str(one.folder))
        if held is None or held[0] is not state:
            held = self._series[str(one.folder)] = (state, ExperimentSeries())
        held[1].update(state)
        made = experiment_view(one.session.name, state, status, held[1])
        made.update(present(spec=self._spec(one, state), saved=one.saved_seq or None))
        sources = one.sources
        if sources is not None:
            made["sources"] = {"ran": list(sources.ran), "launch": sources.launch}
        return made

    def _spec(self, one: LabExperiment, state: ExperimentState) -> str | None:
        """The digest of what was asked, made again when runs were added."""
        key, version = str(one.folder), len(state.runs)
        held = self._specs.get(key)
        if held is None or held[0] != version:
            held = self._specs[key] = (version, spec_digest(state))
        return held[1]


def experiment_view(
    name: str, state: ExperimentState, status: Status, series: ExperimentSeries
) -> dict[str, Json]:
    """One experiment.

    Args:
        name: The experiment's name.
        state: The experiment's state.
        status: The experiment's status.
        series: Up to date.
    """
    view = runs_view(state, series, series.usual_metric)
    records = [state.runs[row.run_id] for row in view.rows]
    left = max(etas(state).values(), default=None)
    now = standing(state, status)
    rows = view.rows[:_MOST_RUNS]
    return present(
        name=shortened(name, 100),
        identity=state.started.identity if state.started else None,
        standing=str(now.kind),
        words=now.words,
        held_up=status.held_up,
        is_open=status.open,
        paused=status.paused,
        progress=round(overall_progress(records), 4),
        left_seconds=None if left is None else float(round(left)),
        active=sum(record.state in READY for record in records),
        failed=sum(record.state is RunState.FAILED for record in records),
        total=len(records),
        metric=None if view.metric is None else shortened(view.metric, _WORDS),
        direction=None if view.metric is None else direction(view.metric),
        runs={
            str(row.run_id): _run(
                row, row.run_id in view.best_runs, state, status, series, view.metric
            )
            for row in rows
        },
    )


def _run(
    row: RunRow,
    is_best: bool,
    state: ExperimentState,
    status: Status,
    series: ExperimentSeries,
    metric: str | None,
) -> dict[str, Json]:
    record = state.runs[row.run_id]
    knobs = [
        f"{SHORT_NAMES.get(knob_name(key), knob_name(key))} {config_value(value)}"
        for key, value in row.knobs.items()
    ]
    can = [verb for verb in _VERBS if why_not(verb, [row.run_id], state, status) is None]
    if record.failure is not None and record.failure.retry and status.open:
        can.append("retry")
    made = present(
        id=row.run_id,
        state=str(row.state),
        word=row.state_word,
        progress=round(row.progress, 4),
        value=_rounded(row.latest.get(metric)) if metric and not row.has_diverged else None,
        best=is_best,
        knobs=[shortened(knob, _WORDS) for knob in knobs[:_KNOBS]],
        parent=row.parent_id,
        warm=row.is_warm,
        error=None if row.error is None else shortened(row.error, _SENTENCE),
        can=can,
    )
    if metric:
        y_N = series.curve(row.run_id, CurveSettings(metric=metric, max_points=_SPARK_POINTS))[1]
        made["spark"] = [float(f"{y:.3g}") for y in y_N]
    return made


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")
