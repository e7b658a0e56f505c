"""Runs in groups: their rows, their mean curves; and the runs that others are compared to."""

from __future__ import annotations

import numpy as np
import pytest

from rf_notebook.core.events import RunAdded
from rf_notebook.testing.fake_session import (
    FakeSession,
    config,
    many_runs,
    points,
    recorded_state,
    started,
    trained,
)
from rf_notebook.views.groups import SEEDS, groupings
from rf_notebook.views.series import CurveSettings, ExperimentSeries, binned
from rf_notebook.widgets.panel import Panel

LR = "training_args.learning_rate"
METRICS = ("loss", "eval_loss")


def seeded():
    """Two rates with two seeds each, and one rate with one."""
    events = [started()]
    for run_id, (rate, seed) in enumerate(
        [(1e-3, 1), (1e-3, 2), (1e-4, 1), (1e-4, 2), (1e-5, 1)], start=1
    ):
        events.append(RunAdded(run_id=run_id, config=config(learning_rate=rate, seed=seed)))
        events.append(trained(run_id, points(run_id, 40, metrics=METRICS)))
    return recorded_state(events)


@pytest.fixture
def fake():
    return FakeSession(seeded())


@pytest.fixture
def panel(fake):
    made = Panel(fake, fake)
    made.table.sort = ["run", False]
    return made


def rows(panel):
    """What is in the table: a run's number, or a group's title."""
    return [row.get("run", row.get("title")) for row in panel.table.rows]


def cell(panel, row, key):
    keys = [column["key"] for column in panel.table.columns]
    return panel.table.rows[row]["cells"][keys.index(key)]


def test_runs_are_grouped_by_a_knob_or_by_all_but_the_seed(panel):
    assert rows(panel) == [1, 2, 3, 4, 5]
    offered = [value for _, value in panel.grid.group_by.options]
    assert offered == ["", SEEDS, LR, "training_args.seed"]
    panel.grid.group_by.value = SEEDS
    assert rows(panel) == [
        "learning_rate 1e-3 (2)",
        1,
        2,
        "learning_rate 1e-4 (2)",
        3,
        4,
        "learning_rate 1e-5 (1)",
        5,
    ]
    panel.grid.group_by.value = "training_args.seed"
    assert rows(panel) == ["seed 1 (3)", 1, 3, 5, "seed 2 (2)", 2, 4]


def test_a_groups_row_has_the_common_value_or_the_mean_and_its_deviation(panel, fake):
    panel.grid.group_by.value = LR
    ends = [fake.recent_state.runs[i].points[-1][-1].metrics["eval_loss"] for i in (1, 2)]
    mean, deviation = np.mean(ends), np.std(ends, ddof=1)
    assert cell(panel, 0, LR) == "1e-3"
    assert cell(panel, 0, "training_args.seed") == ""
    assert cell(panel, 0, "eval_loss") == f"{mean:.4g} ± {deviation:.2g}"
    assert cell(panel, 0, "state") == "2 training"
    assert "±" not in cell(panel, 6, "eval_loss"), "of one run there is no deviation"


def test_groups_are_folded_and_sorted_by_their_means(panel):
    panel.grid.group_by.value = LR
    panel.grid.fold_all.click()
    panel.table.sort = ["eval_loss", False]
    assert rows(panel) == [f"learning_rate {rate}" for rate in ("1e-3 (2)", "1e-4 (2)", "1e-5 (1)")]
    panel.table.sort = ["eval_loss", True]
    assert rows(panel) == [f"learning_rate {rate}" for rate in ("1e-5 (1)", "1e-4 (2)", "1e-3 (2)")]
    panel.table.folded = panel.table.folded[1:]
    assert rows(panel).count("learning_rate 1e-3 (2)") == 1
    assert len(rows(panel)) > 3
    panel.table.sort = ["run", True]
    panel.grid.group_by.value = ""
    assert rows(panel) == [5, 4, 3, 2, 1]


