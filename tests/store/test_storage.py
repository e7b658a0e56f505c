"""Checkpoints in a bucket (moto's server, which fails as it is told) and on a mount."""

import contextlib
import json
import random
import shutil

import pytest

from rf_notebook.core.errors import CheckpointDamaged, ConfigError, StorageFull
from rf_notebook.store import folders, layout
from rf_notebook.store.folders import is_stand_in, verify_folder, write_folder, write_stand_in
from rf_notebook.store.storage import Storage, take_from
from rf_notebook.store.storage_place import known_place, stand_ins, use_place

PATH = "runs/1/4-1.1"
BYTES = random.Random(1).randbytes(40_000_000)  # more than one piece


def checkpoint(root, path=PATH, large=b"weights"):
    def fill(folder):
        (folder / "weights.bin").write_bytes(large)
        (folder / "more").mkdir()
        (folder / "more" / "empty.txt").write_text("")

    return write_folder(root, path, fill, steps=4, samples=8)


@pytest.fixture(params=["bucket", "mount"])
def storage(request, tmp_path):
    if request.param == "mount":
        (tmp_path / "mount").mkdir()
        return Storage(str(tmp_path / "mount"), "exp-1")
    return Storage(request.getfixturevalue("bucket").address, "exp-1")


def test_a_folder_comes_back_as_it_was(storage, tmp_path):
    storage.enter("token", is_first=True)
    saved = checkpoint(tmp_path / "a", large=BYTES)
    storage.put(tmp_path / "a", PATH)
    storage.put(tmp_path / "a", PATH)  # again, when an answer was lost
    assert storage.has(saved)
    assert storage.folders() == [PATH]
    storage.take(tmp_path / "b", saved)
    assert (verify_folder(tmp_path / "b", saved) / "weights.bin").read_bytes() == BYTES
    storage.remove(PATH)
    storage.remove(PATH)
    assert not storage.has(saved)
    assert storage.folders() == []
    with pytest.raises(CheckpointDamaged, match=r"runs/1/4-1\.1 is no longer in .*exp-1\."):
        storage.take(tmp_path / "c", saved)
    assert not list((tmp_path / "c").glob("runs/*/*")), "nothing is left of it"


def test_what_is_not_what_was_recorded_is_refused(storage, tmp_path):
    storage.enter("token", is_first=True)
    saved, other = checkpoint(tmp_path / "a"), checkpoint(tmp_path / "b", large=b"others")
    storage.put(tmp_path / "b", PATH)
    with pytest.raises(CheckpointDamaged, match="is not the one that was recorded"):
        storage.take(tmp_path / "c", saved)
    system, base = storage._place  # noqa: SLF001 - somebody changes a file
    with system.open_output_stream(f"{base}/{PATH}/weights.bin") as stream:
        stream.write(b"damage")
    with pytest.raises(CheckpointDamaged, match=r"arrived otherwise.*weights\.bin is not the file"):
        storage.take(tmp_path / "c", other)
    system.delete_file(f"{base}/{PATH}/weights.bin")
    with pytest.raises(CheckpointDamaged, match=r"weights\.bin is no longer in"):
        storage.take(tmp_path / "c", other)


def test_machines_see_whether_they_share_it(storage, tmp_path):
    storage.enter("token", is_first=True)
    storage.enter("token", is_first=False)
    with pytest.raises(ConfigError, match="is not the same place on all machines"):
        storage.enter("other", is_first=False)
    storage.leave()
    with pytest.raises(ConfigError, match="is not the same place on all machines"):
        storage.enter("token", is_first=False)
    storage.leave()


def test_a_mount_that_is_away_is_written_nowhere_and_loses_no_run(tmp_path):
    mount = Storage(str(tmp_path / "mount"), "exp-1")
    saved = checkpoint(tmp_path / "a")
    for ask in (
        lambda: mount.enter("token", is_first=True),
        lambda: mount.put(tmp_path / "a", PATH),
        lambda: mount.take(tmp_path / "b", saved),
    ):
        with pytest.raises(StorageFull, match="does not answer as it should: it is not there"):
            ask()
    assert not (tmp_path / "mount").exists()


@pytest.mark.parametrize("address", ["foo://x/y", "s3:///x", "s3://b/x?nothing=1"])
def test_an_address_that_nobody_knows_is_a_sentence(address):
    with pytest.raises(ConfigError, match=r"is not an address that pyarrow knows: \w+"):
        Storage(address, "exp-1").enter("token", is_first=True)
    Storage(address, "exp-1").leave()  # hides no sentence


@pytest.mark.slow
def test_a_store_that_fails_now_and_then_or_is_slow_loses_nothing(bucket, tmp_path):
    """Half of all answers are 503; pyarrow asks again, and so do we when it gives up."""
    storage, draw = Storage(bucket.address, "exp-1"), random.Random(3)
    storage.enter("token", is_first=True)
    saved = checkpoint(tmp_path / "a")
    bucket.seconds, bucket.refuses = 0.01, lambda *_: draw.random() < 0.5

    def until_done(ask):
        for _ in range(60):
            with contextlib.suppress(StorageFull):
                ask()
                return
        raise AssertionError("it never worked")

    until_done(lambda: storage.put(tmp_path / "a", PATH))
    until_done(lambda: storage.take(tmp_path / "b", saved))
    verify_folder(tmp_path / "b", saved)
    until_done(lambda: storage.remove(PATH))
    assert bucket.refused > 5
    bucket.refuses = lambda *_: False
    assert [name for name in bucket.names() if "runs" in name] == []


