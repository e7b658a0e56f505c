"""What diverged is never kept, what nobody logs decides nothing, and the front is one notion."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from rf_notebook.automation import (
    AsyncHalving,
    Evolve,
    Halving,
    KeepPareto,
    MedianStop,
    Policies,
    Stop,
    StopRules,
)
from rf_notebook.automation.policy import View
from rf_notebook.automl import Range
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.events import ExperimentStarted
from rf_notebook.core.run import MetricPoint, Progress, RunState
from rf_notebook.core.state import ExperimentState, RunRecord
from rf_notebook.engine.autopilot import Autopilot
from rf_notebook.results.decisions import decisions_of
from rf_notebook.results.metrics import best_runs, can_lead
from rf_notebook.testing.fake_runner import fake_config
from rf_notebook.views.compare import pareto_front
from rf_notebook.views.runs_table import runs_view, sorted_rows
from rf_notebook.views.series import ExperimentSeries
from tests.automation.test_policies import apply, automated, notes, runs, states

KNOBS = {"learning_rate": Range(0.01, 0.9)}
POLICIES = {
    "halving": lambda: Halving("loss"),
    "a halving that keeps two": lambda: Halving("loss", keep=2),
    "async halving": lambda: AsyncHalving("loss"),
    "median": lambda: MedianStop("loss"),
    "evolve": lambda: Evolve(KNOBS, "loss"),
    "rules": lambda: StopRules("loss"),
}


def with_diverging(count, *diverging, at=3):
    return [
        replace(one, training={**one.training, "diverges_at": at}) if number in diverging else one
        for number, one in enumerate(runs(count), start=1)
    ]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("diverging", [(8,), (1, 2), (1, 2, 3, 4, 5, 6)])
def test_no_policy_keeps_a_run_that_diverged(tmp_path, policy, diverging):
    world = automated(tmp_path, POLICIES[policy](), with_diverging(8, *diverging), num_chunks=8)
    world.finish()
    lost = {run_id: states(world)[run_id] for run_id in diverging}
    assert set(lost.values()) == {"stopped"}
    reasons = {one.run_id: one.reason for one in decisions_of(world.state)}
    assert all("diverged at step 3" in reasons[run_id] for run_id in diverging)
    healthy = set(states(world)) - set(diverging)
    stopped_late = [
        run_id for run_id in healthy if "as many as a whole plan" in reasons.get(run_id, "")
    ]
    assert stopped_late or any(states(world)[run_id] == "completed" for run_id in healthy)
    assert not any("has no loss" in reason for reason in reasons.values())
    assert not {one.run_id for one in decisions_of(world.state) if one.what == "clone"} & set(
        diverging
    ), "no parents"


@pytest.mark.parametrize("policy", POLICIES)
def test_where_all_diverge_all_stop_and_nothing_else_happens(tmp_path, policy):
    world = automated(tmp_path, POLICIES[policy](), with_diverging(4, 1, 2, 3, 4))
    world.finish()
    assert set(states(world).values()) == {"stopped"}
    assert not best_runs(world.state, "loss")


def test_rules_that_are_told_so_leave_a_diverged_run_alone(tmp_path):
    world = automated(tmp_path, StopRules("loss", on_nan=False), with_diverging(2, 1))
    world.finish()
    assert states(world) == {1: "diverged", 2: "completed"}
    assert [text for text in notes(world) if "diverged" in text] == [
        "run 1 diverged at step 3: its loss or gradients are NaN or infinite"
    ]


def test_what_diverged_leads_nowhere_and_comes_last(tmp_path):
    world = automated(tmp_path, StopRules("loss", on_nan=False), with_diverging(3, 2))
    world.finish()
    state, series = world.state, ExperimentSeries()
    # Whatever it had logged before: here the best figure of all, in another metric.
    good = MetricPoint(
        step=1, samples=1, epoch=0.1, chunk=1, metrics={"eval_loss": -1.0, "loss": -1.0}
    )
    state.runs[2] = replace(state.runs[2], points=((good,),))
    state.runs[1] = replace(
        state.runs[1], points=(*state.runs[1].points, (replace(good, metrics={"eval_loss": 3.0}),))
    )
    series.update(state)
    assert not can_lead(state, 2)
    assert best_runs(state, "eval_loss") == {"SFT": 1}
    for metric, mode in (("loss", "min"), ("loss", "max"), ("eval_loss", "min")):
        assert 2 not in best_runs(state, metric, mode).values()
        view = runs_view(state, series, metric)
        assert 2 not in view.best_runs
        for descending in (False, True):
            order = [
                row.run_id
                for row in sorted_rows(view, metric, descending=descending)
                if metric in row.latest
            ]
            assert order[-1] == 2
    (row,) = [row for row in view.rows if row.run_id == 2]
    assert (row.state, row.state_word) == (RunState.DIVERGED, "diverged at step 3")


# ---- metrics that nobody logs


def test_a_metric_that_never_appears_ends_the_policy_and_no_run(tmp_path):
    for number, policy in enumerate(
        [
            Halving("f1"),
            AsyncHalving("f1"),
            MedianStop("f1"),
            Evolve(KNOBS, "f1"),
            KeepPareto({"f1": "max", "loss": "min"}),
            StopRules("f1", patience=1),
        ]
    ):
        world = automated(tmp_path / str(number), policy, runs(4))
        world.finish()
        assert set(states(world).values()) == {"completed"}
        assert notes(world) == [
            f"the policy {policy.name} was stopped: no run logs 'f1'. There are: loss."
        ]
        assert world.state.policy is None


def test_of_several_policies_only_the_one_that_decides_by_it_ends(tmp_path):
    world = automated(
        tmp_path, Policies([Halving("f1"), StopRules("loss", max_samples=128)]), runs(4)
    )
    world.finish()
    assert "halving + rules was stopped: no run logs 'f1'" in notes(world)[0]
    assert notes(world)[0].endswith("rules continues.")
    assert set(states(world).values()) == {"stopped"}, "the budget still holds"


def test_figures_that_are_still_to_come_are_waited_for():
    """The losses of the first chunk are not logged yet.

    Who is stopped must not be a matter of the run's number.
    """
    state = ExperimentState()
    for run_id in range(1, 5):
        progress = Progress(
            steps=4, samples=8, chunks=1, total_steps=32, total_samples=64, total_chunks=8
        )
        state.runs[run_id] = RunRecord(
            run_id=run_id,
            config=fake_config(),
            parent_id=None,
            edits={},
            warm_start=None,
            state=RunState.RUNNING,
            progress=progress,
        )
    for policy in (
        Halving("loss"),
        AsyncHalving("loss"),
        MedianStop("loss"),
        Evolve(KNOBS, "loss"),
    ):
        assert list(policy.decide(View(state))) == []
    assert Autopilot(Halving("loss"), apply).missing(state) == {}


@pytest.mark.parametrize(
    ("policy", "evaluates", "sentence"),
    [
        (
            Halving("evl_loss"),
            True,
            r"Halving decides by 'evl_loss', which no run will log; did you mean 'eval_loss'\? ",
        ),
        (
            Halving(),
            False,
            "Halving decides by 'eval_loss' but run_fit has no eval_dataset; give one",
        ),
        (
            MedianStop("reward"),
            True,
            "MedianStop decides by 'reward', which no run will log; .*There will be: eval_loss",
        ),
        (Evolve(KNOBS, "accuracy"), True, "Evolve decides by 'accuracy'"),
        (AsyncHalving("lss"), True, "AsyncHalving decides by 'lss'"),
        (KeepPareto({"loss": "min", "rouge": "max"}), True, "KeepPareto decides by 'rouge'"),
        (
            StopRules(patience=2),
            False,
            "StopRules decides by 'eval_loss' but run_fit has no eval_dataset",
        ),
        (
            StopRules(gap=0.1),
            False,
            "StopRules decides by 'eval_loss' but run_fit has no eval_dataset",
        ),
        (StopRules("los"), True, "StopRules decides by 'los'"),
        (Policies([StopRules(), Halving("lss")]), True, "Halving decides by 'lss'"),
    ],
)
def test_a_metric_that_no_run_will_log_is_refused_with_those_that_there_will_be(
    policy, evaluates, sentence
):
    with pytest.raises(ConfigError, match=sentence):
        Autopilot(policy, apply).check([fake_config()], evaluates=evaluates, sources={})


def test_metrics_of_the_users_own_are_taken_on_trust():
    config = replace(fake_config(), extras={"compute_metrics": {"$object": "rouge@1"}})
    assert Autopilot(Halving("eval_rouge"), apply).check([config], evaluates=True, sources={}) == []
    with pytest.raises(ConfigError, match="rouge"):
        Autopilot(Halving("rouge"), apply).check([config], evaluates=True, sources={})
    rewards = {"reward_funcs": [{"$object": "cell.good@1"}, {"$object": "logs@2"}]}
    config = replace(fake_config(), method="GRPO", extras=rewards)
    sources = {
        "cell.good@1": "def good(): ...",
        "logs@2": "def logs(log_metric, **kwargs): log_metric('x', 1.0)",
    }
    assert (
        Autopilot(Halving("x", "max"), apply).check([config], evaluates=False, sources=sources)
        == []
    )
    assert (
        Autopilot(Halving("rewards/good/mean"), apply).check(
            [config], evaluates=False, sources=sources
        )
        == []
    )
    del sources["logs@2"]
    config = replace(config, extras={"reward_funcs": {"$object": "cell.good@1"}})
    for wrong in ("x", "rewards/god/mean"):
        with pytest.raises(ConfigError, match="which no run will log"):
            Autopilot(Halving(wrong, "max"), apply).check(
                [config], evaluates=False, sources=sources
            )


def test_a_policy_that_ranks_grpo_runs_by_their_loss_is_told_what_ranks_them():
    config = replace(fake_config(), method="GRPO", extras={"reward_funcs": {"$object": "good@1"}})
    told = Autopilot(Halving(), apply).check(
        [config], evaluates=True, sources={"good@1": "def good(): ..."}
    )
    assert told == [
        "Halving decides by eval_loss, which does not say how good a GRPO run is; eval_reward does."
    ]


def test_runs_that_never_log_a_metric_are_not_judged_by_it(tmp_path):
    """A reward of GRPO runs: SFT runs beside them go on."""
    state = ExperimentState()
    state.started = ExperimentStarted(
        name="x",
        identity="1",
        num_chunks=4,
        seed=1,
        data_seed=None,
        execution="exact",
        keep="best",
        data={"train": {}, "eval": None},
        versions={},
    )
    for run_id, (method, reward) in enumerate(
        [("SFT", None), ("GRPO", 1.0), ("SFT", None), ("GRPO", 2.0)], start=1
    ):
        metrics = {"loss": 1.0} if reward is None else {"loss": 0.0, "reward": reward}
        state.runs[run_id] = RunRecord(
            run_id=run_id,
            config=replace(fake_config(), method=method),
            parent_id=None,
            edits={},
            warm_start=None,
            state=RunState.RUNNING,
            progress=Progress(
                steps=4, samples=8, chunks=1, total_steps=32, total_samples=64, total_chunks=8
            ),
            points=((MetricPoint(step=4, samples=8, epoch=0.5, chunk=1, metrics=metrics),),),
        )
    for policy in (Halving("reward"), AsyncHalving("reward"), Evolve(KNOBS, "reward")):
        assert {one.run for one in policy.decide(View(state)) if isinstance(one, Stop)} == {2}
    state.runs[1] = replace(state.runs[1], progress=replace(state.runs[1].progress, diverged_at=3))
    for policy in (
        Halving("reward"),
        AsyncHalving("reward"),
        KeepPareto({"reward": "max", "loss": "min"}),
    ):
        assert 1 in {one.run for one in policy.decide(View(state)) if isinstance(one, Stop)}, (
            "unless they diverged"
        )


# ---- the front


@pytest.mark.parametrize(
    ("figures", "off"),
    [
        ({1: (1.0, 0.0), 2: (2.0, 0.0), 3: (3.0, 0.0)}, {2, 3}),  # ROUGE is 0 early
        ({1: (1.0, 0.0), 2: (1.0, 0.0)}, set()),
        ({1: (1.0, 0.0), 2: (1.0, 1.0)}, {1}),
        ({1: (1.0, 0.0), 2: (2.0, 1.0)}, set()),
        ({1: (1.0, math.nan), 2: (2.0, 1.0), 3: (2.0, 0.5)}, {3}),
    ],
)
def test_policy_and_panel_have_one_front(figures, off):
    state, series = ExperimentState(), ExperimentSeries()
    for run_id, (loss, rouge) in figures.items():
        state.runs[run_id] = RunRecord(
            run_id=run_id,
            config=fake_config(),
            parent_id=None,
            edits={},
            warm_start=None,
            state=RunState.RUNNING,
            progress=Progress(
                steps=4, samples=8, chunks=1, total_steps=32, total_samples=64, total_chunks=8
            ),
            points=(
                (
                    MetricPoint(
                        step=4,
                        samples=8,
                        epoch=0.5,
                        chunk=1,
                        metrics={"loss": loss, "eval_rouge": rouge},
                    ),
                ),
            ),
        )
    series.update(state)
    stopped = {
        one.run for one in KeepPareto({"loss": "min", "eval_rouge": "max"}).decide(View(state))
    }
    assert stopped == off
    view = runs_view(state, series, "loss")
    drawn = {row.run_id for row in pareto_front(view.rows, "loss", "eval_rouge")}
    assert drawn == set(figures) - off
