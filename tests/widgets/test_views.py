"""What the panel shows, as values: series, table, figures, pages, and the static twin."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.events import (
    Recorded,
    RunAdded,
    RunRolledBack,
    StateChanged,
)
from rf_notebook.core.run import MetricPoint, Progress, RunState, StoredFolder
from rf_notebook.core.status import Status
from rf_notebook.testing.fake_session import (
    FakeSession,
    config,
    many_runs,
    points,
    recorded_state,
    started,
    trained,
)
from rf_notebook.views import compare
from rf_notebook.views.curves import Emphasis, Figure, curves_figure
from rf_notebook.views.document import to_html
from rf_notebook.views.palette import colour, dash
from rf_notebook.views.plotly_figure import experiment_figure
from rf_notebook.views.runs_filter import filtered
from rf_notebook.views.runs_table import runs_table_frame, runs_view, sorted_rows
from rf_notebook.views.schedule import schedule
from rf_notebook.views.series import (
    CurveSettings,
    ExperimentSeries,
    RunSeries,
    smoothed,
    thinned,
    within,
)
from rf_notebook.views.words import config_value, duration, number, size
from rf_notebook.widgets.chart import changes
from rf_notebook.widgets.controls import allowed_runs, why_not
from rf_notebook.widgets.elements import STATIC
from tests.widgets.hostile import hostile_state

OPEN = Status(open=True)


def series_of(state):
    series = ExperimentSeries()
    series.update(state)
    return series


def view_of(state, metric="loss"):
    return runs_view(state, series_of(state), metric)


# ---- schedule


def test_turns_of_joint_steps_fill_the_time_that_they_took_and_no_more():
    joint = [
        replace(
            trained(run_id, points(run_id, 2)),
            fused_with=tuple({1, 2, 3, 4} - {run_id}),
            reward_seconds={"judge": 0.25},
        )
        for run_id in (1, 2, 3, 4)
    ]
    state = recorded_state(
        [started(), *(RunAdded(run_id=n, config=config()) for n in (1, 2, 3, 4))]
    )
    for one in joint:  # each took a quarter of the same ten seconds
        state.apply(Recorded(seq=state.last_seq + 1, at=2e9, event=one))
    assert {turn.began_at for turn in state.turns} == {2e9 - 10}
    shown = to_html(schedule(state))
    assert "10 s in all: 80.0% training, 20.0% evaluating" in shown
    assert "reward functions took: judge 1.0 s" in shown
    assert "its share of what 4 runs took together" in shown


# ---- series


def test_a_series_grows_by_what_is_new_and_live_points_are_not_doubled_when_they_are_committed():
    made = points(1, 30)
    series = RunSeries()
    series.update((), made[:10])
    series.update((), made[:17])
    series.update((made[:20],), made[20:25])
    series.update((made[:20], made[20:]), ())
    x, y = series.xy("loss", "step")
    assert list(x) == [p.step for p in made]
    assert list(y) == [p.metrics["loss"] for p in made]


def test_a_metric_that_joins_the_newest_step_later_is_taken_in():
    first = MetricPoint(step=1, samples=4, epoch=0.1, chunk=1, metrics={"loss": 2.0})
    later = MetricPoint(
        step=1, samples=4, epoch=0.1, chunk=1, metrics={"loss": 2.0, "eval_loss": 1.5}
    )
    series = RunSeries()
    series.update((), [first])
    series.update((), [later])
    assert series.latest("eval_loss") == 1.5
    assert list(series.xy("loss", "step")[1]) == [2.0]


def test_a_run_that_is_rolled_back_loses_the_points_that_are_trained_again():
    state = many_runs(1, 50)
    series = series_of(state)
    rolled = RunRolledBack(
        run_id=1, damaged="runs/1/1", progress=Progress(steps=20, samples=80), reason=""
    )
    from rf_notebook.core.events import Recorded

    state.apply(Recorded(seq=99, at=0.0, event=rolled))
    series.update(state)
    assert series.runs[1].xy("loss", "step")[0][-1] == 20


def test_thinning_keeps_the_ends_and_every_extreme():
    x = np.arange(10_000.0)
    y = np.sin(x / 50)
    y[1234], y[8000] = 9.0, -9.0
    few_x, few_y = thinned(x, y, 240)
    assert len(few_x) <= 240
    assert (few_x[0], few_x[-1]) == (0.0, 9999.0)
    assert (few_y.max(), few_y.min()) == (9.0, -9.0)
    assert 1234.0 in few_x
    assert 8000.0 in few_x
    assert np.all(np.diff(few_x) > 0)


def test_zooming_shows_more_detail_and_one_point_beyond_each_end():
    x = np.arange(100.0)
    inside, _ = within(x, x, 10.5, 20.5)
    assert list(inside) == list(np.arange(10.0, 22.0))
    state = many_runs(1, 9000)
    series = series_of(state)
    whole = series.curve(1, CurveSettings(metric="loss"))[0]
    part = series.curve(1, CurveSettings(metric="loss", x_range=(4000.0, 4800.0)))[0]
    assert np.median(np.diff(part)) < np.median(np.diff(whole)) / 5


def test_smoothing_is_tensorboards():
    y = np.array([1.0, 0.0, 4.0, 2.0])
    weight, last, expected = 0.6, 0.0, []
    for i, value in enumerate(y, start=1):
        last = last * weight + (1 - weight) * value
        expected.append(last / (1 - weight**i))
    assert np.allclose(smoothed(y, 0.6), expected, rtol=1e-12)


def test_values_that_are_no_numbers_leave_a_curve_but_stay_in_the_table():
    bad = MetricPoint(step=31, samples=124, epoch=0.3, chunk=1, metrics={"loss": math.nan})
    state = recorded_state([*_begin(), trained(1, [*points(1, 30), bad])])
    assert len(series_of(state).runs[1].xy("loss", "step")[0]) == 30
    (row,) = view_of(state).rows
    assert number(row.latest["loss"]) == "NaN"
    assert not view_of(state).best_runs


def _begin():
    from rf_notebook.core.events import RunAdded
    from rf_notebook.testing.fake_session import config, started

    return [started(), RunAdded(run_id=1, config=config())]


# ---- table


def test_the_table_shows_only_knobs_that_differ_and_marks_the_best():
    view = view_of(many_runs(4, 40))
    keys = [column.key for column in view.columns]
    assert "training_args.learning_rate" in keys
    assert "peft_config.r" in keys
    assert "training_args.seed" not in keys
    assert view.best_runs == {min(view.rows, key=lambda row: row.latest["loss"]).run_id}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr > 1e-4, r = 4", {2}),
        ("lr <= 1e-4", {2, 3}),
        ("run != 3", {1, 2, 4}),
        ("state ~ train", {1, 2, 3, 4}),
        ("queued", set()),
        ("", {1, 2, 3, 4}),
    ],
)
def test_filters(text, expected):
    state = many_runs(4, 10)
    for run_id, (rate, rank) in enumerate([(1e-2, 8), (1e-4, 4), (1e-5, 4), (1e-3, 16)], start=1):
        knobs = state.runs[run_id].config
        object.__setattr__(knobs, "training", {**knobs.training, "learning_rate": rate})
        object.__setattr__(knobs, "peft", {**knobs.peft, "r": rank})
    if text.startswith("lr >"):
        object.__setattr__(
            state.runs[2].config,
            "training",
            {**state.runs[2].config.training, "learning_rate": 2e-4},
        )
    assert filtered(view_of(state), text) == expected


def test_a_filter_of_no_column_names_those_that_there_are():
    with pytest.raises(ConfigError, match=r"'rank' is not a column; there are: run, state"):
        filtered(view_of(many_runs(2, 5)), "rank > 3")
    with pytest.raises(ConfigError, match="which is not a number"):
        filtered(view_of(many_runs(2, 5)), "r > large")


def test_sorting_puts_runs_without_a_value_last_in_both_directions():
    state = many_runs(3, 10)
    fresh = recorded_state([])
    fresh.runs.update(state.runs)
    from rf_notebook.core.state import RunRecord
    from rf_notebook.testing.fake_session import config

    fresh.runs[4] = RunRecord(run_id=4, config=config(), parent_id=None, edits={}, warm_start=None)
    view = view_of(fresh)
    for descending in (False, True):
        assert [row.run_id for row in sorted_rows(view, "loss", descending=descending)][-1] == 4
    assert [r.run_id for r in sorted_rows(view, "run", descending=True)] == [4, 3, 2, 1]


def test_the_status_table_is_a_frame():
    frame = runs_table_frame(many_runs(3, 10))
    assert list(frame.index) == [1, 2, 3]
    assert "learning_rate" in frame.columns


# ---- controls


def test_a_button_is_disabled_with_a_reason():
    state = many_runs(2, 10)
    assert why_not("stop", [], state, OPEN) == "select runs in the table to stop them"
    assert why_not("stop", [1], state, OPEN) is None
    assert "only a stopped run can be resumed" in why_not("resume", [1], state, OPEN)
    assert "select one run" in why_not("clone", [1, 2], state, OPEN)
    assert "run its cell again" in why_not("stop", [1], state, Status(open=False))
    assert why_not("export", [1], state, Status(open=False)) is None


def test_with_several_runs_a_button_acts_on_those_it_may():
    state = many_runs(3, 10)
    from rf_notebook.core.events import Recorded

    state.apply(Recorded(seq=100, at=0.0, event=StateChanged(run_id=2, state=RunState.STOPPED)))
    assert allowed_runs("stop", [1, 2, 3], state, OPEN) == [1, 3]
    assert allowed_runs("resume", [1, 2, 3], state, OPEN) == [2]


# ---- figures


def test_thirty_two_runs_of_ten_thousand_points_fit_into_a_hundred_kilobytes():
    state = many_runs(32, 10_000)
    figure = curves_figure(state, series_of(state), CurveSettings(metric="loss"))
    message, (x, y) = changes(Figure(), figure)
    assert len(x) + len(y) + len(json.dumps(message)) <= 100_000


def test_colours_are_stable_and_come_again_with_another_stroke():
    pairs = [(colour(run_id), dash(run_id)) for run_id in range(1, 65)]
    assert len(set(pairs)) == 64


def test_selected_runs_lie_on_top_and_hidden_ones_are_not_drawn():
    state = many_runs(4, 20)
    emphasis = Emphasis(selected=[2], hidden=[3])
    figure = curves_figure(state, series_of(state), CurveSettings(metric="loss"), emphasis=emphasis)
    assert [trace.props["meta"]["run"] for trace in figure.traces] == [1, 4, 2]
    assert figure.traces[-1].props["line"]["width"] == 3


def test_a_warm_clone_is_joined_to_its_parent_and_operations_are_marked():
    state = hostile_state()
    figure = curves_figure(state, series_of(state), CurveSettings(metric="loss"))
    assert not [t for t in figure.traces if t.props.get("hoverinfo") == "skip"], "it began anew"
    (clone,) = [record for record in state.runs.values() if record.parent_id is not None]
    adapter = StoredFolder(path="runs/8/warm_start-1.1", sha256="", steps=0, samples=0, bytes=0)
    state.runs[clone.run_id] = replace(clone, warm_start=adapter)
    figure = curves_figure(state, series_of(state), CurveSettings(metric="loss"))
    (connector,) = [t for t in figure.traces if t.props.get("hoverinfo") == "skip"]
    assert connector.x_N[0] == 40.0, "where the parent was when it was cloned"
    (marks,) = [t for t in figure.traces if t.props["name"] == "operations"]
    assert list(marks.x_N) == [40.0, 40.0]
    assert marks.props["marker"]["symbol"] == ["square", "diamond"]


def test_labels_at_the_ends_do_not_cover_each_other():
    state = many_runs(4, 20)
    for scale in (False, True):
        figure = curves_figure(
            state, series_of(state), CurveSettings(metric="loss"), log_scale=scale
        )
        labels = sorted(figure.layout["annotations"], key=lambda label: label["y"])
        values = np.concatenate([t.y_N for t in figure.traces if "meta" in t.props])
        values = np.log10(values) if scale else values
        places = [
            (a["y"] - values.min()) / (values.max() - values.min()) * 250 + a["yshift"]
            for a in labels
        ]
        assert len(places) == 4
        assert np.all(np.diff(places) > 11)


def test_the_front_holds_the_runs_that_no_other_beats_in_both():
    state = many_runs(4, 10, metrics=("loss", "accuracy"))
    view = view_of(state)
    front = compare.pareto_front(view.rows, "loss", "accuracy")
    for row in view.rows:
        beaten = any(
            other.latest["loss"] < row.latest["loss"]
            and other.latest["accuracy"] > row.latest["accuracy"]
            for other in view.rows
        )
        assert not (beaten and row in front)
    assert front
    assert compare.scatter_figure(view, "loss", compare.MEMORY).traces
    assert len(compare.parallel_figure(view, "loss").traces) == 4


def test_the_exported_figure_holds_every_point():
    figure = experiment_figure(many_runs(2, 3000), None, x="step", smoothing=0.0, log_scale=False)
    assert [len(trace.x) for trace in figure.data] == [3000, 3000]
    with pytest.raises(ConfigError, match="no run has it; there are: loss"):
        experiment_figure(many_runs(1, 5), "accuracy", x="step", smoothing=0.0, log_scale=False)


# ---- words


def test_words():
    assert [number(v) for v in (0.0, 1e-4, 123456.0, 0.84, None)] == [
        "0",
        "1e-4",
        "1.235e5",
        "0.84",
        "–",
    ]
    assert [config_value(v) for v in (1e-4, 0.1, ["a", "b"], True, {"$object": "f@12"})] == [
        "1e-4",
        "0.1",
        "a, b",
        "True",
        "f",
    ]
    assert [duration(v) for v in (4, 250, 7300, None)] == ["4 s", "4 m 10 s", "2 h 1 m", "–"]
    assert size(48e6) == "48 MB"


def test_the_fake_session_checks_edits_as_a_session_does():
    host = FakeSession(many_runs(2, 5))
    assert host.check_edits(1, {"learning_rate": 0.5})[1] == {"training_args.learning_rate": 0.5}


def test_a_page_keeps_no_plotly_of_another_version():
    version = (STATIC / "plotly-basic.min.js").read_text()[:200].split("minified) v")[1].split()[0]
    assert f"__rf_notebook_plotly_{version.replace('.', '_')}" in (STATIC / "chart.js").read_text()
