"""An experiment whose checkpoints lie in a storage: what needs them says so, or brings them."""

from __future__ import annotations

import shutil

import pytest

from rf_notebook import ConfigError, Experiment
from rf_notebook.core.errors import CheckpointDamaged, StorageFull
from rf_notebook.session.models import _model_of
from rf_notebook.session.registry import forget_all
from rf_notebook.session.stored import in_use
from rf_notebook.store.folders import MANIFEST, verify_folder
from rf_notebook.store.storage_place import stand_ins, use_place
from tests.api.world import curve, fit, two, until


@pytest.fixture
def mount(tmp_path):
    (tmp_path / "mount").mkdir()
    return tmp_path / "mount"


@pytest.fixture
def away(new, mount):
    """A half-trained experiment, as workers of a cluster would have left it: its checkpoints are elsewhere."""
    experiment = fit(new(), two())
    until(lambda: all(run.checkpoint for run in experiment.runs))
    experiment.end(cancel=True)
    (storage,) = use_place(experiment.folder, str(mount), "test").opened()
    storage.enter("token", is_first=True)
    for folder in in_use(experiment.session.state):
        storage.put(experiment.folder, folder.path)
        for path in (experiment.folder / folder.path).iterdir():
            if path.name != MANIFEST:
                path.unlink()
    experiment.session.store.close()
    forget_all()
    return experiment


def again(backend, away, **options):
    return Experiment("test", experiment_path=away.folder.parent, runner=backend, **options)


def test_nothing_is_reached_before_the_user_has_named_it(away, backend, mount):
    assert stand_ins(away.folder)
    opened = again(backend, away)
    words = rf"checkpoints of this experiment lie in '{mount}': give run_fit or Experiment storage='{mount}'"
    with pytest.raises(ConfigError, match=words):
        fit(opened, two())
    with pytest.raises(ConfigError, match=words):
        _model_of(opened.session, 1, None)
    with pytest.raises(ConfigError, match=words):
        fit(opened, two(), storage="s3://elsewhere/x")
    assert not opened.session.is_training
    assert opened.session.state.runs.keys() == {1, 2}, "and it can be read"
    opened.session.store.close()


@pytest.mark.parametrize("where", ["run_fit", "Experiment"])
def test_checkpoints_are_brought_and_the_runs_are_as_if_they_had_been_here(
    away, backend, mount, new, where
):
    options = {"storage": mount}
    opened = again(backend, away, **(options if where == "Experiment" else {}))
    before = [run.steps for run in opened.runs]
    assert all(before)
    fit(opened, two(), **(options if where == "run_fit" else {})).wait()
    assert stand_ins(away.folder) == []
    alone = fit(new("alone"), two())
    alone.wait()
    for run_id in (1, 2):
        assert curve(opened, run_id) == curve(alone, run_id)
    opened.end()


def test_what_one_run_needs_is_brought_alone(away, backend, mount):
    opened = again(backend, away, storage=str(mount))
    one = _model_of(opened.session, 2, None).checkpoint
    verify_folder(away.folder, one)
    assert all(path.startswith("runs/1/") or path != one.path for path in stand_ins(away.folder))
    assert stand_ins(away.folder)
    opened.session.store.close()


def test_a_storage_that_is_gone_is_a_sentence_and_nothing_is_recorded(away, backend, mount):
    opened = again(backend, away, storage=str(mount))
    shutil.rmtree(mount)
    with pytest.raises(StorageFull, match="does not answer as it should: it is not there"):
        fit(opened, two())
    mount.mkdir()
    name = use_place(away.folder, str(mount), "test").names[0]
    (mount / name).mkdir()
    with pytest.raises(CheckpointDamaged, match=rf"is no longer in {mount}/{name}"):
        fit(opened, two())
    assert not opened.session.is_training
    opened.session.store.close()
