"""Checkpoints out of use are deleted beside the turns, and nothing depends on it."""

from __future__ import annotations

import logging

import pytest

from rf_notebook.core.ports import CommitPoint
from rf_notebook.engine.removal import Removal
from rf_notebook.store import folders

pytestmark = pytest.mark.in_kernel


def checkpoint(root, name):
    (root / "runs" / "1" / name).mkdir(parents=True)
    (root / "runs" / "1" / name / "weights").write_text("0")
    return f"runs/1/{name}"


@pytest.fixture
def world(tmp_path):
    seen = []
    made = Removal(tmp_path, seen.append, logging.getLogger("test"))
    yield tmp_path, made, seen
    made.close()


def test_all_are_gone_once_it_is_settled(world):
    root, removal, seen = world
    paths = [checkpoint(root, name) for name in ("4-1.1", "8-1.2")]
    removal.remove(paths)
    removal.remove([])
    removal.settle()
    assert list((root / "runs" / "1").iterdir()) == []
    assert seen == [CommitPoint.CHECKPOINTS_REMOVED]
    removal.close()
    removal.remove([checkpoint(root, "12-1.3")])  # another thread
    removal.settle()
    assert list((root / "runs" / "1").iterdir()) == []


def test_one_that_cannot_be_deleted_is_logged_and_the_others_go(world, monkeypatch, caplog):
    root, removal, seen = world
    paths = [checkpoint(root, name) for name in ("4-1.1", "8-1.2")]

    own = folders.remove_folder

    def refuse(folder, path):
        if path == paths[0]:
            raise SystemExit("no")
        own(folder, path)

    monkeypatch.setattr(folders, "remove_folder", refuse)
    removal.remove(paths)
    removal.settle()
    assert "was not removed" in caplog.text
    assert seen == [CommitPoint.CHECKPOINTS_REMOVED]
    assert [(root / path).exists() for path in paths] == [True, False]


def test_while_the_process_ends_they_stay(world, caplog):
    root, removal, _ = world
    removal.remove([checkpoint(root, "4-1.1")])
    removal.settle()
    removal._thread.shutdown()  # noqa: SLF001 - as the interpreter does at its end
    path = checkpoint(root, "8-1.2")
    with caplog.at_level("INFO"):
        removal.remove([path])
    assert (root / path).exists()
    assert "stay for now" in caplog.text