@pytest.mark.slow
def test_a_folder_without_its_manifest_is_written_anew(bucket, tmp_path):
    """The writer was killed, or the store took the files and not the manifest."""
    storage = Storage(bucket.address, "exp-1")
    saved = checkpoint(tmp_path / "a")
    bucket.refuses = lambda method, path: (
        method in ("PUT", "POST") and path.endswith("manifest.json")
    )
    with pytest.raises(StorageFull, match=r"does not answer as it should: .*503"):
        storage.put(tmp_path / "a", PATH)
    bucket.refuses = lambda *_: False
    assert any(name.endswith("weights.bin") for name in bucket.names())
    assert not storage.has(saved)
    assert storage.folders() == [PATH], "so that it can be removed"
    storage.put(tmp_path / "a", PATH)
    storage.take(tmp_path / "b", saved)


def test_names_that_lead_outside_reach_nothing(storage, tmp_path):
    storage.enter("token", is_first=True)
    for path in ("../x", "/etc", "runs/../../x"):
        for ask in (storage.remove, lambda path: storage.put(tmp_path, path)):
            with pytest.raises(CheckpointDamaged, match="outside the experiment"):
                ask(path)


# ---- what the experiment's folder has of it


def stood_in_for(root, elsewhere):
    saved = checkpoint(elsewhere)
    manifest = (elsewhere / PATH / folders.MANIFEST).read_bytes()
    write_stand_in(root, saved, manifest)
    return saved


def test_a_manifest_stands_in_for_a_folder_until_it_is_brought(storage, tmp_path, monkeypatch):
    storage.enter("token", is_first=True)
    root = tmp_path / "experiment"
    saved = stood_in_for(root, tmp_path / "a")
    assert is_stand_in(root, PATH)
    assert stand_ins(root) == [PATH]
    with pytest.raises(CheckpointDamaged, match="lies in the experiment's storage; give run_fit"):
        verify_folder(root, saved)
    storage.put(tmp_path / "a", PATH)
    left, own = [1], type(root).replace

    def replace(self, target):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return own(self, target)

    with monkeypatch.context() as cut:
        cut.setattr(type(root), "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            storage.take(root, saved)
    assert is_stand_in(root, PATH), "one of its files is not there yet"
    storage.take(root, saved)
    assert not is_stand_in(root, PATH)
    verify_folder(root, saved)
    assert [one.name for one in (root / "runs" / "1").iterdir()] == ["4-1.1"]


def test_a_manifest_that_is_another_one_stands_in_for_nothing(tmp_path):
    saved = checkpoint(tmp_path / "a")
    with pytest.raises(CheckpointDamaged, match="is not the one that was recorded"):
        write_stand_in(tmp_path / "e", saved, b"{}")
    assert not (tmp_path / "e").exists()
    for text in ("", "[]", "3", '{"weights.bin"'):
        (tmp_path / "a" / PATH / folders.MANIFEST).write_text(text)
        assert not is_stand_in(tmp_path / "a", PATH)


@pytest.fixture
def experiment(tmp_path):
    folder = tmp_path / "experiment"
    folder.mkdir()
    layout.record(folder).touch()
    return folder


def test_the_place_of_an_experiment_is_kept(experiment):
    assert known_place(experiment) is None
    place = use_place(experiment, "s3://bucket/x", "my run + 1")
    assert place.names[0].startswith("my_run___1-")
    assert use_place(experiment, "s3://bucket/x", "other") == place == known_place(experiment)
    moved = use_place(experiment, "/mnt/x", "my run")
    assert len(moved.names) == 1, "nothing lay there"
    stood_in_for(experiment, experiment.parent / "a")
    with pytest.raises(ConfigError, match=r"'s3://b/x': checkpoints .* lie in '/mnt/x'; give that"):
        use_place(experiment, "s3://b/x", "my run")


def test_a_copy_of_an_experiment_writes_and_deletes_where_the_first_one_does_not(
    experiment, storage, tmp_path
):
    first = use_place(experiment, storage.address, "e")
    saved = stood_in_for(experiment, tmp_path / "a")
    mine = first.opened()[0]
    mine.enter("token", is_first=True)
    mine.put(tmp_path / "a", PATH)
    copy = tmp_path / "copy"
    shutil.copytree(experiment, copy)
    second = use_place(copy, storage.address, "e")
    assert second.names[1:] == first.names
    assert second.names[0] not in first.names
    theirs = second.opened()
    theirs[0].enter("token", is_first=True)
    assert theirs[0].folders() == []
    take_from(theirs, copy, saved)
    verify_folder(copy, saved)


@pytest.mark.parametrize(
    "noted",
    [
        "", "3", "[]", "{}", '{"address": 3, "names": ["e-0123456789abcdef"]}',
        '{"address": "/x", "names": []}', '{"address": "/x", "names": ["../../etc"]}',
        '{"address": "/x", "names": [3]}',
    ],
)  # fmt: skip
def test_a_note_that_is_none_says_nothing(experiment, noted):
    layout.storage(experiment).write_text(noted)
    assert known_place(experiment) is None
    use_place(experiment, "/mnt/x", "e")
    assert json.loads(layout.storage(experiment).read_text())["address"] == "/mnt/x"
