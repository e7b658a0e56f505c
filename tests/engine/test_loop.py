"""The engine obeys between steps, commits whole chunks, and keeps failures to their run."""

import pytest

from rf_notebook.core.errors import (
    ConfigError,
    IllegalOperation,
    LeaseLost,
    StorageFull,
    UnknownRun,
)
from rf_notebook.core.events import ChunkTrained, OperationObeyed, RunAdded
from rf_notebook.core.operations import CloneRun, StopRun
from rf_notebook.core.run import RunState
from rf_notebook.core.state import fold
from rf_notebook.engine.keep import Keep
from rf_notebook.engine.loop import Closing
from rf_notebook.engine.requests import CloseExperiment, PinRuns
from rf_notebook.engine.turns import Paused, Turn
from rf_notebook.planning.fusion import Execution
from rf_notebook.store.lease import this_process
from rf_notebook.store.memory import MemoryStore
from rf_notebook.testing.fake_runner import fake_config
from tests.engine.world import World, alone, configs


@pytest.mark.one_device
def test_runs_advance_side_by_side_chunk_by_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr(World, "execution", Execution.EXACT)
    world = World(tmp_path, [fake_config(batch_size=size) for size in (1, 2, 4)])
    turns = [world.turn() for _ in range(6)]
    assert turns == [Turn(1), Turn(2), Turn(3), Turn(1), Turn(2), Turn(3)]
    assert [r.progress.chunks for r in world.state.runs.values()] == [2, 2, 2]


def test_all_runs_complete_and_give_what_they_give_alone(tmp_path):
    world = World(tmp_path, configs())
    world.finish()
    for run_id, config in enumerate(configs(), start=1):
        assert world.state.record(run_id).state is RunState.COMPLETED
        assert world.losses(run_id) == alone(tmp_path / str(run_id), config)


def test_a_stop_inside_a_chunk_is_obeyed_at_the_next_step(tmp_path):
    world = World(tmp_path, configs(2))
    seen = []

    def user(run_id, step):
        seen.append((run_id, step))
        if (run_id, step) == (1, 3):
            world.stop(1)

    world.runner.on_step = user
    while not world.state.operations:
        world.turn()
    assert world.state.record(1).state is RunState.STOPPED
    assert world.state.record(1).progress.steps == 3
    assert [step for run_id, step in seen if run_id == 1] == [0, 1, 2, 3]
    (obeyed,) = [r.event for r in world.state.operations]
    assert (obeyed.steps, obeyed.samples) == (3, 6)


def test_a_stopped_run_is_passed_over_until_resumed_and_then_goes_on_exactly(tmp_path):
    world = World(tmp_path, configs(2))
    world.turn()
    world.ask(StopRun(run_id=1))
    before = world.state.record(1).progress
    world.finish()
    assert world.state.record(1).progress == before
    assert world.state.record(2).state is RunState.COMPLETED
    world.resume(1)
    world.finish()
    assert world.losses(1) == alone(tmp_path, configs(2)[0])


@pytest.mark.one_device
def test_a_stopped_run_survives_the_end_of_the_session(tmp_path):
    world = World(tmp_path, configs(2))
    world.runner.on_step = lambda run_id, step: world.stop(1) if (run_id, step) == (1, 5) else None
    world.turn(2)
    world.restart()
    world.finish()
    assert world.state.record(1).state is RunState.STOPPED
    world.resume(1)
    world.finish()
    assert world.losses(1) == alone(tmp_path, configs(2)[0])


