"""Optuna at the wheel over the fake runner.

The study, its decisions, kills, undo, and what is refused.
"""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from rf_notebook.automation import Policies, Stop, StopRules, View
from rf_notebook.automation.optuna_policy import OptunaPolicy
from rf_notebook.automl import (
    List,
    Range,
    RFGridSearch,
    RFLoraConfig,
    RFModelConfig,
    RFOptuna,
    RFSFTConfig,
)
from rf_notebook.automl.concrete import apply_edits
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.events import RunAdded, RunPinned
from rf_notebook.core.objects import Objects
from rf_notebook.core.operations import CloneRun, ResumeRun, StopRun
from rf_notebook.engine.autopilot import Autopilot
from rf_notebook.engine.turns import Idle
from rf_notebook.results.decisions import decisions_of
from rf_notebook.tracking.study_file import StudyFile
from tests.automation.test_policies import notes, states, turn_to_the_end
from tests.engine.world import World


def template(**training):
    return RFModelConfig(
        model_name="fake",
        peft_config=RFLoraConfig(
            r=List([4, 8, 16]), lora_alpha=8, target_modules=List([["q_proj"], "all-linear"])
        ),
        training_args=RFSFTConfig(
            learning_rate=Range(1e-3, 0.5, log=True),
            per_device_train_batch_size=2,
            num_train_epochs=1,
            **training,
        ),
    )


def search(n_initial=5, budget=12, objective="minimize:loss", configs=None, **more):
    return RFOptuna(
        configs or template(),
        "SFT",
        n_initial=n_initial,
        budget=budget,
        objective=objective,
        **more,
    )


class Study(World):
    """A world with a search at the wheel.

    A restart makes everything anew, as another kernel would.
    """

    def __init__(self, folder, make=search, **runner):
        self.make, self.objects = make, Objects()
        configs = make().run_configs(self.objects, seed=1)
        super().__init__(folder, configs, **runner)
        self.automate()

    def automate(self):
        self.search = self.make()
        self.policy = OptunaPolicy(
            self.search, self.objects, seed=1, data_seed=None, chunks_a_pass=4
        )
        self.engine.automate(
            Autopilot(self.policy, lambda config, edits: apply_edits(config, edits, self.objects))
        )

    def restart(self, **engine):
        super().restart(**engine)
        self.automate()

    def trials(self):
        return [
            (t.number, t.state, t.values, t.params, t.intermediate_values, t.user_attrs)
            for t in self.search.study.trials
        ]


def test_so_many_train_at_a_time_until_the_budget_is_tried(tmp_path):
    world = Study(tmp_path)
    most = 0
    while not isinstance(world.turn(), Idle):
        most = max(most, len(world.state.ready()))
        assert len(world.state.ready()) <= 5
    assert most == 5
    assert len(world.state.runs) == 12
    counted = [t.state for t in world.search.study.trials]
    assert counted.count(TrialState.COMPLETE) + counted.count(TrialState.PRUNED) == 12
    assert counted.count(TrialState.PRUNED) >= 3
    done = [run_id for run_id, state in states(world).items() if state == "completed"]
    best = min(done, key=lambda run_id: world.losses(run_id)[-1][1])
    assert world.search.study.best_trial.user_attrs["run"] == best
    made = [one for one in decisions_of(world.state) if one.what == "clone"]
    assert len(made) == 7
    assert made[-1].reason.startswith("trial 12 of 12: r=")
    assert all(
        "the median of" in one.reason for one in decisions_of(world.state) if one.what == "stop"
    )


