"""A policy over real trainers: it stops the weak, a user takes back what it did, and a replay repeats it."""

from __future__ import annotations

import pytest
from IPython.core.error import UsageError

from rf_notebook import ConfigError, Experiment, IllegalOperation
from rf_notebook.automation import Halving, Stop
from rf_notebook.automl import List
from rf_notebook.shared import SharedExperiment
from tests.experiment_world import fit, grid
from tests.test_experiment import until
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
    assert decisions.reason.iloc[0].endswith("; 2 go on.")
    assert experiment._state.policy == "halving"

    again = experiment.replay("again")
    again.wait()
    assert "is equal: 4 runs" in again.messages[-1]
    assert again.decisions.equals(decisions)
    record = SharedExperiment(experiment.folder).record
    assert [one.reason for one in record.operations] == decisions.reason.tolist()


def test_the_user_has_the_last_word(new):
    experiment = new()
    with pytest.raises(ConfigError, match="int is no policy"):
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
    assert experiment._state.policy is None
    experiment.undo(1).result()
    experiment.wait()
    assert [str(run.state) for run in experiment.runs][2:] == ["completed", "completed"]
    assert str(experiment.run(1).state) == "completed"
    assert set(experiment.decisions.run_id) <= {1, 2}


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