@pytest.mark.parametrize(
    ("prepare", "operation", "sentence"),
    [
        (
            "queued",
            "resume",
            "cannot resume run 1: it is queued, and only a stopped run can be resumed.",
        ),
        (
            "completed",
            "stop",
            "cannot stop run 1: it is completed, and only a queued or running run can be stopped.",
        ),
        ("stopped", "stop", "cannot stop run 1: it is stopped"),
        (
            "deleted",
            "clone",
            "cannot clone run 1: it is deleted, and a deleted run cannot be cloned.",
        ),
        ("deleted", "delete", "cannot delete run 1: it is deleted, and it is gone already."),
        ("queued", "warm", "cannot warm-start from run 1: it has not trained a step yet."),
    ],
)
def test_what_the_state_does_not_allow_is_refused_in_a_sentence(
    tmp_path, prepare, operation, sentence
):
    world = World(tmp_path, configs(1))
    if prepare == "completed":
        world.finish()
    elif prepare in ("stopped", "deleted"):
        world.stop(1) if prepare == "stopped" else world.delete(1)
        world.turn()
    before = len(world.store.read())
    future = world.clone(1, warm=True) if operation == "warm" else getattr(world, operation)(1)
    world.turn()
    with pytest.raises(IllegalOperation) as refused:
        future.result()
    assert sentence in str(refused.value)
    assert not [r for r in world.store.read()[before:] if isinstance(r.event, OperationObeyed)]


def test_an_unknown_run_is_refused_and_nothing_else_notices(tmp_path):
    world = World(tmp_path, configs(2))
    future = world.stop(9)
    world.finish()
    with pytest.raises(UnknownRun, match="there is no run 9; the experiment's runs are: 1, 2"):
        future.result()
    assert world.losses(2) == alone(tmp_path, configs(2)[1])


def test_a_bad_clone_is_refused_and_nothing_else_notices(tmp_path):
    world = World(tmp_path, configs(2))
    world.turn()
    future = world.clone(1, config=fake_config(learning_rate=-1.0))
    world.finish()
    with pytest.raises(ConfigError):
        future.result()
    assert list(world.state.runs) == [1, 2]
    assert world.losses(1) == alone(tmp_path, configs(2)[0])


@pytest.mark.one_device
def test_a_clone_catches_up_and_equals_its_config_alone(tmp_path):
    world = World(tmp_path, configs(2))
    world.turn(4)
    edited = fake_config(learning_rate=0.3, batch_size=2)
    world.clone(1, config=edited)
    assert [world.turn() for _ in range(2)] == [Turn(3), Turn(3)]
    world.finish()
    assert world.losses(3) == alone(tmp_path, edited)
    assert world.state.record(3).parent_id == 1


def test_a_warm_clone_starts_from_the_parent_as_it_was_and_its_plan_is_whole(tmp_path):
    world = World(tmp_path, [fake_config(learning_rate=0.5, batch_size=2)])
    world.runner.on_step = lambda run_id, step: (
        world.clone(1, warm=True) if (run_id, step) == (1, 7) else None
    )
    world.finish()
    child = world.state.record(2)
    assert child.warm_start.steps == 7
    assert child.progress.steps == world.state.record(1).progress.steps
    assert world.losses(2)[0] != world.losses(1)[0]


def test_cloning_a_completed_run_works_warm_too(tmp_path):
    world = World(tmp_path, configs(1))
    world.finish()
    world.clone(1)
    world.clone(1, warm=True)
    world.finish()
    assert world.losses(2) == world.losses(1)
    assert world.state.record(3).state is RunState.COMPLETED
    assert world.losses(3) != world.losses(1)


@pytest.mark.in_kernel
def test_deleting_frees_memory_and_checkpoints_and_keeps_the_figures(tmp_path):
    world = World(tmp_path, configs(2))
    world.turn(2)
    world.delete(1)
    world.turn()
    assert 1 not in world.runner.held
    assert not list((tmp_path / "runs" / "1").glob("*"))
    assert world.losses(1)
    world.finish()
    assert world.losses(2) == alone(tmp_path, configs(2)[1])


@pytest.mark.in_kernel
def test_a_failing_run_fails_alone_with_its_points_and_its_text(tmp_path):
    bad = fake_config(fails_at=9, batch_size=2)
    world = World(tmp_path, [bad, configs(2)[1]])
    world.finish()
    record = world.state.record(1)
    assert record.state is RunState.FAILED
    assert "bad row at step 9" in record.failure.message
    assert [step for step, _ in world.losses(1)] == list(range(1, 10))
    assert 1 not in world.runner.held
    assert world.losses(2) == alone(tmp_path, configs(2)[1])


