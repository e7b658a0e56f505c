"""A folder is whole or not there, and is known again."""

import errno
import os

import pytest

from rf_notebook.core.errors import CheckpointDamaged, StorageFull
from rf_notebook.training.checkpoints import remove_folder, remove_orphans, safe_path, verify_folder, write_folder


def write(root, relative="runs/1/8", text="hello"):
    def fill(folder):
        (folder / "a.txt").write_text(text)
        (folder / "inner").mkdir()
        (folder / "inner" / "b.bin").write_bytes(b"\0" * 100)

    return write_folder(root, relative, fill, steps=8, samples=16)


def test_a_written_folder_is_verified_and_found(tmp_path):
    folder = write(tmp_path)
    assert folder.bytes == 105
    assert (verify_folder(tmp_path, folder) / "a.txt").read_text() == "hello"
    assert [p.name for p in (tmp_path / "runs" / "1").iterdir()] == ["8"]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "add", "manifest", "all"])
def test_any_damage_is_found(tmp_path, damage):
    folder = write(tmp_path)
    path = tmp_path / folder.path
    match damage:
        case "flip":
            (path / "inner" / "b.bin").write_bytes(b"\0" * 99 + b"\1")
        case "truncate":
            (path / "inner" / "b.bin").write_bytes(b"\0" * 99)
        case "remove":
            (path / "a.txt").unlink()
        case "add":
            (path / "evil.pt").write_bytes(b"x")
        case "manifest":
            (path / "manifest.json").write_text("{}")
        case "all":
            remove_folder(tmp_path, folder.path)
    with pytest.raises(CheckpointDamaged, match="runs/1/8"):
        verify_folder(tmp_path, folder)


@pytest.mark.parametrize("path", ["../outside", "/etc", "runs/../../x", ""])
def test_a_record_cannot_point_outside_the_experiment(tmp_path, path):
    with pytest.raises(CheckpointDamaged, match="outside"):
        safe_path(tmp_path, path)
    with pytest.raises(CheckpointDamaged, match="outside"):
        remove_folder(tmp_path, path)


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    def fill(folder):
        (folder / "a").write_text("x")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageFull, match="Free some disk space"):
        write_folder(tmp_path, "runs/1/8", fill, steps=1, samples=1)
    assert not list((tmp_path / "runs" / "1").iterdir())


def test_writing_again_replaces(tmp_path):
    write(tmp_path)
    folder = write(tmp_path, text="again")
    assert (verify_folder(tmp_path, folder) / "a.txt").read_text() == "again"


def test_orphans_go_and_all_else_stays(tmp_path):
    for relative in ("runs/1/8", "runs/1/16", "runs/2/warm_start", "runs/3/warm_start"):
        write(tmp_path, relative)
    (tmp_path / "runs" / "1" / ".writing-24").mkdir()
    (tmp_path / "runs" / "1" / "trainer").mkdir()
    (tmp_path / "runs" / "1" / "notes").mkdir()
    removed = remove_orphans(tmp_path, {"runs/1/16", "runs/2/warm_start"})
    assert removed == ["runs/1/.writing-24", "runs/1/8", "runs/3/warm_start"]
    assert sorted(p.name for p in (tmp_path / "runs" / "1").iterdir()) == ["16", "notes", "trainer"]
