"""A checkpoint of a boundary is written while others train, and committed when it is written."""

import random
import threading
from contextlib import contextmanager

import pytest

from rf_notebook.automation import Stop
from rf_notebook.automl.callbacks import RunDecision
from rf_notebook.core.errors import StorageFull
from rf_notebook.core.events import ChunkTrained, OperationObeyed
from rf_notebook.core.ports import CommitPoint
from rf_notebook.core.run import READY, RunState
from rf_notebook.engine.autopilot import Autopilot
from rf_notebook.engine.turns import Idle
from rf_notebook.testing.fake_runner import fake_config
from tests.engine.world import World, alone, configs

pytestmark = pytest.mark.in_kernel


class Desk:
    """Where checkpoints lie until a test has them written."""

    def __init__(self) -> None:
        self.writes = []

    def __call__(self, write):
        self.writes.append(write)

    def clear(self):
        for write in [self.writes.pop(0) for _ in list(self.writes)]:
            write()


@contextmanager
def written_late(desk):
    """What lies on the desk is written by somebody else, a while after it was put there."""
    stop = threading.Event()

    def tidy():
        while not stop.wait(0.001):
            desk.clear()

    thread = threading.Thread(target=tidy)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def finished(world, desk):
    """Turn until nothing is left to do."""
    with written_late(desk):
        world.finish()


def decided(world):
    events = [one.event for one in world.store.read()]
    return [
        (event.operation, event.samples) for event in events if isinstance(event, OperationObeyed)
    ]


def chunks(world, run_id):
    trained = [one.event for one in world.store.read() if isinstance(one.event, ChunkTrained)]
    return [event.progress.chunks for event in trained if event.run_id == run_id]


def test_others_train_meanwhile_and_it_is_committed_at_the_next_step(tmp_path, execution):
    desk, seen = Desk(), []

    def on_step(run_id, step):
        seen.append((run_id, step, world.state.record(1).progress.chunks))
        if len(desk.writes) == 1 and len(seen) % 3 == 0:
            desk.clear()

    given = [fake_config(seed=1), fake_config(seed=3)]
    world = World(tmp_path, given, on_step=on_step, writer=desk)
    world.turn()
    assert world.state.record(1).progress.chunks == 0
    assert world.state.record(1).checkpoints == ()
    world.turn()
    during = [chunks for run_id, _, chunks in seen if run_id == 2]
    assert during[0] == 0
    assert during[-1] == 1
    assert len(world.state.record(1).checkpoints) == 1


def test_what_is_recorded_is_what_is_recorded_without(tmp_path, execution):
    desk = Desk()
    world, plain = World(tmp_path / "a", configs(), writer=desk), World(tmp_path / "b", configs())
    finished(world, desk)
    plain.finish()
    for run_id in (1, 2, 3):
        assert world.losses(run_id) == plain.losses(run_id)
        assert chunks(world, run_id) == chunks(plain, run_id)
        record = world.state.record(run_id)
        assert record.state is RunState.COMPLETED
        steps = [saved.folder.steps for saved in record.checkpoints]
        assert steps == [saved.folder.steps for saved in plain.state.record(run_id).checkpoints]


def test_an_operation_finds_all_committed(tmp_path):
    desk = Desk()
    world = World(tmp_path, [fake_config(seed=1), fake_config(seed=3)], writer=desk)
    world.turn()
    answer = world.stop(1)
    threading.Timer(0.05, desk.clear).start()
    world.turn()
    assert answer.done()
    record = world.state.record(1)
    assert (record.state, record.progress.chunks) == (RunState.STOPPED, 1)
    assert len(record.checkpoints) == 1


def test_live_points_of_the_chunk_in_progress_survive_the_commit_of_the_one_before(tmp_path):
    desk = Desk()

    def on_step(run_id, step):
        if step == 18:
            before = [point.step for point in world.state.live[1].points]
            desk.clear()
            seen.append(before)
        if step == 20:
            seen.append([point.step for point in world.state.live[1].points])
            seen.append([point.step for point in world.state.record(1).all_points()])

    seen = []
    world = World(tmp_path, [fake_config(seed=1, batch_size=1)], on_step=on_step, writer=desk)
    world.turn(2)
    assert seen == [list(range(1, 19)), [17, 18, 19, 20], list(range(1, 17))]


