"""How fast runs are and what they took: in every place where a metric can be looked at or decided by."""

from __future__ import annotations

import math

import pytest

from rf_notebook import ConfigError
from rf_notebook.automation import KeepPareto
from rf_notebook.core.metrics import SPEEDS, direction
from rf_notebook.core.run import GenerationSpeed, MetricPoint, Progress, RunConfig
from rf_notebook.core.state import RunRecord
from rf_notebook.results.speed import speed_of
from rf_notebook.views.columns import columns_of
from rf_notebook.views.runs_table import runs_view
from rf_notebook.views.series import ExperimentSeries
from tests.api.world import fit, two


def record(**more):
    points = (
        MetricPoint(step=2, samples=4, epoch=0.2, chunk=1, metrics={"num_tokens": 80.0}),
        MetricPoint(step=3, samples=6, epoch=0.3, chunk=1, metrics={"loss": 1.0}),
    )
    config = RunConfig(method="SFT", model={}, peft={}, training={}, extras={})
    given = {"points": (points,), "progress": Progress(steps=5, samples=10), **more}
    return RunRecord(run_id=1, config=config, parent_id=None, edits={}, warm_start=None, **given)


def test_rates_are_of_training_alone_and_tokens_are_those_of_the_samples():
    found = speed_of(record(train_seconds=2.0, overhead_seconds=7.0, eval_seconds=3.0))
    assert found == {
        "samples_per_second": 5.0,
        "tokens_per_second": 100.0,  # 20 a sample, where they were logged last
        "train_seconds": 2.0,
        "eval_seconds": 3.0,
    }
    assert speed_of(record()) == {}
    written = GenerationSpeed(prompt_tokens=9, new_tokens=5, first_token_seconds=0.5, seconds=2.0)
    assert speed_of(record(generation_speed=written)) == {
        "first_token_seconds": 0.5,
        "generated_tokens_per_second": 2.0,
    }
    assert [direction(name) for name in SPEEDS] == ["max", "max", "min", "min", "max", "min"]


def test_they_are_in_tables_columns_and_the_best(new):
    experiment = fit(new(), two())
    experiment.wait()
    experiment.end()
    info = experiment.get_runs_info()
    assert set(SPEEDS) <= set(info.columns)
    assert (info.samples_per_second > 0).all()
    assert set(SPEEDS).isdisjoint(experiment.get_results().columns)
    rows = experiment.get_results(speed=True)
    assert rows.samples_per_second.notna().sum() == 2
    last = rows.groupby("run_id").tail(1).set_index("run_id")
    for run in experiment.runs:
        assert run.speed["samples_per_second"] == pytest.approx(last.samples_per_second[run.id])
    fastest = max(experiment.runs, key=lambda run: run.speed["samples_per_second"])
    assert experiment.best("samples_per_second").id == fastest.id
    series = ExperimentSeries()
    series.update(experiment.session.state)
    view = runs_view(experiment.session.state, series, "loss")
    columns = {c.key: c for c in columns_of(view.rows, [], series.metrics, "loss")}
    for key in ("samples/s", "tokens/s", "trained (s)", "evaluated (s)", "first token (s)"):
        assert key in columns
    shown = [columns["samples/s"].value(row) for row in view.rows]
    assert all(math.isfinite(value) for value in shown)


def test_policies_decide_by_them(new):
    experiment = fit(new(), two(num_train_epochs=3), num_chunks=2)
    experiment.automate(KeepPareto({"loss": "min", "samples_per_second": "max"}))
    experiment.wait()
    assert {str(run.state) for run in experiment.runs} <= {"completed", "stopped"}
    with pytest.raises(ConfigError, match="'samples_per_secnd', which no run will log"):
        experiment.automate(KeepPareto({"loss": "min", "samples_per_secnd": "max"}))
