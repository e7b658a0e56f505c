"""A runner in a worker process.

What happens when it is killed, and what a kernel's own would have done.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from rf_notebook.core.errors import WorkerCannotStart
from rf_notebook.core.events import RunAdded
from rf_notebook.core.objects import Objects
from rf_notebook.core.run import RunState
from rf_notebook.core.state import ExperimentState
from rf_notebook.engine.loop import Engine
from rf_notebook.record.compare import compare
from rf_notebook.runners.process import ProcessFleet
from rf_notebook.store.lease import this_process
from rf_notebook.store.memory import MemoryStore
from rf_notebook.testing.fake_runner import FakeRunner, fake_config
from tests.engine.test_random_operations import KINDS, late, often_full, play
from tests.engine.test_script import operations, recorded_world, replayed
from tests.engine.world import World, configs

pytestmark = pytest.mark.in_worker


def alone(tmp_path, config):
    world = World(tmp_path / "alone", [config])
    world.finish()
    return world.losses(1)


@pytest.mark.parametrize("seed", range(4))
def test_operations_at_random_steps(tmp_path, seed):
    rng = random.Random(seed)
    script = sorted((rng.randint(0, 200), rng.choice(KINDS), rng.randint(1, 7)) for _ in range(8))
    disk = {"writer": late(rng), "observer": often_full(rng)} if seed % 2 else {}
    play(tmp_path, script, rng, **disk)


@pytest.mark.parametrize("seed", range(2))
def test_a_replay_gives_the_same(tmp_path, seed):
    rng = random.Random(seed)
    kinds = [kind for kind in KINDS if kind != "restart"]
    played = [(rng.randint(0, 120), rng.choice(kinds), rng.randint(1, 6)) for _ in range(8)]
    original = recorded_world(tmp_path / "original", played, configs(3))
    again = replayed(tmp_path / "again", original.state, operations(original), configs(3))
    assert [one.difference for one in compare(original.state, again.state) if one.difference] == []


def test_a_worker_that_is_killed_inside_a_chunk_loses_that_chunk_only(tmp_path):
    killed_at = []

    def user(run_id, step):
        if (run_id, step) == (2, 13) and not killed_at:
            killed_at.append(world.state.record(2).progress.steps)
            world.runner.kill()

    world = World(tmp_path, configs(), on_step=user)
    world.finish()
    assert killed_at
    told = [
        one.event.text
        for one in world.state.notes
        if "the process that trains ended" in one.event.text
    ]
    assert told == [
        "the process that trains ended: it was killed, perhaps by the system for want of memory. "
        "Its runs continue from their checkpoints."
    ]
    for run_id, config in enumerate(configs(), start=1):
        assert world.losses(run_id) == alone(tmp_path / str(run_id), config)


def test_a_worker_that_is_started_again_is_where_the_first_one_was(tmp_path, monkeypatch):
    def user(run_id, step):
        if (run_id, step) == (1, 5) and not directories:
            directories.append(psutil.Process(world.runner.pid).cwd())
            (tmp_path / "elsewhere").mkdir()
            monkeypatch.chdir(tmp_path / "elsewhere")  # as another cell does
            monkeypatch.setenv("RF_TEST_OF_A_CELL", "1")
            world.runner.kill()
        elif (run_id, step) == (1, 6):
            again = psutil.Process(world.runner.pid)
            directories.append(again.cwd())
            assert "RF_TEST_OF_A_CELL" not in again.environ()

    directories = []
    world = World(tmp_path, configs(1), on_step=user)
    world.finish()
    assert len(directories) == 2
    assert directories[0] == directories[1]
    assert world.state.record(1).state is RunState.COMPLETED


def test_a_run_whose_process_dies_again_and_again_fails_alone(tmp_path):
    def user(run_id, step):
        if (run_id, step) == (1, 5):
            world.runner.kill()

    lonely = configs()[1]
    world = World(tmp_path, [fake_config(seed=1), lonely], on_step=user)  # odd seeds train alone
    world.finish()
    record = world.state.record(1)
    assert record.state is RunState.FAILED
    assert record.failure.message.startswith(
        "the process that trained it ended 3 times: it was killed"
    )
    assert world.state.record(2).state is RunState.COMPLETED
    assert world.losses(2) == alone(tmp_path / "2", lonely)


def test_a_stop_while_the_worker_dies_is_a_stop_where_the_run_is_committed(tmp_path):
    def user(run_id, step):
        if (run_id, step) == (1, 11):
            answers.append(world.stop(1))
            world.runner.kill()

    answers: list[Any] = []
    world = World(tmp_path, configs(1), on_step=user)
    while not answers or not answers[0].done():
        world.turn()
    assert answers[0].result() == 1
    assert world.state.record(1).state is RunState.STOPPED
    assert world.state.record(1).progress.steps == 8, (
        "the chunk in progress is lost, and nothing else"
    )


class Unstartable:
    """A recipe that fails where the worker opens it."""

    @contextmanager
    def cooked(self, objects, listener, log):
        raise ImportError("no module named 'somewhere'")
        yield


def test_a_worker_that_cannot_start_is_an_error_with_its_last_words(tmp_path):
    fleet = ProcessFleet(Unstartable(), Objects(), device="cpu", log=logging.Logger("test"))
    store = MemoryStore()
    fence = store.acquire(this_process())
    rules = FakeRunner(tmp_path)
    engine = Engine(store, fleet, ExperimentState(), fence=fence, folder=tmp_path, rules=rules)
    engine.commit([RunAdded(run_id=1, config=fake_config())])
    try:
        with pytest.raises(
            WorkerCannotStart,
            match="could not start: it ended with status 1: ImportError: no module",
        ):
            engine.turn()
    finally:
        fleet.close()
    assert engine.state.record(1).state is RunState.QUEUED, "no run is to blame"


def test_the_worker_ends_with_the_kernel_and_opens_nothing(tmp_path):
    world = World(tmp_path, configs(1))
    world.turn()
    process = psutil.Process(world.runner.pid)
    assert process.net_connections() == []
    world.runner._pipe.close()  # noqa: SLF001 - as when the kernel is killed
    process.wait(10)


def test_an_abandoned_worker_is_gone_at_once(tmp_path):
    world = World(tmp_path, configs(1), on_step=lambda _run_id, _step: time.sleep(0.01))
    turning = threading.Thread(target=world.turn)
    turning.start()
    time.sleep(0.1)
    world.engine.interrupt()
    world.runner.abandon()
    turning.join(10)
    assert not turning.is_alive()
    assert (
        not psutil.pid_exists(world.runner.pid)
        or psutil.Process(world.runner.pid).status() == psutil.STATUS_ZOMBIE
    )
