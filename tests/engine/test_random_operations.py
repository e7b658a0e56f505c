"""Operations at random steps leave the runs that they do not touch exactly as without them."""

from __future__ import annotations

import random
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rf_notebook.core.errors import RFNotebookError, StorageFull
from rf_notebook.core.ports import CommitPoint
from rf_notebook.core.run import RunState
from rf_notebook.engine.turns import Idle
from rf_notebook.testing.fake_runner import fake_config
from tests.engine.world import World

CONFIGS = [
    fake_config(learning_rate=0.05 * (i + 1), batch_size=2 + i % 3, epochs=1 + i % 2, seed=i)
    for i in range(5)
]
KINDS = ("stop", "resume", "clone", "warm clone", "delete", "restart")


def expected_losses() -> dict[int, list[tuple[int, float]]]:
    folder = Path(tempfile.mkdtemp())
    try:
        world = World(folder, CONFIGS)
        world.finish()
        return {run_id: world.losses(run_id) for run_id in range(1, 6)}
    finally:
        shutil.rmtree(folder)


EXPECTED = expected_losses()


SCRIPTS = st.lists(
    st.tuples(st.integers(0, 200), st.sampled_from(KINDS), st.integers(1, 7)),
    min_size=1,
    max_size=12,
)


@pytest.mark.in_kernel  # test_process.py has fewer of them in a worker
@settings(max_examples=50, deadline=None)
@given(script=SCRIPTS, seed=st.integers(0, 2**16))
def test_untouched_runs_are_as_without_the_others_operations(script, seed):
    play_in_a_folder(script, seed)


@pytest.mark.in_kernel
@settings(max_examples=8, deadline=None)
@given(script=SCRIPTS, seed=st.integers(0, 2**16))
@pytest.mark.parametrize("disk", ["late", "late and often full"])
def test_so_they_are_while_checkpoints_are_written_behind_turns(script, seed, disk):
    rng = random.Random(seed)
    full = {"observer": often_full(rng)} if "full" in disk else {}
    play_in_a_folder(script, seed, writer=late(rng), **full)


def play_in_a_folder(script: list[tuple[int, str, int]], seed: int, **runner: Any) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        play(folder, sorted(script), random.Random(seed), **runner)
    finally:
        while WRITING:
            WRITING.pop().join()
        shutil.rmtree(folder)


WRITING: list[threading.Timer] = []


def late(rng: random.Random) -> Callable[[Callable[[], None]], None]:
    """Writes a checkpoint now, or in a thread a little later."""

    def writer(write: Callable[[], None]) -> None:
        seconds = rng.choice([0.0, 0.0005, 0.002, 0.01])
        if seconds:
            WRITING.append(threading.Timer(seconds, write))
            WRITING[-1].start()
        else:
            write()

    return writer


def often_full(rng: random.Random) -> Callable[[CommitPoint], None]:
    """A disk that has no room for every fourth checkpoint."""

    def observer(point: CommitPoint) -> None:
        if point is CommitPoint.CHECKPOINT_WRITTEN and rng.random() < 0.25:
            raise StorageFull("no room")

    return observer


def play(
    folder: Path, script: list[tuple[int, str, int]], rng: random.Random, **runner: Any
) -> World:
    """Play operations at steps of all runs together, then finish; every run is as alone."""
    clock = [0]
    restart = [False]
    pending = list(script)

    def user(run_id: int, step: int) -> None:
        """Plays the person: called before every step of every run."""
        while pending and pending[0][0] <= clock[0]:
            _, kind, target = pending.pop(0)
            if kind == "kill":
                world.runner.kill()
            elif kind == "leave":
                world.runner.leave()
            elif kind == "restart":
                restart[0] = True
                world.engine.interrupt()
            elif kind in ("clone", "warm clone"):
                if target in world.state.runs:
                    config = fake_config(
                        learning_rate=rng.choice([0.02, 0.2]), batch_size=rng.choice([1, 4]), seed=3
                    )
                    answers.append(world.clone(target, warm=kind == "warm clone", config=config))
            else:
                answers.append(getattr(world, kind)(target))
        clock[0] += 1

    answers: list = []
    world = World(folder, CONFIGS, on_step=user, **runner)
    while not isinstance(world.turn(), Idle):
        if restart[0]:
            restart[0] = False
            world.restart()  # all that was not committed is gone
            world.runner.on_step = user
    for answer in answers:
        if answer.done() and answer.exception() is not None:
            assert isinstance(answer.exception(), RFNotebookError)

    # Whatever was stopped is resumed: stopping must not have changed anything either.
    for record in list(world.state.runs.values()):
        if record.state is RunState.STOPPED:
            world.resume(record.run_id)
    world.runner.on_step = lambda run_id, step: None
    world.finish()
    for run_id, expected in EXPECTED.items():
        record = world.state.record(run_id)
        died = record.failure is not None and "ended 3 times" in record.failure.message
        if record.state is RunState.DELETED or died:
            assert world.losses(run_id) == expected[: len(world.losses(run_id))]
        else:
            assert record.state is RunState.COMPLETED
            assert world.losses(run_id) == expected
    for record in world.state.runs.values():
        steps = [point.step for point in record.all_points()]
        assert steps == sorted(set(steps)), "a point was lost or doubled"
        if record.state is RunState.COMPLETED:
            assert steps == list(range(1, record.progress.total_steps + 1))
    return world