def test_one_transaction_a_chunk(tmp_path):
    calls = []

    class Counting(MemoryStore):
        def append(self, events, fence):
            calls.append([type(e).__name__ for e in events])
            return super().append(events, fence)

    world = World(tmp_path, configs(1), store=Counting())
    world.finish()
    assert calls[1] == ["ChunkTrained"]
    assert calls[3] == ["ChunkTrained", "CheckpointsRemoved"]
    assert calls[-1] == ["ChunkTrained", "CheckpointsRemoved", "StateChanged"]
    assert sum("ChunkTrained" in call for call in calls) == 4


@pytest.mark.parametrize(("keep", "left"), [(Keep.LAST, 2), (Keep.ALL, 4)])
def test_the_keep_policy_decides_what_stays_on_the_disk(tmp_path, keep, left):
    world = World(tmp_path)
    world.open(keep=keep)
    world.engine.commit([RunAdded(run_id=1, config=configs(1)[0])])
    world.finish()
    on_disk = sorted(p.name for p in (tmp_path / "runs" / "1").iterdir())
    assert len(on_disk) == left
    assert (
        sorted(c.folder.path.split("/")[-1] for c in world.state.record(1).checkpoints) == on_disk
    )


def test_the_best_checkpoint_stays_besides_the_newest_two(tmp_path):
    world = World(tmp_path, [fake_config(learning_rate=0.9, batch_size=1, epochs=3, seed=5)])
    world.finish()
    record = world.state.record(1)
    values = dict(world.losses(1))
    ends = [16 * i for i in range(1, 13)]
    best = min(ends, key=lambda step: values[step])
    kept = {c.folder.steps for c in record.checkpoints}
    assert kept == {ends[-2], ends[-1], best}
    assert best not in ends[-2:], "choose a seed whose best is not among the newest two"


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path):
    world = World(tmp_path, configs(1))
    world.turn(3)
    newest = world.state.record(1).checkpoints[-1].folder
    (tmp_path / newest.path / "weight.json").write_text("[99, 24]")
    world.restart()
    world.finish()
    assert any("continues from step 16" in r.event.text for r in world.state.notes)
    assert world.losses(1) == alone(tmp_path, configs(1)[0])
    steps = [step for step, _ in world.losses(1)]
    assert steps == sorted(set(steps))


def test_a_run_whose_every_checkpoint_is_damaged_begins_anew(tmp_path):
    world = World(tmp_path, configs(1))
    world.turn(2)
    for file in tmp_path.rglob("weight.json"):
        file.unlink()
    world.restart()
    world.finish()
    assert world.losses(1) == alone(tmp_path / "x", configs(1)[0])


def test_a_full_disk_holds_the_experiment_up_and_it_goes_on_by_itself(tmp_path):
    class Full(MemoryStore):
        room = True

        def append(self, events, fence):
            if not self.room and any(isinstance(e, ChunkTrained) for e in events):
                raise StorageFull("no room. Free some disk space.")
            return super().append(events, fence)

    store, waits = Full(), []
    world = World(tmp_path, store=store)

    def wait():
        waits.append(world.engine.held_up)
        store.room = len(waits) >= 3
        return True

    world.open(wait_for_room=wait)
    world.engine.commit([RunAdded(run_id=1, config=configs(1)[0])])
    store.room = False
    world.finish()
    assert waits == ["no room. Free some disk space."] * 3
    assert world.engine.held_up is None
    assert world.losses(1) == alone(tmp_path / "x", configs(1)[0])


@pytest.mark.in_kernel
def test_a_full_disk_while_a_checkpoint_is_written_trains_no_step_twice(tmp_path, monkeypatch):
    from rf_notebook.store import folders

    world = World(tmp_path)
    real, refused = folders.write_folder, []

    def sometimes(*args, **kwargs):
        if len(refused) < 2:
            refused.append(args)
            raise StorageFull("no room")
        return real(*args, **kwargs)

    world.engine.commit([RunAdded(run_id=1, config=configs(1)[0])])
    monkeypatch.setattr(folders, "write_folder", sometimes)
    world.finish()
    assert len(refused) == 2
    assert world.runner.steps_trained == 32
    assert world.losses(1) == alone(tmp_path / "x", configs(1)[0])


