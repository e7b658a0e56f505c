"""A policy over real trainers.

It stops the weak, a user takes back what it did, and a replay repeats it.
"""

from __future__ import annotations

import pytest
from IPython.core.error import UsageError

from rf_notebook import ConfigError, Experiment, IllegalOperation
from rf_notebook.automation import Halving, Stop
from rf_notebook.automl import List, Range, RFOptuna
from rf_notebook.automl.callbacks import RunDecision
from rf_notebook.shared import SharedExperiment
from rf_notebook.testing.tiny import create_tiny, prompt_rows
from tests.api.world import until
from tests.experiment_world import fit, grid, model
from tests.test_magic import say, shell  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow


@pytest.fixture
def new(tmp_path):
    made = []

    def make(name="first"):
        made.append(Experiment(name, experiment_path=tmp_path))
        return made[-1]

    yield make
    for experiment in made:
        experiment.end(cancel=True)


def four():
    return grid(learning_rate=List([1e-5, 1e-3, 3e-3, 1e-2]), num_train_epochs=2)


def test_halving_finds_the_best_is_told_with_reasons_and_replays(new, tmp_path):
    experiment = fit(new(), four(), policy=Halving())
    experiment.wait()
    experiment.end()
    states = [str(run.state) for run in experiment.runs]
    assert states.count("completed") == 1
    decisions = experiment.decisions
    assert decisions.policy.unique().tolist() == ["halving"]
    assert len(decisions) == 3
    assert decisions.reason.str.contains("eval_loss").all()
    assert decisions.reason.iloc[0].endswith("; 2 continue.")
    assert experiment.session.state.policy == "halving"

    again = experiment.replay("again")
    again.wait()
    assert "is equal: 4 runs" in again.messages[-1]
    assert again.decisions.equals(decisions)
    record = SharedExperiment(experiment.folder).record
    assert [one.reason for one in record.operations] == decisions.reason.tolist()


def test_the_user_has_the_last_word(new):
    experiment = new()
    with pytest.raises(ConfigError, match="int is not a policy"):
        fit(experiment, four(), policy=5)
    fit(experiment, four())
    with pytest.raises(IllegalOperation, match="cannot undo anything of run 1: no policy did"):
        experiment.undo(1)
    experiment.pin([3, 4]).result()

    class Impatient:
        name = "impatient"

        def decide(self, view):
            return [Stop(run.id, "enough.") for run in view.live if run.id not in view.given_back]

    experiment.automate(Impatient()).result()
    until(lambda: experiment.run(1).state == "stopped")
    experiment.automate(None).result()
    assert experiment.session.state.policy is None
    experiment.undo(1).result()
    experiment.wait()
    assert [str(run.state) for run in experiment.runs][2:] == ["completed", "completed"]
    assert str(experiment.run(1).state) == "completed"
    assert set(experiment.decisions.run_id) <= {1, 2}


def searched(**more):
    config = model(
        lora={"r": List([2, 4, 8]), "target_modules": List([["q_proj", "v_proj"], "all-linear"])},
        learning_rate=Range(1e-5, 1e-2, log=True),
    )
    return RFOptuna(config, "SFT", **{"n_initial": 4, "budget": 8, **more})


def test_optuna_s_search_trains_is_stored_replays_and_is_the_same_when_the_cells_run_again(
    new, tmp_path
):
    import optuna

    with pytest.raises(
        ConfigError, match="objective is 'eval_loss' but run_fit has no eval_dataset"
    ):
        new("refused").run_fit(searched(), create_tiny, prompt_rows(24, 1), num_chunks=3)
    search = searched()
    experiment = fit(new(), search)
    experiment.wait()
    assert fit(experiment, searched()) is experiment, "run again while it trains"
    experiment.wait()
    experiment.end()
    assert len(experiment.runs) == 8
    decisions = experiment.decisions
    assert decisions.policy.unique().tolist() == ["optuna"]
    assert decisions.what.tolist().count("clone") == 4
    stored = optuna.load_study(
        study_name="first", storage=f"sqlite:///{experiment.folder / 'optuna.db'}"
    )
    assert len(stored.trials) == 8
    assert stored.best_trial.user_attrs["run"] == experiment.best("eval_loss", among=[
        run for run in experiment.runs if run.state == "completed"
    ]).id  # fmt: skip
    assert search.study.best_value == stored.best_value

    again = Experiment("first", experiment_path=tmp_path)
    fit(again, searched())
    again.wait()
    assert len(again.runs) == 8, "the budget is used up"

    broken_off = fit(new("second"), searched())
    until(lambda: len(broken_off.decisions) > 2)
    broken_off.cancel_current()
    fit(broken_off, searched()).wait()
    assert broken_off.decisions.equals(decisions)
    broken_off.end()

    replayed = again.replay("again")
    replayed.wait()
    assert "is equal: 8 runs" in replayed.messages[-1]
    assert replayed.decisions.equals(decisions)
    replayed.end()
    again.end()


def test_a_policy_and_a_search_decide_together_and_a_callback_is_a_policy(new):
    class Callback:
        def register_runs(self, run_id_to_config):
            self.known = run_id_to_config

        def on_shard_complete(self, run_id, shard_id, metrics):
            return RunDecision("prune" if (run_id, shard_id) == (1, 0) else "continue")

    experiment = fit(new(), searched(n_initial=2, budget=2, pruner=None), policy=Callback())
    experiment.wait()
    assert [str(run.state) for run in experiment.runs] == ["stopped", "completed"]
    assert experiment.decisions.policy.tolist() == ["Callback + optuna"]
    experiment.end()


def test_by_lines(shell):  # noqa: F811
    from tests.test_magic import GRID

    experiment = shell.run_cell_magic("rapidfire", "run grid", GRID)
    say(shell, "pin 1")
    say(shell, "automate rules metric=loss max_samples=60")
    until(lambda: experiment.run(2).state == "stopped")
    say(shell, "automate off")
    assert say(shell, "decisions").run_id.tolist() == [2]
    say(shell, "unpin 1")
    assert say(shell, "undo 2").id == 2
    for line, sentence in [
        ("automate halvin", "there is no variable 'halvin'"),
        ("automate halving etta=2", "did you mean 'eta'"),
        ("automate halving eta=1", "eta must be a whole number of at least 2"),
        ("undo 1", "no policy did anything to it"),
    ]:
        with pytest.raises(UsageError) as refused:
            say(shell, line)
        assert sentence in str(refused.value), line