def test_a_kill_loses_what_was_not_written_and_training_gives_it_again(tmp_path, execution):
    desk = Desk()
    world = World(tmp_path, [fake_config(seed=2 * i) for i in range(2)], writer=desk)
    world.turn()
    world.restart()
    assert {record.progress.chunks for record in world.state.runs.values()} == {0}
    desk.writes.clear()
    finished(world, desk)
    for run_id in (1, 2):
        config = world.state.record(run_id).config
        assert world.losses(run_id) == alone(tmp_path / str(run_id), config)


@pytest.mark.parametrize("how_often", [1, 3])
def test_what_could_not_be_written_is_saved_with_what_was_trained_since(tmp_path, how_often):
    failures = [StorageFull("no room")] * how_often

    def full(point):
        if point is CommitPoint.CHECKPOINT_WRITTEN and failures:
            raise failures.pop()

    desk = Desk()
    given = [fake_config(seed=1), fake_config(seed=3)]
    world = World(tmp_path, given, writer=desk, observer=full)
    finished(world, desk)
    assert not failures
    for run_id in (1, 2):
        record = world.state.record(run_id)
        assert record.state is RunState.COMPLETED
        steps = [point.step for point in record.all_points()]
        assert steps == list(range(1, record.progress.total_steps + 1))
        assert world.losses(run_id) == alone(tmp_path / str(run_id), record.config)


def test_a_full_disk_ends_the_turn_and_is_told(tmp_path):
    told, desk, steps = [], Desk(), []

    def full(point):
        if point is CommitPoint.CHECKPOINT_WRITTEN and len(told) < 3:
            raise StorageFull("no room. Free some disk space.")

    def wait_for_room():
        told.append((world.engine.held_up, steps[-1]))
        return True

    def on_step(run_id, step):
        steps.append((run_id, step))
        if (run_id, step) == (2, 2):
            desk.clear()

    given = [fake_config(seed=1, batch_size=1), fake_config(seed=3, batch_size=1)]
    world = World(tmp_path, given, writer=desk, observer=full, on_step=on_step)
    world.restart(wait_for_room=wait_for_room)
    world.turn(3)
    assert told[0] == ("no room. Free some disk space.", (2, 3))
    assert world.engine.held_up is None
    assert world.state.record(1).progress.chunks == 1


class Deciding:
    """A policy that stops run 2 after some chunks, and tells what it saw."""

    name = "deciding"

    def __init__(self, after):
        self.after, self.seen, self.has_decided = after, [], False

    def decide(self, view):
        self.seen.append({run.id: run.chunks for run in view.runs.values()})
        is_due = view.runs[2].chunks == self.after and view.runs[2].is_live
        self.has_decided |= is_due
        return [Stop(2, "enough.")] if is_due else []


def automated(folder, desk, policy, **runner):
    world = World(folder, [fake_config(seed=2 * i) for i in range(3)], writer=desk, **runner)
    world.engine.automate(Autopilot(policy, lambda config, _edits: (config, {})))
    return world


def test_a_policy_is_asked_at_once_and_waits_only_when_it_decides(tmp_path, execution):
    desk, policy, trained = Desk(), Deciding(after=2), []

    def on_step(run_id, step):
        if len(desk.writes) == 3:  # a turn began although nothing is committed yet
            chunks = {record.progress.chunks for record in world.state.runs.values()}
            trained.append((policy.seen[-1], chunks))
            desk.clear()

    world = automated(tmp_path, desk, policy, on_step=on_step)
    while not trained:
        world.turn()
    assert trained == [(dict.fromkeys((1, 2, 3), 1), {0})]
    with written_late(desk):
        while world.state.record(2).state in READY:
            world.turn()
    record = world.state.record(2)
    assert (record.state, record.progress.chunks) == (RunState.STOPPED, 2)
    assert record.checkpoints[-1].progress.chunks == 2


def test_while_those_that_a_policy_stops_are_being_saved_the_others_train_on(tmp_path, execution):
    desk, policy, trained = Desk(), Deciding(after=1), []

    def on_step(run_id, step):
        if world.engine.state.record(2).state is not RunState.STOPPED and policy.has_decided:
            trained.append((run_id, len(desk.writes)))
            if len(trained) == 3:
                desk.clear()

    world = automated(tmp_path, desk, policy, on_step=on_step)
    while len(trained) < 3:
        world.turn()
    assert {run_id for run_id, _ in trained} <= {1, 3}
    assert trained[0][1] > 1, "nothing was written when they went on"
    with written_late(desk):
        world.turn(2)
    record = world.state.record(2)
    assert (record.state, record.progress.chunks) == (RunState.STOPPED, 1)
    finished(world, desk)
    assert [world.state.record(run_id).state for run_id in (1, 3)] == [RunState.COMPLETED] * 2


