"""A whole experiment leaves the disk, and nothing else does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rf_notebook.core.errors import ConfigError, ReadOnlyExperiment, StoreError
from rf_notebook.store import disposal, layout
from rf_notebook.store.disposal import bytes_of, remove_folder
from rf_notebook.store.lease import this_process
from rf_notebook.store.sqlite import SqliteStore
from rf_notebook.store.storage_place import use_place
from rf_notebook.testing.fake_session import started


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "experiments" / "mine"
    (made / "runs" / "1" / "8-1.1").mkdir(parents=True)
    (made / "runs" / "1" / "8-1.1" / "weights").write_bytes(b"x" * 1000)
    store = SqliteStore(layout.record(made))
    fence = store.acquire(this_process())
    store.append([started()], fence)
    store.release(fence)
    store.close()
    return made


def test_an_experiment_goes_and_its_siblings_stay(folder):
    sibling = folder.with_name("other")
    sibling.mkdir()
    assert bytes_of(folder) > 1000
    remove_folder(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["other"]


def test_nothing_is_removed_through_a_link(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("kept")
    (folder / "runs" / "2").symlink_to(elsewhere)
    (folder / "linked").symlink_to(elsewhere / "precious")
    assert bytes_of(folder) < 200_000
    remove_folder(folder)
    assert (elsewhere / "precious").read_text() == "kept"


def test_what_is_no_experiment_of_its_own_stays(folder, tmp_path):
    link = folder.with_name("link")
    link.symlink_to(folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    fake = tmp_path / "fake"
    fake.mkdir()
    layout.record(fake).write_text("not a database")
    linked = tmp_path / "linked"
    linked.mkdir()
    layout.record(linked).symlink_to(layout.record(folder))
    for wrong in (link, empty, fake, linked, tmp_path / "nowhere"):
        with pytest.raises(ConfigError, match="holds no experiment of its own"):
            remove_folder(wrong)
    assert layout.record(folder).exists()
    assert fake.exists()


def test_one_that_a_living_process_trains_stays(folder):
    store = SqliteStore(layout.record(folder))
    elsewhere = replace(this_process(), host="another machine")
    fence = store.acquire(elsewhere)
    with pytest.raises(ReadOnlyExperiment, match="trained by another process; end it there first"):
        remove_folder(folder)
    store.release(fence)
    store.close()
    remove_folder(folder)
    assert not folder.exists()


def test_checkpoints_elsewhere_are_not_forgotten(folder, tmp_path):
    (tmp_path / "mount").mkdir()
    use_place(folder, str(tmp_path / "mount"), "mine")
    with pytest.raises(ConfigError, match="which would stay; remove them there, then the folder"):
        remove_folder(folder)
    assert folder.exists()


def test_what_cannot_be_removed_is_told(folder, monkeypatch):
    def refuse(_path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(disposal.shutil, "rmtree", refuse)
    with pytest.raises(
        StoreError,
        match=r"could not be removed \(Permission denied\); what is left is in .*\.removing-",
    ):
        remove_folder(folder)
    assert not folder.exists(), "it is no longer among the experiments"
