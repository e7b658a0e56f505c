"""Who shares a turn, and what becomes of those that nobody shares one with."""

from dataclasses import replace

import pytest

from rf_notebook.core.events import PolicyChanged, RunPinned
from rf_notebook.core.run import RunState
from rf_notebook.engine.turns import Idle
from rf_notebook.planning.fusion import Execution
from rf_notebook.testing.fake_runner import FakeRunner, fake_config
from tests.engine.world import World, alone


@pytest.mark.in_kernel
@pytest.mark.parametrize("step", range(12))
def test_a_run_that_is_stopped_during_another_one_s_turn_trains_no_further(tmp_path, step):
    asked, trained_after = [], []

    def user(run_id, done):
        if (run_id, done) == (1, step) and not asked:
            asked.append(world.stop(3))
        if run_id == 3 and asked and asked[0].done():
            trained_after.append(done)

    world = World(tmp_path, [fake_config(seed=2 * i) for i in range(3)], on_step=user)
    world.finish()
    assert asked[0].result() == 3
    assert world.state.record(3).state is RunState.STOPPED
    assert not trained_after


@pytest.mark.in_kernel
def test_a_lone_run_trains_as_its_group_did(tmp_path, execution):
    world = World(tmp_path, [fake_config(seed=2 * i) for i in range(2)])
    while not any("runs train" in note.event.text for note in world.state.notes):
        if isinstance(world.turn(), Idle) or execution is not Execution.AUTO:
            break
    world.stop(2)
    world.finish()
    notes = [note.event.text for note in world.state.notes if "runs train" in note.event.text]
    is_joint = {
        Execution.EXACT: False,
        Execution.FUSED: True,
        Execution.AUTO: any("in joint steps" in text for text in notes),
    }[execution]
    assert bool(notes) == (execution is Execution.AUTO)
    assert ((1,) in world.runner.joint_turns) == is_joint
    record = world.state.record(1)
    assert (record.state, record.alone_because) == (RunState.COMPLETED, "")
    if execution is not Execution.AUTO:  # whose last chunk may hold steps of the trial
        assert (record.is_joint, record.fused_with) == (is_joint, ())
    assert world.losses(1) == alone(tmp_path, record.config)


@pytest.mark.in_kernel
@pytest.mark.parametrize("is_told", [True, False])
def test_a_trial_does_not_count_what_is_done_once(tmp_path, monkeypatch, is_told):
    monkeypatch.setattr(World, "execution", Execution.AUTO)
    now, train = [0.0], FakeRunner.train

    def trained(runner, requests):
        results = train(runner, requests)
        is_joint = requests[0].is_joint
        now[0] += 5.0 if is_joint else 1.0
        set_up = 4.5 if is_joint and is_told else 0.0
        return (replace(results[0], setup_seconds=set_up), *results[1:])

    monkeypatch.setattr(FakeRunner, "train", trained)
    world = World(tmp_path, [fake_config(seed=2 * i) for i in range(2)])
    world.restart(clock=lambda: now[0])
    world.finish()
    (note,) = (one.event.text for one in world.state.notes if "runs train" in one.event.text)
    assert ("in joint steps" in note) == is_told


@pytest.mark.in_kernel
def test_the_runner_is_told_which_runs_a_policy_may_end(tmp_path, monkeypatch):
    world = World(tmp_path, [fake_config(seed=2 * i) for i in range(3)])
    world.engine.commit([PolicyChanged(name="Halving"), RunPinned(run_id=2, pinned=True)])
    judged, train = {}, FakeRunner.train

    def trained(runner, requests):
        judged.update({request.run_id: request.is_judged for request in requests})
        return train(runner, requests)

    monkeypatch.setattr(FakeRunner, "train", trained)
    world.finish()
    assert judged == {1: True, 2: False, 3: True}
