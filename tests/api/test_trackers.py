"""run_fit(track=...) from Python: who is written to, and who is not."""

from __future__ import annotations

import pytest

from rf_notebook import ConfigError
from tests.api.world import fit, two


def test_trackers_are_named_by_the_call_or_by_the_configs(new, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    named = fit(new("named"), two(), track=["tensorboard"])
    named.wait()
    assert named.session.launch.trackers == ("tensorboard",)
    named.end()
    assert len(list((named.folder / "tensorboard").rglob("events.out.*"))) == 2
    by_config = fit(new("by config"), two(report_to=["wandb"]))
    by_config.wait()
    by_config.end()
    assert by_config.session.launch.trackers == ("mlflow", "wandb")
    assert len(list((by_config.folder / "wandb").rglob("*.wandb"))) == 2
    nowhere = fit(new("nowhere"), two(report_to=["wandb"]), track=[])
    nowhere.end()
    assert nowhere.session.launch.trackers == ()
    assert not (nowhere.folder / "wandb").exists()


def test_other_trackers_while_it_trains_are_told_to_wait(new):
    experiment = fit(new(), two(num_train_epochs=30), track="mlflow")
    with pytest.warns(UserWarning, match="its figures go to mlflow.*sends them to tensorboard"):
        fit(experiment, two(num_train_epochs=30), track="tensorboard")
    assert not (experiment.folder / "tensorboard").exists()
    experiment.cancel_current()
    fit(experiment, two(num_train_epochs=30), track="tensorboard")
    experiment.cancel_current()
    assert (experiment.folder / "tensorboard").exists()


def test_what_a_tracker_does_ends_nothing(new):
    experiment = new()
    experiment.folder.mkdir(parents=True)
    (experiment.folder / "tensorboard").write_text("mine")
    fit(experiment, two(), track=["mlflow", "tensorboard"])
    assert experiment.wait()
    experiment.end()
    assert [str(run.state) for run in experiment.runs] == ["completed"] * 2
    log = (experiment.folder / "experiment.log").read_text()
    assert "TensorBoard is not written: ConfigError" in log
    assert "is a link or a file" in log


def test_wrong_trackers_are_refused_before_anything(new):
    experiment = new()
    with pytest.raises(ConfigError, match="there is no tracker 'comet'"):
        fit(experiment, two(), track=["comet"])
    assert not experiment.folder.exists() or not list(experiment.folder.iterdir())
