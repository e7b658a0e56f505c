"""Stops, clones, failures and no memory in the middle of a joint generation.

Kills: tests/crash.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rf_notebook.core.objects import Objects
from rf_notebook.core.operations import CloneRun, StopRun
from rf_notebook.core.run import RunConfig, RunState
from rf_notebook.engine.loop import Engine
from rf_notebook.planning.fusion import Execution
from rf_notebook.training.fused.decoder import JointDecoder
from rf_notebook.training.fused.joint_model import JointModel
from tests.exactness import harness
from tests.exactness.cases import checksum
from tests.fused.test_failures import assert_as_before
from tests.fused.world import config, engine_over, figures

pytestmark = pytest.mark.slow


def configs(objects: Objects, rewards: Any = checksum) -> list[RunConfig]:
    """Three GRPO runs whose generations are of different lengths."""
    return [
        config(
            "GRPO",
            objects,
            adapter={"r": 4 * (seed + 1)},
            training={"seed": seed, "max_completion_length": 6 + 5 * seed, "max_steps": 6},
            reward_funcs=[rewards],
        )
        for seed in range(3)
    ]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Any]]:
    objects = Objects()
    folder = tmp_path_factory.mktemp("alone")
    engine = engine_over(folder, configs(objects), objects, Execution.EXACT)
    harness.turn_all(engine)
    return {run_id: figures(engine, run_id) for run_id in engine.state.runs}


def assert_equal(engine: Engine, alone: dict[int, list[Any]], *run_ids: int) -> None:
    for run_id in run_ids:
        record = engine.state.record(run_id)
        assert record.state is RunState.COMPLETED, record.failure
        assert_as_before(figures(engine, run_id), alone[run_id])


@pytest.fixture
def at_token(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], Any]:
    """Do something when so many tokens of all were asked for."""
    own = JointDecoder.answer

    def let(number: int, happen: Callable[[], None]) -> list[int]:
        tokens: list[int] = []

        def answer(self: JointDecoder, requests: Any, stacked: Any) -> Any:
            tokens.append(len(requests))
            if len(tokens) == number:
                happen()
            return own(self, requests, stacked)

        monkeypatch.setattr(JointDecoder, "answer", answer)
        return tokens

    return let


@pytest.mark.parametrize("number", [3, 20])
def test_stops_and_clones(
    number: int, tmp_path: Path, alone: dict[int, list[Any]], at_token: Any
) -> None:
    objects = Objects()
    listed = configs(objects)
    engine = engine_over(tmp_path, listed, objects, Execution.FUSED)

    def happen() -> None:
        engine.mailbox.submit(StopRun(run_id=2))
        engine.mailbox.submit(
            CloneRun(run_id=1, config=listed[0], edits={}, warm_start=number > 10)
        )

    tokens = at_token(number, happen)
    harness.turn_all(engine)
    assert len(tokens) > number
    assert engine.state.record(2).state is RunState.STOPPED
    stopped = figures(engine, 2)
    assert_as_before(stopped, alone[2][: len(stopped)])
    assert_equal(engine, alone, 1, 3)
    if number < 10:  # from its beginning, it is the run that it was cloned from
        assert_equal(engine, {4: alone[1]}, 4)
    assert engine.state.record(4).state is RunState.COMPLETED


def test_a_failing_reward(tmp_path: Path, alone: dict[int, list[Any]]) -> None:
    objects, calls = Objects(), list[int]()

    def rewards(completions: list[Any], **columns: Any) -> list[float]:
        calls.append(len(completions))
        if len(calls) == 5:
            raise ValueError("a judge of the test's")
        return checksum(completions, **columns)

    rewards.__name__ = checksum.__name__  # metrics are named so
    engine = engine_over(tmp_path, configs(objects, rewards), objects, Execution.FUSED)
    harness.turn_all(engine)
    failed = [run_id for run_id, one in engine.state.runs.items() if one.state is RunState.FAILED]
    assert len(failed) == 1
    failure = engine.state.record(failed[0]).failure
    assert failure is not None
    assert "a judge of the test's" in failure.message
    assert_equal(engine, alone, *{1, 2, 3}.difference(failed))


@pytest.mark.parametrize("seed", range(4))
def test_no_memory_for_a_token_or_a_prompt(
    seed: int, tmp_path: Path, alone: dict[int, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [random.Random(seed).randint(2, 60)]
    whole = [JointModel._step, JointModel._prefill]  # noqa: SLF001 - where a GPU runs out of memory

    def failing(own: Any) -> Any:
        def one(self: JointModel, *given: Any) -> Any:
            left[0] -= 1
            made = own(self, *given)
            if left[0] == 0:
                raise torch.OutOfMemoryError("CUDA out of memory (injected)")
            return made

        return one

    monkeypatch.setattr(JointModel, "_step", failing(whole[0]))
    monkeypatch.setattr(JointModel, "_prefill", failing(whole[1]))
    objects = Objects()
    engine = engine_over(tmp_path, configs(objects), objects, Execution.FUSED)
    harness.turn_all(engine)
    assert left[0] < 0
    assert_equal(engine, alone, 1, 2, 3)


def test_room_for_one_run_at_a_time(
    tmp_path: Path, alone: dict[int, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    step = JointModel._step  # noqa: SLF001 - tells how many rows share a token

    def counted(self: JointModel, prompts: Any, *given: Any) -> Any:
        rows.append(sum(prompt.rows for prompt in prompts))
        return step(self, prompts, *given)

    own = JointDecoder._with_room  # noqa: SLF001 - what has room is a matter of the device

    def with_room(self: JointDecoder, new: Any) -> Any:
        taken = 0 if self._table is None else self._table.rows * 256
        self.free_bytes = lambda: (5 * 256 / 0.75 - taken) * self.token_bytes
        return own(self, new)

    monkeypatch.setattr(JointModel, "_step", counted)
    monkeypatch.setattr(JointDecoder, "_with_room", with_room)
    objects = Objects()
    engine = engine_over(tmp_path, configs(objects), objects, Execution.FUSED)
    harness.turn_all(engine)
    assert set(rows) <= {1, 2, 3, 4}
    assert_equal(engine, alone, 1, 2, 3)