def test_trials_are_the_configs_of_their_runs(tmp_path):
    world = Study(tmp_path)
    world.finish()
    for trial in world.search.study.trials:
        config = world.state.record(trial.user_attrs["run"]).config
        assert trial.params["training_args.learning_rate"] == config.training["learning_rate"]
        assert trial.params["peft_config.r"] == config.peft["r"]
        targets = config.peft["target_modules"]
        assert trial.params["peft_config.target_modules"] == (
            targets if isinstance(targets, str) else ", ".join(targets)
        )
        assert trial.intermediate_values


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"sampler": "random"},
        {"sampler": "cmaes"},
        {"sampler": optuna.samplers.NSGAIISampler(seed=3, population_size=4)},
        {"pruner": optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)},
        {"pruner": optuna.pruners.PercentilePruner(50.0, n_startup_trials=2)},
        {
            "pruner": optuna.pruners.HyperbandPruner(
                min_resource=1, max_resource=4, reduction_factor=2
            )
        },
        {"pruner": None},
        {"objective": "minimize:loss, minimize:loss"},
        {"granularity": "epoch"},
    ],
    ids=lambda more: " ".join(map(str, more.values()))[:30] or "default",
)
@pytest.mark.filterwarnings("ignore:.*independent sampling:UserWarning")
def test_a_killed_search_goes_on_with_the_same_study(tmp_path, more):
    def make():
        return search(**more)

    whole = Study(tmp_path / "whole", make)
    whole.finish()
    killed = Study(tmp_path / "killed", make)
    for _ in range(30):
        killed.turn(2)
        killed.restart()
    killed.finish()
    assert decisions_of(killed.state) == decisions_of(whole.state)
    assert states(killed) == states(whole)
    assert killed.trials() == whole.trials()
    assert not notes(killed)


def test_what_was_undone_stays_undone_and_is_no_end_of_its_trial(tmp_path):
    world = Study(tmp_path)
    while not any(one.what == "stop" for one in decisions_of(world.state)):
        world.turn()
    back = next(one.run_id for one in decisions_of(world.state) if one.what == "stop")
    world.ask(ResumeRun(run_id=back))
    world.finish()
    assert states(world)[back] == "completed"
    (trial,) = [t for t in world.search.study.trials if t.user_attrs.get("run") == back]
    assert trial.state is TrialState.COMPLETE
    assert [one.run_id for one in decisions_of(world.state) if one.what == "stop"].count(back) == 1


def test_a_user_s_clone_inside_the_search_is_a_trial_and_one_outside_is_not(tmp_path):
    world = Study(tmp_path)
    world.turn(2)
    config = world.state.record(1).config
    inside, _ = apply_edits(config, {"learning_rate": 0.1234, "r": 4}, world.objects)
    outside, _ = apply_edits(config, {"learning_rate": 0.9}, world.objects)
    first = world.ask(CloneRun(run_id=1, config=inside, edits={}))
    second = world.ask(CloneRun(run_id=1, config=outside, edits={}))
    warm = world.ask(CloneRun(run_id=1, config=config, edits={}, warm_start=True))
    world.ask(StopRun(run_id=second))
    world.finish()
    (trial,) = [t for t in world.search.study.trials if t.user_attrs.get("run") == first]
    assert (trial.params["training_args.learning_rate"], trial.params["peft_config.r"]) == (
        0.1234,
        4,
    )
    assert not [t for t in world.search.study.trials if t.user_attrs.get("run") in (second, warm)]


def test_templates_and_configs_inside_of_lists_are_parameters_of_their_own(tmp_path):
    def make():
        adapters = List(
            [
                RFLoraConfig(r=List([2, 4]), lora_alpha=8),
                RFLoraConfig(r=16, lora_alpha=List([16, 32])),
            ]
        )
        configs = [
            RFModelConfig(model_name="fake", peft_config=adapters, training_args=RFSFTConfig(
                learning_rate=List([0.01, 0.1]), per_device_train_batch_size=2, num_train_epochs=1)),
            RFModelConfig(model_name="other", peft_config=RFLoraConfig(r=8), training_args=RFSFTConfig(
                learning_rate=Range(0.01, 0.1), per_device_train_batch_size=Range(2, 6, step=2), num_train_epochs=1)),
        ]  # fmt: skip
        return search(configs=configs, n_initial=8, budget=20)

    world = Study(tmp_path, make)
    world.finish()
    names = {name for trial in world.search.study.trials for name in trial.params}
    assert names == {
        "configs",
        "configs[0].peft_config",
        "configs[0].peft_config[0].r",
        "configs[0].peft_config[1].lora_alpha",
        "configs[0].training_args.learning_rate",
        "configs[1].training_args.learning_rate",
        "configs[1].training_args.per_device_train_batch_size",
    }
    for record in world.state.runs.values():
        found = world.search.parameters_of(record.config, world.objects, seed=1, data_seed=None)
        (trial,) = [
            t for t in world.search.study.trials if t.user_attrs.get("run") == record.run_id
        ]
        assert found == trial.params


