"""What lies between a kernel and a worker on a node, without a cluster: an actor is an object here."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
from multiprocessing import Pipe
from pathlib import Path

import pytest
import ray

from rf_notebook.core.errors import CheckpointDamaged, ConfigError, StorageFull
from rf_notebook.core.fleet import Answer, DeviceTurn, Leaving, TurnFailed, TurnOver
from rf_notebook.core.run import Progress
from rf_notebook.core.runner import (
    ChunkRequest,
    ChunkResult,
    ReleaseRuns,
    Saved,
    TurnOutcome,
    WriteModel,
)
from rf_notebook.runners.cluster import carried, carrier
from rf_notebook.runners.cluster.carried import Carried, call_of
from rf_notebook.runners.cluster.carrier import Carrier, NodeFacts
from rf_notebook.runners.cluster.files import NodeFiles, Stored
from rf_notebook.runners.cluster.scratch import Scratch
from rf_notebook.runners.messages import (
    Ask,
    Begin,
    Close,
    Gone,
    Interrupt,
    LogLine,
    OpenExperiment,
    Placed,
)
from rf_notebook.store import copies
from rf_notebook.store.folders import is_stand_in, verify_folder, write_folder
from rf_notebook.store.storage_place import StoragePlace
from rf_notebook.testing.fake_runner import fake_config
from tests.engine.carried import Handle

OPEN = OpenExperiment(recipe=b"", folder="/kernel")


class WorkerLink:
    """See ProcessLink: the test is the worker."""

    def __init__(self):
        self.pipe, self.worker = Pipe()
        self.send, self.send_bytes = self.pipe.send, self.pipe.send_bytes

    def gone(self):
        return Gone(reason="it ended")

    def end(self, _seconds):
        self.worker.close()


class Cluster:
    """See the module ray; loses answers, and then the actor, as it is told."""

    exceptions = ray.exceptions

    def __init__(self):
        self.loses_answers, self.gone = 0, set()

    def get(self, call, timeout=None):
        if call.func.__self__ in self.gone:
            raise ray.exceptions.ActorDiedError
        answer = call()
        if self.loses_answers:
            self.loses_answers -= 1
            raise ray.exceptions.ActorUnavailableError("the network", b"0" * 16)
        return answer

    def kill(self, handle):
        """Nothing is left of it."""


class World:
    """A kernel's pipe, a bridge's thread, an actor, and the worker's pipe."""

    def __init__(self, folder, node):
        self.folder, self.node = folder, node
        self.cluster, self.links, self.actors = Cluster(), [], []
        self.files = NodeFiles(folder)
        self.drained_at = self.storage = None
        self.kernel, theirs = Pipe()
        self.carried = Carried(theirs, self.place, self.cluster)
        self.thread = threading.Thread(target=self.carried.serve)
        self.thread.start()

    def place(self):
        actor = Carrier("token", "cpu", self.storage)
        self.actors.append(actor)
        facts = NodeFacts(
            node="n", host="h", folder=str(self.node), folder_identity="f", python="3", versions={}
        )
        return Handle(actor), facts, self.files

    @property
    def worker(self):
        return self.links[-1].worker

    def open(self):
        before = len(self.links)
        self.kernel.send(OPEN)
        while len(self.links) == before:
            self.thread.join(0.01)
        assert self.heard_by_kernel() == Placed(host="h")
        return self.heard_by_worker()

    def heard_by_worker(self):
        assert self.worker.poll(10)
        return self.worker.recv()

    def heard_by_kernel(self):
        assert self.kernel.poll(10)
        return self.kernel.recv()

    def checkpoint_on_node(self, path="runs/1/4-1.1", text="weights"):
        return write_folder(
            self.node, path, lambda f: (f / "a.txt").write_text(text) and None, steps=4, samples=8
        )

    def close(self):
        self.kernel.close()
        self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(carried, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(carried, "_HEAR_SECONDS", 0.05)
    folder = tmp_path / "experiment"
    folder.mkdir()
    made = World(folder, tmp_path / f"rf-notebook-{os.getuid()}" / "token")

    def start(_place, _write_down):
        made.links.append(WorkerLink())
        return made.links[-1]

    monkeypatch.setattr(carrier, "worker_link", start)
    monkeypatch.setattr(carrier, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(carrier, "_drained_at", lambda: made.drained_at)
    yield made
    made.close()


def result(saved=None):
    return ChunkResult(
        run_id=1,
        fence=1,
        outcome=TurnOutcome.BOUNDARY,
        progress=Progress(steps=4, samples=8, chunks=1),
        checkpoint=saved,
    )


def test_messages_arrive_once_and_in_order_whatever_answers_are_lost(world):
    assert world.open().folder == str(world.node), "the worker's folder is the node's"
    for number in range(40):
        world.cluster.loses_answers = number % 3
        world.kernel.send(Interrupt(turn=number))
        world.worker.send(Answer(errand=number))
    assert [world.heard_by_worker().turn for _ in range(40)] == list(range(40))
    assert [world.heard_by_kernel().errand for _ in range(40)] == list(range(40))


def test_a_lost_actor_is_told_of_once_and_what_it_says_later_is_dropped(world):
    world.open()
    world.cluster.gone.add(world.actors[0])
    assert "the cluster lost it" in world.heard_by_kernel().reason
    late = world.worker
    world.open()
    late.send(Answer(errand=1))
    world.worker.send(Answer(errand=2))
    assert world.heard_by_kernel() == Answer(errand=2)
    assert not world.kernel.poll(0.3)


def test_a_worker_that_ends_is_told_of_with_its_reason_and_closes(world):
    world.open()
    world.links[-1].worker.close()
    assert world.heard_by_kernel() == Gone(reason="it ended")
    world.kernel.send(Close())
    assert isinstance(world.heard_by_kernel(), Gone)


def test_a_checkpoint_is_here_before_the_message_that_names_it(world):
    world.open()
    saved = world.checkpoint_on_node()
    world.worker.send(Saved(run_id=1, steps=4, checkpoint=saved))
    assert world.heard_by_kernel().checkpoint == saved
    assert (verify_folder(world.folder, saved) / "a.txt").read_text() == "weights"
    shutil.rmtree(world.folder / saved.path)  # superseded
    world.worker.send(TurnOver(turn=1, results=(result(),), seconds=1.0))
    assert isinstance(world.heard_by_kernel(), TurnOver)
    assert not (world.node / saved.path).exists(), "the node's copy goes, too"


@pytest.mark.parametrize("error", [StorageFull("no room"), OSError(28, "No space left on device")])
def test_a_full_disk_here_is_an_error_of_the_message_and_is_made_up_for(world, monkeypatch, error):
    world.open()
    saved = world.checkpoint_on_node()

    def refused(*_arguments):
        raise error

    with monkeypatch.context() as full:
        full.setattr(copies, "take_folder", refused)
        world.worker.send(Saved(run_id=1, steps=4, checkpoint=saved))
        told = world.heard_by_kernel()
        assert (told.checkpoint, repr(told.error)) == (None, repr(error))
        world.worker.send(TurnOver(turn=3, results=(result(saved),), seconds=1.0))
        failed = world.heard_by_kernel()
        assert isinstance(failed, TurnFailed)
        assert (failed.turn, repr(failed.error)) == (3, repr(error))
        world.worker.send(Answer(errand=5, value=saved))
        assert repr(world.heard_by_kernel().error) == repr(error)
    world.worker.send(TurnOver(turn=4, results=(result(saved),), seconds=1.0))
    assert world.heard_by_kernel().results[0].checkpoint == saved
    verify_folder(world.folder, saved)


def test_a_checkpoint_that_arrives_damaged_loses_the_worker_and_nothing_else(world):
    world.open()
    saved = world.checkpoint_on_node()
    (world.node / saved.path / "a.txt").write_text("changed")
    world.worker.send(Saved(run_id=1, steps=4, checkpoint=saved))
    told = world.heard_by_kernel()
    assert isinstance(told, Gone)
    assert "arrived otherwise than it was written" in told.reason
    assert not (world.folder / saved.path).exists()
    world.open()


def test_folders_of_a_request_and_data_are_on_the_node_before_it(world):
    (world.folder / "data" / "train").mkdir(parents=True)
    (world.folder / "data" / "train" / "rows").write_bytes(b"r" * 70_000_000)  # several pieces
    world.open()
    assert (world.node / "data" / "train" / "rows").stat().st_size == 70_000_000
    saved = write_folder(
        world.folder,
        "runs/2/4-1.1",
        lambda f: (f / "b").write_text("b") and None,
        steps=4,
        samples=8,
    )
    model = WriteModel(
        config=fake_config(), checkpoint=saved, path=str(world.folder / "out"), merge=False
    )
    world.kernel.send(Begin(turn=DeviceTurn(turn=1, requests=())))
    world.kernel.send(Ask(errand=1, what=model))
    assert isinstance(world.heard_by_worker(), Begin)
    asked = world.heard_by_worker().what
    verify_folder(world.node, saved)
    place = Path(asked.path)
    assert world.node in place.parents, "a model is written on the node first"
    place.mkdir(parents=True)
    (place / "model.bin").write_bytes(b"m")
    world.worker.send(Answer(errand=1))
    assert world.heard_by_kernel() == Answer(errand=1)
    assert (world.folder / "out" / "model.bin").read_bytes() == b"m"
    assert not place.exists()
    world.kernel.send(Ask(errand=2, what=model))
    assert isinstance(world.heard_by_kernel().error, ConfigError), "out is not empty"
    world.kernel.send(Ask(errand=3, what=ReleaseRuns(run_ids=(1,))))
    assert world.heard_by_worker().errand == 3


def test_names_that_lead_outside_are_refused(tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("../x", "/etc/x", "a/../../x"):
        with pytest.raises(CheckpointDamaged, match="outside the experiment"):
            copies.write_piece(tmp_path / "there", copies.Piece(name, 0, b"x"))
    (tmp_path / "there" / "link").symlink_to(tmp_path / "secret")
    assert copies.names_in(tmp_path / "there") == []


def test_a_folder_that_was_removed_and_made_again_is_another_one(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first, second = Scratch("token"), Scratch("token")
    assert first.identity == second.identity
    first.close()
    assert second.path.exists()
    second.close()
    assert not second.path.exists()
    again = Scratch("token")
    assert again.identity != first.identity, "nothing that was sent is there"
    again.close()


def test_a_node_that_is_drained_is_told_of_once(world):
    world.open()
    world.drained_at = time.time() + 30
    notice = world.heard_by_kernel()
    assert isinstance(notice, Leaving)
    assert re.fullmatch(r"its node is drained, in (29|30) s", notice.reason)
    world.worker.send(LogLine(level=20, text="and trains"))
    assert world.heard_by_kernel() == LogLine(level=20, text="and trains")
    assert not world.kernel.poll(0.2)


# ---- a storage


@pytest.fixture
def stored(world, tmp_path):
    """Checkpoints of the world's nodes lie on a mount."""
    (tmp_path / "mount").mkdir()
    world.storage = StoragePlace(address=str(tmp_path / "mount"), names=("exp",))
    world.files = NodeFiles(world.folder, Stored())
    return tmp_path / "mount" / "exp"


def enter(world):
    world.files._stored.enter(call_of(world.cluster, Handle(world.actors[-1])))  # noqa: SLF001 - as the bridge does


def saved_in_storage(world):
    """A checkpoint that a worker has written, and of which the kernel has heard."""
    world.open()
    enter(world)
    saved = world.checkpoint_on_node()
    world.worker.send(Saved(run_id=1, steps=4, checkpoint=saved))
    assert world.heard_by_kernel().checkpoint == saved
    return saved


def asks_for(saved):
    model = WriteModel(config=fake_config(), checkpoint=saved, path="/out", merge=False)
    return Ask(errand=7, what=model)


def test_a_checkpoint_is_in_the_storage_and_its_manifest_here(world, stored):
    saved = saved_in_storage(world)
    assert is_stand_in(world.folder, saved.path)
    assert (stored / saved.path / "a.txt").read_text() == "weights"
    shutil.rmtree(world.folder / saved.path)  # superseded
    world.worker.send(TurnOver(turn=1, results=(result(),), seconds=1.0))
    assert isinstance(world.heard_by_kernel(), TurnOver)
    assert not (world.node / saved.path).exists()
    assert not (stored / saved.path).exists()


def test_a_node_has_what_is_in_the_storage_before_it_is_asked_for_it(world, stored, tmp_path):
    saved = saved_in_storage(world)
    shutil.rmtree(world.node / saved.path)
    other = NodeFiles(world.folder, world.files._stored)  # noqa: SLF001 - of a node that has nothing
    world.files = other
    world.worker.close()
    assert isinstance(world.heard_by_kernel(), Gone)
    world.open()
    world.kernel.send(asks_for(saved))
    assert world.heard_by_worker().errand == 7
    assert (verify_folder(world.node, saved) / "a.txt").read_text() == "weights"


def test_a_storage_that_refuses_is_an_error_of_the_message_and_is_made_up_for(world, stored):
    world.open()
    enter(world)
    saved = world.checkpoint_on_node()
    away = stored.with_name("away")
    stored.rename(away)
    world.worker.send(TurnOver(turn=3, results=(result(saved),), seconds=1.0))
    failed = world.heard_by_kernel()
    assert (type(failed), failed.turn, type(failed.error)) == (TurnFailed, 3, StorageFull)
    away.rename(stored)
    world.worker.send(TurnOver(turn=4, results=(result(saved),), seconds=1.0))
    assert world.heard_by_kernel().results[0].checkpoint == saved
    stored.rename(away)
    world.files._there.clear()  # noqa: SLF001 - as if another node had written it
    shutil.rmtree(world.node / saved.path)
    world.kernel.send(asks_for(saved))
    assert isinstance(world.heard_by_kernel().error, StorageFull)
    request = ChunkRequest(
        run_id=1, config=fake_config(), progress=Progress(), continue_from=saved, warm_start=None,
        fence=1, attempt=1, park_at=None,
    )  # fmt: skip
    world.kernel.send(Begin(turn=DeviceTurn(turn=5, requests=(request,))))
    failed = world.heard_by_kernel()
    assert (type(failed), failed.turn, type(failed.error)) == (TurnFailed, 5, StorageFull)
    away.rename(stored)
    world.kernel.send(Begin(turn=DeviceTurn(turn=6, requests=(request,))))
    assert world.heard_by_worker().turn.turn == 6
    verify_folder(world.node, saved)


def test_what_is_damaged_in_the_storage_is_told_and_missed_by_whoever_needs_it(world, stored):
    saved = saved_in_storage(world)
    world.files._there.clear()  # noqa: SLF001 - as if another node had written it
    shutil.rmtree(world.node / saved.path)
    (stored / saved.path / "a.txt").write_text("changed")
    world.kernel.send(asks_for(saved))
    assert "a.txt is not the file that was recorded" in world.heard_by_kernel().text
    assert world.heard_by_worker().errand == 7
    assert not (world.node / saved.path).exists()


def test_what_was_left_in_the_storage_goes_and_a_killed_kernel_s_checkpoints_stay(world, stored):
    world.open()
    enter(world)
    kept, left = world.checkpoint_on_node(), world.checkpoint_on_node("runs/2/8-1.2")
    for saved in (kept, left):
        world.worker.send(Saved(run_id=1, steps=4, checkpoint=saved))
        assert world.heard_by_kernel().checkpoint == saved
    world.worker.close()
    assert isinstance(world.heard_by_kernel(), Gone)
    shutil.rmtree(world.folder / left.path)  # as the next kernel does with what nobody committed
    world.files = NodeFiles(world.folder, Stored())
    world.open()
    enter(world)
    world.worker.send(TurnOver(turn=1, results=(result(),), seconds=1.0))
    assert isinstance(world.heard_by_kernel(), TurnOver)
    assert (stored / kept.path).exists()
    assert not (stored / left.path).exists()
