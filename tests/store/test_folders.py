"""A folder is whole or not there, and is known again."""

import errno
import hashlib
import os

import pytest

from rf_notebook.core.errors import CheckpointDamaged, StorageFull
from rf_notebook.store import folders
from rf_notebook.store.folders import (
    remove_folder,
    remove_orphans,
    safe_path,
    verify_folder,
    write_folder,
)


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


def test_what_somebody_has_written_is_not_replaced(tmp_path):
    folder = write(tmp_path)
    with pytest.raises(FileExistsError, match="runs/1/8"):
        write(tmp_path, text="again")
    assert (verify_folder(tmp_path, folder) / "a.txt").read_text() != "again"
    assert [path.name for path in (tmp_path / "runs" / "1").iterdir()] == ["8"], (
        "and nothing is left behind"
    )


def test_orphans_go_and_all_else_stays(tmp_path):
    for relative in (
        "runs/1/8",
        "runs/1/16-3.7",
        "runs/1/8-2.4",
        "runs/2/warm_start",
        "runs/3/warm_start-1.1",
    ):
        write(tmp_path, relative)
    (tmp_path / "runs" / "1" / ".writing-24-3.8").mkdir()
    (tmp_path / "runs" / "1" / "trainer").mkdir()
    (tmp_path / "runs" / "1" / "notes").mkdir()
    removed = remove_orphans(tmp_path, {"runs/1/16-3.7", "runs/2/warm_start"})
    assert removed == [
        "runs/1/.writing-24-3.8",
        "runs/1/8",
        "runs/1/8-2.4",
        "runs/3/warm_start-1.1",
    ]
    assert sorted(p.name for p in (tmp_path / "runs" / "1").iterdir()) == [
        "16-3.7",
        "notes",
        "trainer",
    ]


# ---- links


@pytest.fixture
def strangers(tmp_path):
    """A folder outside with what looks like ours."""
    outside = tmp_path / "outside"
    for name in ("2024", "8", "warm_start", ".writing-9"):
        (outside / name).mkdir(parents=True)
        (outside / name / "thesis.tex").write_text("years of work")
    return outside


def untouched(strangers):
    return all(
        (strangers / name / "thesis.tex").exists()
        for name in ("2024", "8", "warm_start", ".writing-9")
    )


@pytest.mark.parametrize("link", ["runs", "runs/more", "runs/1", "runs/1/8"])
def test_nothing_behind_a_link_is_deleted(tmp_path, strangers, link):
    root = tmp_path / "root"
    (root / link).parent.mkdir(parents=True, exist_ok=True)
    (root / link).symlink_to(
        strangers.parent if link == "runs" else strangers / "8" if link.endswith("8") else strangers
    )
    remove_orphans(root, set())
    for relative in (
        "runs/outside/8",
        "runs/more/8",
        "runs/more/2024",
        "runs/1/8",
        "runs/1/warm_start",
    ):
        remove_folder(root, relative)
    assert untouched(strangers)
    assert (root / link).is_symlink()


def test_nothing_behind_a_link_is_replaced(tmp_path, strangers):
    root = tmp_path / "root"
    (root / "runs").mkdir(parents=True)
    (root / "runs" / "1").symlink_to(strangers)
    with pytest.raises(FileExistsError, match="runs/1/8"):
        write(root)
    assert untouched(strangers)
    folder = write(
        root, "runs/1/16"
    )  # a folder that somebody moved to another disk is still written to
    assert verify_folder(root, folder).exists()


def test_a_folder_on_another_disk_is_no_orphan(tmp_path, monkeypatch):
    from rf_notebook.store import folders

    ours, theirs = write(tmp_path, "runs/1/8"), write(tmp_path, "runs/2/8")
    real = folders.Path.lstat

    def lstat(path):
        found = real(path)
        elsewhere = "2" in path.parts
        return os.stat_result((*found[:2], found.st_dev + elsewhere, *found[3:]))

    monkeypatch.setattr(folders.Path, "lstat", lstat)
    assert remove_orphans(tmp_path, set()) == [ours.path]
    assert (tmp_path / theirs.path).exists()


@pytest.mark.parametrize("size", [0, 1, 4, 5, 12])
def test_a_file_is_hashed_whole_in_whatever_pieces(tmp_path, monkeypatch, size):
    monkeypatch.setattr(folders, "_PIECE", 4)
    path = tmp_path / "file"
    path.write_bytes(bytes(range(size)))
    assert folders._sha256(path) == hashlib.sha256(bytes(range(size))).hexdigest()  # noqa: SLF001 - no other way to ask it
