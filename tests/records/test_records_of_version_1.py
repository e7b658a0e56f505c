"""Experiments that rf_notebook 0.1.0 recorded open and are continued."""

from __future__ import annotations

import tarfile
import warnings
from pathlib import Path

import pytest

from rf_notebook import Experiment
from rf_notebook.core.errors import ConfigError
from tests.records import notebook


@pytest.fixture
def folder(tmp_path):
    with tarfile.open(Path(__file__).with_name("version_1.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_a_record_opens_and_shows_its_figures(folder):
    experiment = Experiment("recorded", experiment_path=folder)
    assert [run.progress for run in experiment.runs] == [0.5, 0.5, 0.5]
    assert all("reward" in run.metrics for run in experiment.runs)


def test_the_same_cell_continues_it_and_says_what_it_could_not_compare(folder):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        experiment = notebook.launch(folder)
    experiment.end()
    assert [str(run.state) for run in experiment.runs] == ["completed"] * 3
    words = [str(one.message) for one in told]
    assert [text.partition(":")[0] for text in words] == ["run 1", "run 2"], words
    assert "Counted has the recorded class and source" in words[0]
    with pytest.warns(UserWarning, match="cannot be compared"):
        again = notebook.launch(folder)
    again.end()
    assert len(again.runs) == 3


def test_what_can_be_compared_still_is(folder, monkeypatch):
    monkeypatch.setattr(notebook, "length", lambda completions, **columns: [1.0] * len(completions))
    with pytest.raises(
        ConfigError, match=r"recorded with other arguments: run 1: .*reward_funcs was"
    ):
        notebook.launch(folder)
