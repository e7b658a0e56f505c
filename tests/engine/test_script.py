"""A replay's operations come at the very steps at which they were obeyed, and give the very same."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rf_notebook.core.errors import IllegalOperation
from rf_notebook.core.events import OperationObeyed, RunAdded
from rf_notebook.core.operations import StopRun
from rf_notebook.core.run import RunState
from rf_notebook.engine.script import Script
from rf_notebook.engine.turns import Idle
from rf_notebook.record.compare import compare, verdict
from rf_notebook.testing.fake_runner import fake_config
from tests.engine.world import World, configs

KINDS = ("stop", "resume", "clone", "warm clone", "delete")


def operations(world):
    return [one.event for one in world.state.operations if isinstance(one.event, OperationObeyed)]


def judge(original, state):
    return verdict(compare(original, state), "original")


def notes_of_the_replay(world):
    return [one.event.text for one in world.state.notes if "execution=" not in one.event.text]


def replayed(folder, original, recorded, first):
    """A world that was told what was recorded, at its end."""
    world = World(folder)
    world.open(script=Script(recorded, lambda state: judge(original, state)))
    world.engine.commit([RunAdded(run_id=i, config=c) for i, c in enumerate(first, start=1)])
    world.finish()
    return world


def recorded_world(folder, played, first):
    """An experiment to which a person did things before certain steps."""
    pending = sorted(played)
    rng, clock = random.Random(7), [0]

    def user(run_id, step):
        while pending and pending[0][0] <= clock[0]:
            _, kind, target = pending.pop(0)
            if kind in ("clone", "warm clone"):
                if target in world.state.runs:
                    config = fake_config(
                        learning_rate=rng.choice([0.02, 0.2]), batch_size=rng.choice([1, 4]), seed=3
                    )
                    world.clone(target, warm=kind == "warm clone", config=config)
            else:
                getattr(world, kind)(target)
        clock[0] += 1

    world = World(folder, first, on_step=user)
    world.finish()
    return world


@pytest.mark.in_kernel  # test_process.py has fewer of them in a worker
@settings(max_examples=60, deadline=None)
@given(
    played=st.lists(
        st.tuples(st.integers(0, 120), st.sampled_from(KINDS), st.integers(1, 6)), max_size=12
    ),
    fails_at=st.none() | st.integers(1, 20),
)
def test_a_replay_obeys_the_same_at_the_same_steps_and_gives_the_same(played, fails_at):
    folder = Path(tempfile.mkdtemp())
    try:
        first = [*configs(3), fake_config(learning_rate=0.3, fails_at=fails_at)]
        original = recorded_world(folder / "original", played, first)
        recorded = operations(original)
        again = replayed(folder / "again", original.state, recorded, first)
        done = [(type(one.operation), one.operation.run_id, one.steps) for one in operations(again)]
        assert done == [(type(one.operation), one.operation.run_id, one.steps) for one in recorded]
        for one in compare(original.state, again.state):
            assert one.difference is None, one
    finally:
        shutil.rmtree(folder)


def test_the_verdict_is_told_once_and_names_the_first_difference(tmp_path):
    original = recorded_world(
        tmp_path / "original", [(9, "stop", 2), (20, "warm clone", 1)], configs(3)
    )
    recorded = operations(original)
    again = replayed(tmp_path / "again", original.state, recorded, configs(3))
    told = notes_of_the_replay(again)
    assert told[0].startswith("the replay of 'original' is equal: 4 runs, ")
    assert len(told) == 1
    other = replayed(
        tmp_path / "other", original.state, recorded, [*configs(2), fake_config(seed=9)]
    )
    (told,) = notes_of_the_replay(other)
    assert "differs in 1 of 4 runs: run 3: its config is another" in told
    fewer = replayed(tmp_path / "fewer", original.state, recorded[:1], configs(3))
    (told,) = notes_of_the_replay(fewer)
    assert "differs in 1 of 4 runs: run 4: the replay has no such run" in told


@pytest.mark.one_device
def test_the_user_s_operations_wait_for_the_script_s_end(tmp_path):
    original = recorded_world(tmp_path / "original", [(30, "stop", 1)], configs(2))
    world = World(tmp_path / "again")
    world.open(script=Script(operations(original), lambda state: "done"))
    world.engine.commit([RunAdded(run_id=i, config=c) for i, c in enumerate(configs(2), start=1)])
    refused = world.stop(2)
    world.turn()
    with pytest.raises(
        IllegalOperation, match="this is a replay, and recorded operations are still to come"
    ):
        refused.result()
    while world.state.record(1).state is not RunState.STOPPED:
        assert not isinstance(world.turn(), Idle)
    resumed = world.resume(1)
    world.finish()
    assert resumed.result() == 1


def test_runs_that_wait_inside_their_chunks_are_saved_where_they_stand(tmp_path):
    original = World(tmp_path / "original", configs(3))
    recorded = [
        OperationObeyed(
            operation=StopRun(run_id=run_id), steps=run_id + 4, samples=0, origin="replay"
        )
        for run_id in (3, 2, 1)
    ]
    again = replayed(tmp_path / "again", original.state, recorded, configs(3))
    assert [again.state.record(run_id).progress.steps for run_id in (1, 2, 3)] == [5, 6, 7]


def test_an_operation_that_is_not_possible_is_told_and_passed_over(tmp_path):
    original = recorded_world(tmp_path / "original", [(10, "warm clone", 2)], configs(2))
    (recorded,) = operations(original)
    impossible = OperationObeyed(operation=recorded.operation, steps=0, samples=0, origin="button")
    again = replayed(tmp_path / "again", original.state, [impossible], configs(2))
    first, last = [one.event.text for one in again.state.notes]
    assert first.startswith(
        "the replay could not clone run 2 at step 0: cannot warm-start from run 2"
    )
    assert "run 3: the replay has no such run" in last