def test_clones_of_other_searches_are_none_of_its_business(tmp_path):
    """Two searches side by side, as two methods have them.

    Neither asks its study for what the other suggested.
    """
    world = Study(tmp_path, lambda: search(n_initial=3, budget=3))
    other = OptunaPolicy(
        search(configs=template(warmup_steps=5), n_initial=3, budget=6),
        world.objects,
        seed=1,
        data_seed=None,
        chunks_a_pass=4,
    )
    more = other._search.run_configs(world.objects, seed=1)  # noqa: SLF001 - a study without a search
    world.engine.commit([RunAdded(run_id=4 + i, config=config) for i, config in enumerate(more)])
    both = Policies([world.policy, other])
    world.engine.automate(
        Autopilot(both, lambda config, edits: apply_edits(config, edits, world.objects))
    )
    world.finish()
    assert len(world.policy.study.trials) == 3
    assert len(other.study.trials) == 6
    assert len(world.state.runs) == 9


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_when_a_budget_is_spent_nothing_is_suggested_any_more(tmp_path, share):
    whole = Study(tmp_path / "whole")
    whole.finish()
    budget = int(share * sum(record.progress.samples for record in whole.state.runs.values()))
    world = Study(tmp_path / "budget")
    both = Policies([StopRules("loss", max_samples=budget), world.policy])
    world.engine.automate(
        Autopilot(both, lambda config, edits: apply_edits(config, edits, world.objects))
    )
    world.finish()
    assert (
        budget / 2 < sum(record.progress.samples for record in world.state.runs.values()) <= budget
    )
    assert any("budget" in one.reason for one in decisions_of(world.state))


def test_a_run_without_numbers_is_stopped_and_no_measure_for_others(tmp_path):
    world = Study(tmp_path, lambda: search(n_initial=4, budget=4))
    world.turn(4)
    record = world.state.runs[2]
    nan = tuple(replace(point, metrics={"loss": float("nan")}) for point in record.all_points())
    world.state.runs[2] = replace(record, points=(nan,))
    stopped = {
        one.run: one.reason
        for one in world.policy.decide(View(world.state))
        if isinstance(one, Stop)
    }
    assert stopped[2] == "an objective is not a number after 16 samples."
    assert all("nan" not in reason for reason in stopped.values())


def test_a_space_that_is_used_up_ends_the_search(tmp_path):
    def make():
        few = template()
        few.training_args.learning_rate = List([0.01, 0.1])
        few.peft_config.r = 8
        return search(configs=few, n_initial=3, budget=30)

    world = Study(tmp_path, make)
    world.finish()
    assert len(world.state.runs) == 4, "two rates and two targets"


def test_an_objective_that_nobody_logs_sets_the_policy_aside_with_a_sentence(tmp_path):
    world = Study(tmp_path, lambda: search(objective="maximize:rouge"))
    world.finish()
    assert notes(world) == ["the policy optuna was stopped: no run logs 'rouge'. There are: loss."]
    assert set(states(world).values()) == {"completed"}


def test_the_study_is_copied_to_a_file_that_optuna_opens(tmp_path):
    import logging

    path = tmp_path / "optuna.db"
    world = Study(tmp_path / "world")
    file = StudyFile(path, lambda: {"mine": world.policy.study}, log=logging.getLogger("test"))
    file.start()
    while not isinstance(world.turn(), Idle):
        file.notify(())
    assert file.close(30)
    read = optuna.load_study(study_name="mine", storage=f"sqlite:///{path}")
    written = [
        (t.number, t.state, t.values, t.params, t.intermediate_values, t.user_attrs)
        for t in read.trials
    ]
    assert written == world.trials()
    world.restart()
    world.finish()
    again = StudyFile(path, lambda: {"mine": world.policy.study}, log=logging.getLogger("test"))
    again.start()
    assert again.close(30), "written anew by the next kernel"
    assert len(optuna.load_study(study_name="mine", storage=f"sqlite:///{path}").trials) == len(
        written
    )