def test_an_end_while_the_disk_is_full_is_an_end(tmp_path):
    class Full(MemoryStore):
        def append(self, events, fence):
            if any(isinstance(e, ChunkTrained) for e in events):
                raise StorageFull("no room")
            return super().append(events, fence)

    world = World(tmp_path, store=Full())
    world.open(wait_for_room=lambda: False)
    world.engine.commit([RunAdded(run_id=1, config=configs(1)[0])])
    with pytest.raises(Closing):
        world.turn()


def test_after_a_take_over_nothing_more_is_written(tmp_path):
    world = World(tmp_path, configs(1))
    world.turn()
    world.store.acquire(this_process(), take_over=True)
    before = len(world.store.read())
    with pytest.raises(LeaseLost):
        world.turn()
    assert len(world.store.read()) == before


def test_ending_commits_the_chunk_in_progress(tmp_path):
    world = World(tmp_path, configs(1))
    close = CloseExperiment(cancelled=True)
    world.runner.on_step = lambda run_id, step: (
        world.engine.mailbox.submit(close) if step == 3 else None
    )
    world.turn()  # interrupted inside the chunk
    world.runner.on_step = lambda run_id, step: None
    assert isinstance(world.turn(), Paused)
    assert world.state.ended.cancelled
    assert world.state.record(1).progress.steps == 3
    world.restart()
    world.finish()
    assert world.losses(1) == alone(tmp_path / "x", configs(1)[0])


@pytest.mark.in_kernel
def test_nothing_is_trained_after_the_end_is_committed(tmp_path):
    world = World(tmp_path, configs(2))
    world.turn(2)
    world.engine.mailbox.submit(CloseExperiment(cancelled=True))
    trained = world.runner.steps_trained
    for _ in range(3):
        assert isinstance(world.turn(), Paused)
    assert world.runner.steps_trained == trained
    assert not world.state.live


def test_an_operation_records_where_the_turn_says_that_the_run_stands(tmp_path):
    def user(run_id, step):
        if (run_id, step) == (1, 3):
            world.stop(1)

    world = World(tmp_path, configs(1), on_step=user)
    world.engine.fleet.listener = None  # whoever only looks on decides nothing
    world.turn(2)
    (recorded,) = world.state.operations
    assert recorded.event.steps == 3
    assert world.state.record(1).progress.steps == 3


@pytest.mark.one_device
def test_what_concerns_nobody_who_trains_is_answered_without_ending_the_turn(tmp_path):
    answered = []

    def user(run_id, step):
        if (run_id, step) == (1, 2) and not answered:
            answered.append(world.engine.mailbox.submit(PinRuns(run_ids=(2,), pinned=True)))
            answered.append(world.stop(2))

    world = World(
        tmp_path, [fake_config(seed=1), fake_config(seed=3)], on_step=user
    )  # odd seeds train alone
    assert world.turn() == Turn(1)
    assert all(one.done() for one in answered)
    assert world.state.pinned == {2}
    assert world.state.record(2).state is RunState.STOPPED
    assert world.state.record(1).progress.chunks == 1, "the turn went to its boundary"


def test_a_clone_s_functions_are_recorded_in_the_transaction_of_the_clone(tmp_path):
    class Counting(MemoryStore):
        def append(self, events, fence):
            appended.append([type(event).__name__ for event in events])
            return super().append(events, fence)

    appended = []
    world = World(tmp_path, configs(1), store=Counting())
    config = fake_config(seed=5)
    source = "def shout(row): return row"
    clone = CloneRun(run_id=1, config=config, edits={}, functions={"shout@1": source})
    assert world.ask(clone) == 2
    assert ["FunctionsRecorded", "OperationObeyed", "RunAdded"] in appended
    assert world.state.functions == {"shout@1": source}
    (recorded,) = world.state.operations
    assert recorded.event.operation.functions == {}, "the operation itself is recorded as ever"
    assert fold(world.store.read()).functions == {"shout@1": source}