def test_a_group_is_drawn_as_its_mean_in_a_band_and_selected_runs_beside_it(panel):
    panel.grid.group_by.value = LR
    traces = panel.curves.chart.frame["traces"]
    means = [trace for trace in traces if "meta" in trace]
    assert [trace["meta"]["members"] for trace in means] == [[1, 2], [3, 4], [5]]
    assert [trace["name"] for trace in traces if "meta" not in trace] == ["below", "above"] * 2
    assert traces.index(means[0]) == 4, "bands lie below all means"
    panel.table.selected = [3]
    drawn = [
        trace["meta"].get("run") for trace in panel.curves.chart.frame["traces"] if "meta" in trace
    ]
    assert drawn == [None, None, None, 3]
    panel.table.hidden = [1, 2]
    means = [
        t["meta"]["members"]
        for t in panel.curves.chart.frame["traces"]
        if "members" in t.get("meta", {})
    ]
    assert means == [[3, 4], [5]]


def test_the_mean_of_curves_is_that_of_the_lines_through_their_points():
    series = ExperimentSeries()
    state = seeded()
    series.update(state)
    settings = CurveSettings(metric="eval_loss", max_points=20)
    x_N, mean_N, deviation_N = series.mean([1, 2], settings)
    whole = [series.runs[i].xy("eval_loss", "samples") for i in (1, 2)]
    assert np.all(np.diff(x_N) > 0)
    width = (x_N[1] - x_N[0]) / 2
    for place in (0, 7, 19):
        fine = np.linspace(x_N[place] - width, x_N[place] + width, 4001)
        means = [np.trapezoid(np.interp(fine, *one), fine) / (2 * width) for one in whole]
        assert mean_N[place] == pytest.approx(np.mean(means), rel=1e-4)
        assert deviation_N[place] == pytest.approx(np.std(means, ddof=1), rel=1e-2)
    assert not series.mean([5], settings)[2].any()
    assert not len(series.mean([], settings)[0])
    assert not len(series.mean([1], CurveSettings(metric="nothing"))[0])


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_constant_is_its_own_mean_wherever_it_is(count):
    x_V = np.linspace(3.0, 9.0, count) if count > 1 else np.array([3.0])
    mean_N = binned(x_V, np.full(count, 2.5), np.linspace(0, 12, 13))
    there = np.isfinite(mean_N)
    assert there.any()
    assert np.allclose(mean_N[there], 2.5)
    assert not there[0]
    assert not there[-1]


def test_runs_that_ended_early_count_where_they_were():
    events = [started()]
    for run_id, count in ((1, 40), (2, 10)):
        events.append(RunAdded(run_id=run_id, config=config(learning_rate=1e-3, seed=run_id)))
        events.append(trained(run_id, points(run_id, count)))
    series = ExperimentSeries()
    series.update(recorded_state(events))
    x_N, mean_N, deviation_N = series.mean([1, 2], CurveSettings(metric="loss", max_points=40))
    alone_N = binned(*series.runs[1].xy("loss", "samples"), np.linspace(4, 160, 41))
    assert x_N[-1] > 150
    assert np.allclose(mean_N[-20:], alone_N[-20:])
    assert not deviation_N[-20:].any()
    assert deviation_N[:5].all()


def test_others_are_compared_to_the_baseline_and_kept_rows_come_first(panel, fake):
    panel.grid.do("baseline", 2)
    panel.grid.do("keep on top", 5)
    assert rows(panel) == [2, 5, 1, 3, 4]
    assert panel.table.rows[0]["mark"] == "⚑ baseline"
    assert "(" not in cell(panel, 0, "eval_loss")
    assert cell(panel, 2, "training_args.seed") == "1 (-1)"
    assert cell(panel, 2, LR) == "1e-3 (=)"
    loss = [fake.recent_state.runs[i].points[-1][-1].metrics["eval_loss"] for i in (1, 2)]
    assert cell(panel, 2, "eval_loss").endswith(f"({loss[0] - loss[1]:+.3g})")
    panel.grid.do("baseline", 2)
    panel.grid.do("keep on top", 5)
    assert rows(panel) == [1, 2, 3, 4, 5]


def test_what_runs_do_not_differ_in_groups_nothing():
    assert groupings([LR]) == [LR]
    assert groupings([]) == []
    fake = FakeSession(many_runs(1, 5))
    panel = Panel(fake, fake)
    assert [value for _, value in panel.grid.group_by.options] == [""]
