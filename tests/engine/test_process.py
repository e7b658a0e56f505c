"""A runner in a worker process.

What happens when it is killed, and what a kernel's own would have done.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import pytest

from rf_notebook.core.errors import WorkerCannotStart, WorkerLost
from rf_notebook.core.events import RunAdded
from rf_notebook.core.fleet import DeviceFacts
from rf_notebook.core.objects import Objects
from rf_notebook.core.run import RunState
from rf_notebook.core.runner import ReleaseRuns
from rf_notebook.core.state import ExperimentState
from rf_notebook.engine.devices import Devices
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
    killed_at, device = [], []

    def user(run_id, step):
        if (run_id, step) == (2, 13) and not killed_at:
            killed_at.append(world.state.record(2).progress.steps)
            device.append(world.runner.device_of(2))
            world.runner.kill_of(run_id)

    world = World(tmp_path, configs(), on_step=user)
    world.finish()
    assert killed_at
    told = [
        one.event.text for one in world.state.notes if "the process that trains" in one.event.text
    ]
    assert told == [
        f"the process that trains on {device[0]} ended: it was killed, perhaps by the system for want of memory. "
        "Its runs continue from their checkpoints."
    ]
    for run_id, config in enumerate(configs(), start=1):
        assert world.losses(run_id) == alone(tmp_path / str(run_id), config)


def test_a_worker_that_is_asked_to_end_saves_and_loses_no_step(tmp_path):
    asked, steps = [], []

    def user(run_id, step):
        if step > 13 and run_id == 2 and not asked:
            asked.append(world.runner.pid_of(run_id))
            os.kill(asked[0], signal.SIGTERM)
            time.sleep(0.2)

    world = World(tmp_path, configs(), on_step=user)
    listener = world.runner.listener

    def heard(run_id, progress, point):
        steps.append((run_id, progress.steps))
        listener(run_id, progress, point)

    world.runner.listener = heard
    world.finish()
    assert len(steps) == len(set(steps)), "no step was trained twice"
    told = [one.event.text for one in world.state.notes if "about to end" in one.event.text]
    assert len(told) == 1
    assert told[0].endswith("is about to end: it was asked to end (SIGTERM). Its runs are saved.")
    assert asked[0] not in {worker.pid for worker in world.runner.workers.values()}
    for run_id, config in enumerate(configs(), start=1):
        assert world.losses(run_id) == alone(tmp_path / str(run_id), config)


@pytest.mark.on_this_machine  # on a node, the environment is the actor's
def test_a_worker_that_is_started_again_is_where_the_first_one_was(tmp_path, monkeypatch):
    def user(run_id, step):
        if (run_id, step) == (1, 5) and not directories:
            directories.append(psutil.Process(world.runner.pid_of(run_id)).cwd())
            (tmp_path / "elsewhere").mkdir()
            monkeypatch.chdir(tmp_path / "elsewhere")  # as another cell does
            monkeypatch.setenv("RF_TEST_OF_A_CELL", "1")
            world.runner.kill_of(run_id)
        elif (run_id, step) == (1, 6):
            again = psutil.Process(world.runner.pid_of(run_id))
            directories.append(again.cwd())
            assert "RF_TEST_OF_A_CELL" not in again.environ()

    directories = []
    world = World(tmp_path, configs(1), on_step=user)
    world.finish()
    assert len(directories) == 2
    assert directories[0] == directories[1]
    assert world.state.record(1).state is RunState.COMPLETED


def killed(world):
    """Kills the workers, and waits until they are gone; their process ids."""
    lost = {worker.pid for worker in world.runner.workers.values()}
    world.runner.kill()
    for pid in lost:
        with suppress(ChildProcessError):  # the actor has seen to it
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # all is over; the fleet asks why
    for worker in world.runner.workers.values():
        assert worker.pipe.poll(10), "the kernel can know of it"
    return lost


def test_a_worker_that_is_lost_while_nothing_trains_starts_again_for_what_is_asked(tmp_path):
    world = World(tmp_path, configs(1))
    world.finish()
    lost = killed(world)
    made = world.clone(1, warm=True)
    world.turn()
    assert made.result() == 2
    assert {worker.pid for worker in world.runner.workers.values()} != lost
    world.finish()
    assert world.state.record(2).state is RunState.COMPLETED


def test_nothing_is_asked_of_a_device_whose_process_is_not_started_again(tmp_path):
    world = World(tmp_path, configs(1))
    world.finish()
    killed(world)
    devices = Devices(world.runner)  # whose losses nobody takes care of
    with pytest.raises(WorkerLost, match="it was killed"):
        devices.do(devices.all[0], ReleaseRuns(run_ids=(1,)))


def test_a_run_whose_process_dies_again_and_again_fails_alone(tmp_path):
    def user(run_id, step):
        if (run_id, step) == (1, 5):
            world.runner.kill_of(run_id)

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
            world.runner.kill_of(run_id)

    answers: list[Any] = []
    world = World(tmp_path, configs(1), on_step=user)
    while not answers or not answers[0].done():
        world.turn()
    assert answers[0].result() == 1
    assert world.state.record(1).state is RunState.STOPPED
    assert world.state.record(1).progress.steps == 8, (
        "the chunk in progress is lost, and nothing else"
    )


def test_a_worker_that_is_killed_while_it_starts_is_started_again(tmp_path):
    world = World(tmp_path, configs(1))
    world.runner.kill()  # it imports what it needs
    world.finish()
    assert world.losses(1) == alone(tmp_path / "1", configs()[0])


def test_an_error_of_the_device_that_stays_ends_the_process_and_no_run(tmp_path):
    world = World(tmp_path, configs(2), breaks_at=20)
    world.finish()
    for run_id, config in enumerate(configs(2), start=1):
        assert world.state.record(run_id).state is RunState.COMPLETED
        assert world.losses(run_id) == alone(tmp_path / str(run_id), config)
    told = [one.event.text for one in world.state.notes]
    words = (
        "it ended with status 1: the device takes no more work: CUDA error: illegal memory access"
    )
    assert any(words in text for text in told), told


class Unstartable:
    """A recipe that fails where the worker opens it."""

    @contextmanager
    def cooked(self, folder, objects, listener, log):
        raise ImportError("no module named 'somewhere'")
        yield


def test_a_worker_that_cannot_start_is_an_error_with_its_last_words(tmp_path):
    fleet = ProcessFleet(
        Unstartable(),
        Objects(),
        folder=tmp_path,
        devices=[DeviceFacts(name="cpu")],
        log=logging.Logger("test"),
    )
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
    for worker in world.runner.workers.values():
        process = psutil.Process(worker.pid)
        assert process.net_connections() == []
        worker.pipe.close()  # as when the kernel is killed
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
    until = time.monotonic() + 5
    while any(is_alive(worker.pid) for worker in world.runner.workers.values()):
        assert time.monotonic() < until
        time.sleep(0.01)


def is_alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
