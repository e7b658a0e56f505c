"""Several devices: whatever happens to them, every run is as it is alone."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace

import pytest

from rf_notebook.automation import Evolve, Halving
from rf_notebook.automl import Range
from rf_notebook.core.errors import ConfigError, StorageFull
from rf_notebook.core.events import BaseModelLoaded, RunAdded
from rf_notebook.core.operations import StopRun
from rf_notebook.core.ports import CommitPoint
from rf_notebook.core.run import LoadedModel, RunState
from rf_notebook.engine.autopilot import Autopilot
from rf_notebook.engine.turns import Paused
from rf_notebook.testing.fake_runner import fake_config
from tests.engine.test_random_operations import KINDS, late, often_full, play
from tests.engine.test_script import operations, recorded_world, replayed
from tests.engine.world import World, alone, configs
from tests.thorough import few

pytestmark = pytest.mark.in_kernel


class InTurn:
    """Chooses who has waited longest, as where all steps take equally long."""

    def __init__(self) -> None:
        self.clock, self.chosen_at = 0, dict[str, int]()

    def choice(self, names):
        self.clock += 1
        found = min(names, key=lambda name: (self.chosen_at.get(name, 0), name))
        self.chosen_at[found] = self.clock
        return found


@pytest.fixture
def simulates(monkeypatch):
    """Lets worlds have several devices."""

    def several(devices: int, seed: int | None = None, gpus: int = 1) -> None:
        rng = InTurn() if seed is None else random.Random(seed)
        monkeypatch.setattr(World, "simulates", (rng, devices, gpus))

    return several


def homes(world: World) -> dict[int, list[str]]:
    """Where each run trained, turn by turn, without repetitions."""
    found = defaultdict(list)
    for device, run_ids in world.runner.trained:
        for run_id in run_ids:
            if found[run_id][-1:] != [device]:
                found[run_id].append(device)
    return dict(found)


@pytest.mark.slow
@pytest.mark.parametrize("seed", few(15, range(50)))
def test_torture(tmp_path, simulates, seed):
    rng = random.Random(seed)
    simulates(rng.choice([1, 2, 2, 3]), seed, gpus=1 + seed % 4 // 3)
    kinds = (*KINDS, "kill", "kill", "kill", "leave", "leave")
    script = sorted((rng.randint(0, 300), rng.choice(kinds), rng.randint(1, 8)) for _ in range(15))
    disk = [{}, {"writer": late(rng)}, {"writer": late(rng), "observer": often_full(rng)}]
    play(tmp_path, script, rng, **disk[seed % 3])


def test_runs_are_spread_and_stay_where_they_are(tmp_path, simulates):
    simulates(2)
    world = World(tmp_path, [fake_config(seed=2 * i) for i in range(4)])
    world.finish()
    where = homes(world)
    assert {len(devices) for devices in where.values()} == {1}, where
    assert sorted(devices[0] for devices in where.values()) == ["d0", "d0", "d1", "d1"]


@pytest.mark.parametrize("devices", [1, 2])
def test_runs_over_one_model_on_several_gpus_share_turns_in_every_execution(
    tmp_path, simulates, devices
):
    simulates(devices, gpus=2)
    given = [fake_config(seed=seed) for seed in (1, 2, 3, 4)]
    given.append(replace(fake_config(seed=1), model={"model_name": "another"}))
    world = World(tmp_path, given)
    world.finish()
    turns = {run_ids for _, run_ids in world.runner.trained}
    if devices == 1:
        assert turns == {(1, 2, 3, 4), (5,)}
    assert max(map(len, turns)) > 1
    assert not any(5 in run_ids for run_ids in turns if len(run_ids) > 1), "another base"
    for run_id, config in enumerate(given, start=1):
        assert world.losses(run_id) == alone(tmp_path / str(run_id), config)
        assert world.state.record(run_id).alone_because == ""


def test_a_device_whose_runs_are_over_takes_over_runs_of_another(tmp_path, simulates):
    simulates(2)
    world = World(tmp_path, [fake_config(seed=2 * i + 1) for i in range(4)])
    world.turn(4)
    where = {run_id: devices[0] for run_id, devices in homes(world).items()}
    for run_id in [one for one, device in where.items() if device == "d0"]:
        world.ask(StopRun(run_id=run_id))
    world.finish()
    moved = [run_id for run_id, devices in homes(world).items() if len(devices) > 1]
    assert moved
    assert all(where[run_id] == "d1" for run_id in moved)
    for run_id in moved:
        config = world.state.record(run_id).config
        assert world.losses(run_id) == alone(tmp_path / str(run_id), config)


def test_an_operation_parks_the_device_that_it_is_about_alone(tmp_path, simulates):
    simulates(2)
    world = World(tmp_path, [fake_config(seed=1), fake_config(seed=3)])
    interrupted = []
    fleet = world.runner
    interrupt = fleet.interrupt
    fleet.interrupt = lambda device, turn: (interrupted.append(device), interrupt(device, turn))

    def user(run_id, step):
        if step == 3 and run_id == 1 and not asked:
            asked.append(world.stop(1))

    asked: list = []
    fleet.on_step = user
    world.finish()
    assert asked[0].result() == 1
    home = {run_ids[0]: device for device, run_ids in fleet.trained}
    assert set(interrupted) == {home[1]}
    assert world.state.record(1).state is RunState.STOPPED
    assert world.state.record(2).state is RunState.COMPLETED


@pytest.mark.parametrize("devices", [1, 2, 3])
def test_a_replay_of_any_number_of_devices_on_any_other_is_the_same(tmp_path, simulates, devices):
    from rf_notebook.record.compare import compare

    rng = random.Random(devices)
    kinds = [kind for kind in KINDS if kind != "restart"]
    played = [(rng.randint(0, 120), rng.choice(kinds), rng.randint(1, 6)) for _ in range(8)]
    simulates(devices, seed=1)
    original = recorded_world(tmp_path / "original", played, configs(3))
    for others in (1, 2, 3):
        simulates(others, seed=2)
        again = replayed(
            tmp_path / f"again {others}", original.state, operations(original), configs(3)
        )
        found = compare(original.state, again.state)
        assert [one.difference for one in found if one.difference] == []


def test_a_run_that_ends_its_process_three_times_fails_and_its_group_trains_on(tmp_path, simulates):
    simulates(2)

    def user(run_id, step):
        if (run_id, step) == (2, 5):
            world.runner.kill(only_this=True)

    world = World(tmp_path, [fake_config(seed=2 * i) for i in range(4)], on_step=user)
    world.finish()
    record = world.state.record(2)
    assert record.state is RunState.FAILED
    assert record.failure.message.startswith("the process that trained it ended 3 times")
    for run_id in (1, 3, 4):
        assert world.state.record(run_id).state is RunState.COMPLETED
        config = world.state.record(run_id).config
        assert world.losses(run_id) == alone(tmp_path / str(run_id), config)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Halving("eval_loss"),
        lambda: Evolve({"learning_rate": Range(0.01, 0.5)}, "eval_loss", share=0.5, seed=3),
    ],
    ids=["Halving", "Evolve"],
)
def test_a_barrier_policy_decides_alike_on_any_number_of_devices(tmp_path, simulates, make):
    def edited(config, edits):
        rate = edits["learning_rate"]
        return replace(config, training={**config.training, "learning_rate": rate}), edits

    decided = {}
    for devices in (1, 2, 3):
        for seed in range(3):
            simulates(devices, seed)
            world = World(tmp_path / f"{devices} {seed}", evaluates=True)
            chosen = [fake_config(seed=i, learning_rate=0.03 * (i + 1)) for i in range(6)]
            added = [RunAdded(run_id=i, config=c) for i, c in enumerate(chosen, start=1)]
            world.engine.commit(added)
            world.engine.automate(Autopilot(make(), edited))
            world.finish()
            found = sorted(
                (type(one.operation).__name__, one.operation.run_id, one.steps, one.reason)
                for one in operations(world)
            )
            decided.setdefault(str(found), []).append((devices, seed))
            told = [one.event.text for one in world.state.notes]
            assert any("no run gets ahead" in text for text in told) == (devices > 1), told
    assert len(decided) == 1, decided
    assert "StopRun" in next(iter(decided))


def test_a_turn_that_cannot_begin_fails_its_run_alone(tmp_path, simulates):
    simulates(2)
    world = World(tmp_path, [fake_config(seed=2 * i + 1) for i in range(3)])
    begin = world.runner.begin

    def refusing(device, turn):
        if turn.requests[0].run_id == 2:
            raise ConfigError("reward cannot be sent to a worker process.")
        begin(device, turn)

    world.runner.begin = refusing
    world.finish()
    assert [one.state for one in world.state.runs.values()] == [
        RunState.COMPLETED,
        RunState.FAILED,
        RunState.COMPLETED,
    ]
    assert "cannot be sent" in world.state.record(2).failure.message


def test_a_device_that_cannot_start_is_left_out(tmp_path, simulates):
    simulates(2)
    world = World(tmp_path, [fake_config(seed=2 * i + 1) for i in range(3)])
    world.runner.cannot_start("d1")
    world.finish()
    assert all(one.state is RunState.COMPLETED for one in world.state.runs.values())
    assert {device for device, _ in world.runner.trained[2:]} == {"d0"}
    told = [one.event.text for one in world.state.notes]
    assert told == [
        "the process that trains on d1 could not start: no such GPU. The other devices train its runs."
    ]
    assert [one.is_gone for one in world.engine.devices] == [False, True]
    assert list(world.state.devices) == ["d0"], "times to come count on the others"


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_a_notice_saves_what_was_trained_and_costs_no_step(tmp_path, simulates, devices, seed):
    simulates(devices, seed)
    world, steps = World(tmp_path, configs()), []
    listener = world.runner.listener

    def heard(run_id, progress, point):
        steps.append((run_id, progress.steps))
        if len(steps) == 5:
            world.runner.leave()
        listener(run_id, progress, point)

    world.runner.listener = heard
    world.finish()
    for run_id, config in enumerate(configs(), start=1):
        assert world.losses(run_id) == alone(tmp_path / str(run_id), config)
    assert len(steps) == len(set(steps)), "no step was trained twice"
    told = [one.event.text for one in world.state.notes if "about to end" in one.event.text]
    assert len(told) == 1
    assert told[0].endswith("is about to end: its node is drained. Its runs are saved.")


def loaded(weights):
    return LoadedModel(chosen_by={"model_name": "tiny"}, facts={"weights": weights})


@pytest.mark.parametrize("seed", range(6))
def test_a_device_with_another_base_model_is_left_out(tmp_path, simulates, seed):
    simulates(2, seed)
    chosen = [fake_config(seed=2 * i + 1) for i in range(3)]
    world = World(tmp_path, chosen)
    world.runner.loads("d0", loaded("a"))
    world.runner.loads("d1", loaded("b"))
    world.finish()
    for run_id, config in enumerate(chosen, start=1):
        assert world.losses(run_id) == alone(tmp_path / str(run_id), config)
    first = next(turn.device for turn in world.state.turns)
    other = ({"d0", "d1"} - {first}).pop()
    assert [turn.device for turn in world.state.turns] == [first] * len(world.state.turns)
    (told,) = [one.event.text for one in world.state.notes]
    assert told.startswith(
        f"{other} loaded other weights or another tokenizer as tiny than the other"
    )
    assert told.endswith("The other devices train its runs.")
    assert list(world.state.devices) == [first]
    (model,) = world.state.base_models.values()
    assert model == loaded("a" if first == "d0" else "b"), "what the other one gave is nobody's"


def test_devices_with_the_same_base_model_all_train(tmp_path, simulates):
    simulates(2)
    world = World(tmp_path, [fake_config(seed=2 * i + 1) for i in range(3)])
    for name in ("d0", "d1"):
        world.runner.loads(name, loaded("a"))
    world.finish()
    assert {turn.device for turn in world.state.turns} == {"d0", "d1"}
    assert not world.state.notes


def test_another_base_model_than_the_one_that_is_recorded_is_told_of(tmp_path, simulates):
    simulates(1)
    world = World(tmp_path, [fake_config(seed=1)])
    world.engine.commit([BaseModelLoaded(model=loaded("before"))])
    world.runner.loads("d0", loaded("now"))
    world.finish()
    (told,) = [one.event.text for one in world.state.notes]
    assert told.startswith("the base model tiny is not the one that this experiment began with")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("devices", [1, 2])
def test_an_engine_that_ends_does_not_wait_for_a_full_disk(tmp_path, simulates, devices):
    simulates(devices)

    def observer(point):
        if point is CommitPoint.CHECKPOINT_WRITTEN and not ended:
            ended.append(True)
            world.engine.interrupt()
            raise StorageFull("no room")

    ended = []
    world = World(tmp_path, configs(), observer=observer)
    while not isinstance(world.turn(), Paused):
        pass
    assert ended
    world.restart()
    world.finish()
    for run_id, config in enumerate(configs(), start=1):
        assert world.losses(run_id) == alone(tmp_path / str(run_id), config)


def test_a_full_disk_holds_up_one_device(tmp_path, simulates):
    """Once one of the two is held up, only the other one trains; both finish when there is room."""
    simulates(2)
    state = {"is_full": False, "asked": 0}

    def observer(point):
        if point is CommitPoint.CHECKPOINT_WRITTEN and world.runner.at_work == "d0":
            state["is_full"] = state["is_full"] or not state["asked"]
            if state["is_full"]:
                state["asked"] += 1
                raise StorageFull("no room")

    def wait_for_room():
        state["is_full"] = False  # nobody trains any more, so somebody made room
        return True

    world = World(tmp_path, observer=observer)
    world.open(wait_for_room=wait_for_room)
    chosen = [fake_config(seed=2 * i + 1) for i in range(2)]
    world.engine.commit([RunAdded(run_id=i, config=c) for i, c in enumerate(chosen, start=1)])
    while world.engine.held_up is None:
        world.turn()
    assert world.engine.held_up == "d0: no room"
    while world.state.record(2).state is not RunState.COMPLETED:
        world.turn()
    assert world.state.record(1).progress.steps == 0
    world.finish()
    for run_id, config in enumerate(chosen, start=1):
        assert world.losses(run_id) == alone(tmp_path / str(run_id), config)
