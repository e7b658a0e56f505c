"""An experiment once more, with real trainers.

The same operations at the same steps, and the very same figures.
"""

from __future__ import annotations

import json
import threading

import nbformat
import pytest

from rf_notebook import ConfigError, Experiment, IllegalOperation
from rf_notebook.automl import RFGridSearch
from tests.api.world import until
from tests.experiment_world import fit, model, two

pytestmark = pytest.mark.slow


@pytest.fixture
def new(tmp_path):
    made = []

    def make(name="first"):
        experiment = Experiment(name, experiment_path=tmp_path)
        made.append(experiment)
        return experiment

    yield make
    for experiment in made:
        experiment.end(cancel=True)


def interfered(experiment):
    """Things a person does while it trains, in the middle of chunks."""
    fit(experiment, two(num_train_epochs=4), rows=32)
    until(lambda: experiment.run(1).steps >= 5)
    experiment.stop(1).result()
    until(lambda: experiment.run(2).steps >= 9)
    experiment.clone(1, {"learning_rate": 2e-3, "r": 8}, warm_start=True).result()
    experiment.resume(1).result()
    until(lambda: experiment.run(3).steps >= 3)
    experiment.clone(2, {"learning_rate": 5e-4}).result()
    experiment.delete(2).result()
    experiment.wait()
    experiment.end()


def obeyed(experiment):
    return [
        (type(one.operation).__name__, one.operation.run_id, one.steps, one.origin)
        for one, _ in experiment.operations
    ]


def test_a_replay_is_equal_bit_for_bit_and_says_so(new):
    first = new()
    interfered(first)
    again = first.replay("again")
    assert threading.current_thread() is threading.main_thread()
    again.wait()
    again.end()
    assert obeyed(again) == obeyed(first)
    assert [one for one in again.messages if "replay" in one] == [
        f"the replay of 'first' is equal: 4 runs, {sum(first.compare(again).steps)} logged steps, bit for bit."
    ]
    assert first.compare(again).equal.all()
    assert (first.compare(again).steps > 0).all()
    weights = [
        (one.run(3).checkpoint / "adapter_model.safetensors").read_bytes() for one in (first, again)
    ]
    assert weights[0] == weights[1]


def test_a_replay_of_what_was_left_unfinished_goes_as_far(new):
    first = fit(new(), two(num_train_epochs=4), rows=32)
    until(lambda: first.run(2).steps >= 7)
    first.end(cancel=True)
    again = first.replay()
    again.wait()
    assert [str(run.state) for run in again.runs] == ["stopped", "stopped"]
    assert [run.steps for run in again.runs] == [run.steps for run in first.runs]
    assert "is equal: 2 runs" in again.messages[-1]


def test_a_replay_needs_what_the_experiment_was_launched_with(new, tmp_path):
    first = fit(new(), two())
    with pytest.raises(IllegalOperation, match="'first' is training; wait"):
        first.replay()
    first.wait()
    with pytest.raises(ConfigError, match="is recorded already; give replay"):
        first.replay("first")
    first.end()
    with pytest.raises(IllegalOperation, match="was not launched by this kernel"):
        Experiment("first", experiment_path=tmp_path).replay()


def test_an_exported_notebook_is_valid_and_tells_what_was_done(new, tmp_path):
    first = new()
    interfered(first)
    path = first.export_notebook(tmp_path / "out" / "first.ipynb")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    text = json.dumps(notebook)
    assert "stop run 1 at its step" in text
    assert "clone run 1 at its step" in text
    assert "warm" in text
    assert notebook.metadata.rf_notebook["identity"] == first.session.state.started.identity
    assert str(tmp_path) not in text
    assert len(text) < 300_000
    with pytest.raises(ConfigError, match="is there already"):
        first.export_notebook(path)
    with pytest.raises(ConfigError, match=r"ends in \.txt; export writes"):
        first.export_notebook(tmp_path / "first.txt")
    with pytest.raises(IllegalOperation, match="has recorded nothing yet"):
        new("empty").export_notebook(tmp_path / "empty.ipynb")


def test_a_replay_of_joint_steps_is_equal_within_a_tolerance_that_is_told(new):
    first = fit(new(), two(), execution="fused")
    first.wait()
    first.end()
    again = first.replay("again")
    again.wait()
    assert again.messages[-1] == (
        "the replay of 'first' is equal: 2 runs, 6 chunks, 0 operations, within 0.1% of every figure "
        "(recorded with execution='fused')."
    )


def test_a_warm_start_from_a_run_without_an_adapter_is_refused_in_a_sentence(new):
    whole = model(num_train_epochs=4)
    whole.peft_config = None
    experiment = fit(new(), RFGridSearch(whole, "SFT"))
    until(lambda: experiment.run(1).steps >= 1)
    with pytest.raises(
        ConfigError,
        match="run 1 trains all weights and has no adapter to start from; clone it without",
    ):
        experiment.clone(1, {"learning_rate": 1e-4}, warm_start=True).result()
    assert len(experiment.runs) == 1