def test_a_file_that_cannot_be_written_takes_nothing_along(tmp_path, caplog):
    import logging

    (tmp_path / "optuna.db").mkdir()
    world = Study(tmp_path / "world")
    file = StudyFile(
        tmp_path / "optuna.db", lambda: {"mine": world.policy.study}, log=logging.getLogger("test")
    )
    file.start()
    world.finish()
    assert not file.close(30)
    assert caplog.text.count("optuna.db cannot be written") == 1


def test_its_figures_are_optuna_s(tmp_path):
    world = Study(tmp_path)
    with pytest.raises(ConfigError, match="no study yet"):
        search().study  # noqa: B018
    world.finish()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of plotly's and optuna's own
        for figure in (world.search.importances(), world.search.contour(), world.search.slice()):
            assert figure.data


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: search(objective="eval_loss"), "write 'minimize:METRIC' or 'maximize:METRIC'"),
        (lambda: search(objective="minimise:loss"), "write 'minimize:METRIC'"),
        (lambda: search(objective=3), "write 'minimize:METRIC'"),
        (lambda: search(sampler="tpee"), "there is no such sampler; did you mean 'tpe'"),
        (lambda: search(pruner="mean"), "there is no such pruner"),
        (lambda: search(sampler=5), r"RFOptuna\(sampler=...\) is a int"),
        (lambda: search(n_initial=0), "n_initial must be between 1 and"),
        (lambda: search(budget="40"), "budget must be between"),
        (lambda: search(seed=-1), "seed must be between"),
        (lambda: search(granularity="step"), "use 'chunk' or 'epoch'"),
        (
            lambda: RFOptuna(RFModelConfig(training_args=RFSFTConfig()), "SFT"),
            "nothing to choose from",
        ),
        (lambda: RFOptuna(template(), "SFTT"), "there is no such trainer"),
    ],
)
def test_bad_settings_are_one_sentence(make, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make()


def test_the_budget_is_at_least_what_begins_and_a_copy_is_equal():
    one = search(n_initial=7, budget=3, sampler="random", pruner=None)
    assert one.budget == 7
    assert one.copy().as_given(Objects()) == one.as_given(Objects())
    assert one.as_given(Objects())["pruner"] is None


def test_making_a_study_says_nothing_and_leaves_optuna_as_it_was(capfd):
    level = optuna.logging.get_verbosity()
    search().run_configs(Objects(), seed=1)
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    assert optuna.logging.get_verbosity() == level


def test_a_grid_s_configs_are_found_in_a_search_of_the_same_values():
    objects = Objects()
    few = template()
    few.training_args.learning_rate = List([0.01, 0.1])
    for config in RFGridSearch(few, "SFT").run_configs(objects, seed=3):
        found = search(configs=few).parameters_of(config, objects, seed=3, data_seed=None)
        assert found is not None
        assert search(configs=few).parameters_of(config, objects, seed=4, data_seed=None) is None


@settings(max_examples=15, deadline=None)
@given(
    n_initial=st.integers(1, 6),
    budget=st.integers(1, 14),
    sampler=st.sampled_from(["tpe", "random"]),
    pruner=st.sampled_from(["median", None]),
    pinned=st.sets(st.integers(1, 9)),
    kills=st.integers(0, 3),
)
def test_never_an_illegal_operation_never_a_pinned_run_never_beyond_the_budget(
    n_initial, budget, sampler, pruner, pinned, kills
):
    with tempfile.TemporaryDirectory() as folder:
        world = Study(
            Path(folder), lambda: search(n_initial, budget, sampler=sampler, pruner=pruner)
        )
        pinned &= set(world.state.runs)
        for run_id in pinned:
            world.engine.commit([RunPinned(run_id=run_id, pinned=True)])
        for _ in range(kills):
            world.turn(3)
            world.restart()
        turn_to_the_end(world)
        assert not [text for text in notes(world) if "refused" in text or "set aside" in text]
        assert len(world.state.runs) <= max(n_initial, budget)
        assert not {one.run_id for one in decisions_of(world.state) if one.what == "stop"} & pinned
        assert {str(record.state) for record in world.state.runs.values()} <= {
            "completed",
            "stopped",
        }