def test_where_a_policy_stops_all_it_is_obeyed_at_once(tmp_path):
    class StopsAll(Deciding):
        def decide(self, view):
            return [Stop(run.id, "enough.") for run in view.live if run.chunks]

    desk = Desk()
    world = automated(tmp_path, desk, StopsAll(after=1))
    finished(world, desk)
    assert {record.state for record in world.state.runs.values()} == {RunState.STOPPED}


def test_when_the_others_are_over_what_a_policy_stopped_is_not_left_behind(tmp_path):
    class StopsTwo(Deciding):
        def decide(self, view):
            is_due = view.runs[2].chunks == 1 and view.runs[2].is_live
            return [Stop(1, "enough."), Stop(2, "enough.")] if is_due else []

    desk = Desk()
    given = [fake_config(seed=1), fake_config(seed=3), fake_config(seed=5, fails_at=0)]
    world = World(tmp_path, given, writer=desk)
    world.engine.automate(Autopilot(StopsTwo(after=1), lambda config, _edits: (config, {})))
    while world.state.record(3).state is not RunState.FAILED:
        world.turn()
    threading.Timer(0.1, desk.clear).start()
    world.finish()
    states = [record.state for record in world.state.runs.values()]
    assert states == [RunState.STOPPED, RunState.STOPPED, RunState.FAILED]


class Callback:
    """The same in the style of RapidFire AI: it is told each chunk once, and remembers."""

    def register_runs(self, run_id_to_config):
        pass

    def on_chunk_complete(self, run_id, chunk_id, metrics):
        return RunDecision("prune" if (run_id, chunk_id) == (2, 0) else "continue")

    def finalize(self, final_metrics):
        pass


@pytest.mark.parametrize("make", [lambda: Deciding(after=1), Callback])
def test_a_decision_about_what_was_lost_is_made_again(tmp_path, make):
    whole = automated(tmp_path / "whole", None, make())
    whole.finish()
    desk = Desk()
    world = automated(tmp_path / "lost", desk, make())
    piloting = world.engine._piloting  # noqa: SLF001 - asked as a turn does first
    while not piloting.leaving:
        world.turn()
        piloting.follow()
    desk.writes.clear()
    engine = world.engine
    engine._taking.behind.lose(engine._devices.all[0])  # noqa: SLF001 - as when the process that trains dies
    for run_id in (1, 2, 3):
        world.runner.release(run_id)
    finished(world, desk)
    assert decided(world) == decided(whole) != []


def test_under_a_policy_all_that_is_being_written_is_committed_at_once(tmp_path):
    desk, seen = Desk(), []

    def on_step(run_id, step):
        if len(desk.writes) == 3 or seen:
            for write in [desk.writes.pop() for _ in desk.writes[:2]]:
                write()
            seen.append([record.progress.chunks for record in world.state.runs.values()])

    world = automated(tmp_path, desk, Deciding(after=9), on_step=on_step)
    while not seen:
        world.turn()
    assert seen[:3] == [[0, 0, 0], [0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("seed", range(4))
def test_kills_change_no_decision(tmp_path, execution, seed):
    whole = automated(tmp_path / "whole", None, Deciding(after=2))
    whole.finish()
    desk, rng = Desk(), random.Random(seed)
    world = automated(tmp_path / "killed", desk, Deciding(after=2))
    for _ in range(12):
        with written_late(desk):
            world.turn(rng.randrange(1, 4))
        desk.writes.clear()  # what was being written is lost
        world.restart()
        world.engine.automate(Autopilot(Deciding(after=2), lambda config, _edits: (config, {})))
    finished(world, desk)
    assert decided(whole)
    assert decided(world) == decided(whole)


def test_a_run_that_fails_keeps_what_was_being_saved(tmp_path, execution):
    desk = Desk()
    world = World(tmp_path, [fake_config(seed=2, fails_at=10)], writer=desk)
    finished(world, desk)
    record = world.state.record(1)
    assert record.state is RunState.FAILED
    assert [point.step for point in record.all_points()] == list(range(1, 11))


def test_the_end_waits_for_what_is_being_written(tmp_path):
    desk = Desk()
    world = World(tmp_path, [fake_config(seed=1), fake_config(seed=3)], writer=desk)
    world.turn()
    threading.Timer(0.05, desk.clear).start()
    world.engine.settle()
    assert world.state.record(1).progress.chunks == 1
    assert not isinstance(world.turn(), Idle)
