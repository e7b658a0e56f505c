"""Experiments that commit be8c73e recorded open, continue and replay.

Its checkpoints had no fence in their names.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from rf_notebook import Experiment, SharedExperiment
from tests.records import house

HERE = Path(__file__).parent


@pytest.fixture
def folder(tmp_path):
    with tarfile.open(HERE / "before_the_house.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_it_opens_and_shows_its_figures(folder):
    experiment = Experiment("recorded", experiment_path=folder)
    assert [(str(run.state), run.steps, run.parent) for run in experiment.runs] == [
        ("stopped", 6, None),
        ("running", 6, None),
        ("running", 3, 1),
    ]
    assert all("eval_loss" in run.metrics for run in experiment.runs)
    assert [type(event.operation).__name__ for event, _ in experiment.operations] == [
        "StopRun",
        "CloneRun",
    ]


def test_it_continues_and_is_replayed(folder):
    experiment = house.launch(folder)
    before = experiment.run(2).checkpoint
    assert before.name == "6", "a checkpoint is read by the name that it has"
    experiment.resume(1).result()
    assert experiment.wait()
    assert [(str(run.state), run.steps) for run in experiment.runs] == [("completed", 16)] * 3
    assert experiment.run(2).checkpoint.name.startswith("16-"), "and written by today's"
    assert not before.exists(), "what newer ones took the place of is gone"
    again = experiment.replay("again")
    assert again.wait()
    done = [
        [(type(e.operation).__name__, e.operation.run_id, e.steps) for e, _ in one.operations]
        for one in (experiment, again)
    ]
    assert done[0] == done[1] == [("StopRun", 1, 6), ("CloneRun", 1, 6), ("ResumeRun", 1, 6)]
    first, second = (one.get_results() for one in (experiment, again))
    columns = ["run_id", "step"]
    assert first[columns].equals(second[columns])
    # Two builds of torch may round differently; on one machine they are equal.
    assert second["loss"].tolist() == pytest.approx(first["loss"].tolist(), rel=1e-4, nan_ok=True)
    again.end()


def test_its_exported_notebook_is_replayed(tmp_path):
    shared = SharedExperiment(HERE / "before_the_house.ipynb")
    assert shared.verify()
    again = shared.replay("again", yes=True, experiment_path=tmp_path)
    assert again.wait()
    assert any("the replay of 'recorded' is equal" in text for text in again.messages), (
        again.messages
    )
    again.end()
