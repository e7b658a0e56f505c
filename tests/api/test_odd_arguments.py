"""Odd arguments of everything that a user calls: one sentence, and the experiment trains on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from rf_notebook import Experiment, SharedExperiment
from rf_notebook.core.errors import RFNotebookError
from tests.api.world import create, fit, grid, rows, two, until

CALLS = {
    "stop a float": lambda e: e.stop(1.5),
    "stop nothing": lambda e: e.stop(None),
    "stop a text": lambda e: e.stop("1"),
    "stop a list of lists": lambda e: e.stop([[1]]),
    "stop a huge number": lambda e: e.stop(10**400),
    "edit below a word": lambda e: e.clone(1, {"model_name.x": 1}),
    "edit below a number": lambda e: e.clone(1, {"peft_config.r.x": 1}),
    "edit a section by a number": lambda e: e.clone(1, {"training_args": 5}),
    "edit with a key that is no text": lambda e: e.clone(1, {5: 1}),
    "edit with a list": lambda e: e.clone(1, [1]),
    "edit with a huge number": lambda e: e.clone(1, {"learning_rate": 10**400}),
    "edit with a list of names": lambda e: e.clone(1, {"model_name": ["a"]}),
    "best of a number": lambda e: e.best(5),
    "best in no mode": lambda e: e.best("loss", mode=3),
    "wait for a text": lambda e: e.wait("long"),
    "compare with a number": lambda e: e.compare(5),
    "export to a NUL": lambda e: e.export(1, "a\0b"),
    "export to bytes": lambda e: e.export(1, b"folder"),
    "export a notebook to a NUL": lambda e: e.export_notebook("\0.ipynb"),
    "export a notebook into a file": lambda e: e.export_notebook(Path(__file__) / "x.ipynb"),
    "label by a number": lambda e: e.label(1, name=5),
    "tags that are a number": lambda e: e.label(1, tags=5),
    "automate a number": lambda e: e.automate(5),
    "generate from a number": lambda e: e.generate(1, 5),
    "replay as a number": lambda e: e.replay(5),
}
FITS = [
    {"num_chunks": "x"},
    {"seed": 10**400},
    {"execution": []},
    {"keep": {}},
    {"sample_prompts": [5]},
    {"price_per_hour": "x"},
    {"devices": [[]]},
    {"devices": {}},
    {"track": 5},
    {"storage": 5},
    {"cluster": 5},
    {"policy": 5},
]
PLACES = ["a\0b", 5, b"bytes", "/proc/nope", f"/tmp/{'y' * 300}", __file__]


@pytest.fixture
def experiment(new):
    return fit(new(), two(num_train_epochs=40))


def test_calls(experiment):
    for name, call in CALLS.items():
        with pytest.raises(RFNotebookError) as told:
            getattr(call(experiment), "result", lambda _seconds: None)(20)
        assert len(str(told.value).splitlines()) == 1, name
    assert experiment.session.is_training


@pytest.mark.parametrize("given", FITS, ids=repr)
def test_arguments_of_run_fit(new, given):
    with pytest.raises(RFNotebookError):
        fit(new(), two(), **given)


@pytest.mark.parametrize(
    "data", [5, "x", {}, None, {"path": 5}, object()], ids=lambda data: type(data).__name__
)
def test_data(new, data):
    with pytest.raises(RFNotebookError):
        new().run_fit(grid(), create, data, rows(2), display=False)


@pytest.mark.parametrize("path", PLACES, ids=lambda path: repr(path)[:20])
def test_places(backend, path):
    with pytest.raises(RFNotebookError, match=r"is no path|cannot be (made|read)"):
        fit(Experiment("x", experiment_path=path, runner=backend), two())
    with pytest.raises(RFNotebookError):
        SharedExperiment(path)


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be moved there")
def test_a_folder_that_is_moved_holds_training_up_and_is_told(experiment, tmp_path):
    shutil.move(experiment.folder, tmp_path / "elsewhere")
    until(lambda: experiment.session.status().held_up)
    assert "moved or removed. Put it back" in experiment.session.status().held_up
    assert experiment.get_runs_info().shape[0] == 2
    shutil.rmtree(experiment.folder, ignore_errors=True)
    shutil.move(tmp_path / "elsewhere", experiment.folder)
    until(lambda: experiment.session.status().held_up is None)
    experiment.stop([1, 2]).result(20)
