"""Async rewards of a joint group are awaited while other runs write, and beside each other."""

from __future__ import annotations

import asyncio
import inspect
import random
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from rf_notebook.core.objects import Objects
from rf_notebook.core.run import RunState
from rf_notebook.engine.loop import Engine
from rf_notebook.planning.fusion import Execution
from rf_notebook.testing.tiny import preference_rows
from rf_notebook.training import awaiting
from rf_notebook.training.awaiting import RunStreams
from rf_notebook.training.fused.decoder import JointDecoder
from rf_notebook.views.document import to_html
from rf_notebook.views.schedule import schedule
from tests.exactness import harness
from tests.exactness.cases import checksum
from tests.fused.world import ROWS, config, engine_over, figures

pytestmark = pytest.mark.slow
#: Longer than anything here takes; what is awaited comes from another run, or never.
_SECONDS = 60


def trained(
    folder: Path,
    rewards: list[list[Callable[..., Any]]],
    execution: Execution = Execution.FUSED,
    limits: tuple[int, ...] = (2, 24),
    rows: Any = ROWS,
    **training: Any,
) -> Engine:
    """GRPO runs with these rewards that write at most so many tokens, by turns."""
    objects = Objects()
    configs = [
        config(
            "GRPO",
            objects,
            adapter={},
            training={
                "seed": seed,
                "max_completion_length": limits[seed % len(limits)],
                **training,
            },
            reward_funcs=functions,
        )
        for seed, functions in enumerate(rewards)
    ]
    engine = harness.engine_over(folder, rows, configs, objects, execution=execution, num_chunks=2)
    harness.turn_all(engine)
    return engine


def assert_completed(engine: Engine, *run_ids: int) -> None:
    for run_id in run_ids:
        record = engine.state.record(run_id)
        assert record.state is RunState.COMPLETED, record.failure


async def until(happened: Callable[[], bool]) -> None:
    """In this thread, whatever happens elsewhere in it."""
    deadline = time.monotonic() + _SECONDS
    while not happened():
        assert time.monotonic() < deadline, "the others did not continue meanwhile"
        await asyncio.sleep(0)


def test_other_runs_write_on_while_one_awaits_its_rewards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens: list[int] = []
    own = JointDecoder.answer

    def answer(self: JointDecoder, requests: Any, stacked: Any) -> Any:
        tokens.append(len(requests))
        return own(self, requests, stacked)

    async def judged(completions: list[Any], **columns: Any) -> list[float]:
        first = len(tokens)
        if len(awaited) < 2:  # the other run writes up to 24 tokens, this one 2
            await until(lambda: len(tokens) >= first + 5)
            awaited.append(len(tokens) - first)
        return checksum(completions, **columns)

    awaited: list[int] = []
    monkeypatch.setattr(JointDecoder, "answer", answer)
    engine = trained(tmp_path, [[judged], [checksum]])
    assert_completed(engine, 1, 2)
    assert len(awaited) == 2


def test_rewards_of_several_runs_and_functions_are_awaited_at_once(tmp_path: Path) -> None:
    begun: set[str] = set()

    def judge(name: str) -> Callable[..., Any]:
        async def judged(completions: list[Any], **columns: Any) -> list[float]:
            begun.add(name)
            await until(lambda: begun == {"a", "b", "c"})
            return checksum(completions, **columns)

        judged.__name__ = name
        return judged

    engine = trained(tmp_path, [[judge("a"), judge("b")], [judge("c")]], limits=(4,))
    assert_completed(engine, 1, 2)
    of_turns = [turn.reward_seconds for turn in engine.state.turns]
    assert {name for seconds in of_turns for name in seconds} == {"a", "b", "c"}
    assert all(value >= 0 for seconds in of_turns for value in seconds.values())
    shown = to_html(schedule(engine.state))
    assert re.search(r"Of the training, reward functions took: ([abc] [\d.]+ s[,.] ?){3}", shown)
    assert re.search(r"\(rewards: [abc] ", shown)


def test_answers_of_evaluations_are_judged_as_those_of_each_run_alone(tmp_path: Path) -> None:
    """Drawn, judged by what draws, awaited beside each other; and no part of training's time."""
    drawn: dict[tuple[str, int], list[Any]] = {}
    at_once: list[int] = []

    def rewards(way: str, number: int) -> list[Callable[..., Any]]:
        waiting: list[int] = []

        async def noisy(completions: list[Any], **columns: Any) -> list[float]:
            noise = [(random.random(), float(torch.rand(()))) for _ in completions]
            drawn.setdefault((way, number), []).append((completions, noise))
            running.append(number)
            at_once.append(len(set(running)))
            await asyncio.sleep(0.02)
            running.remove(number)
            return [a + b for a, b in noise]

        running = shared if way == "joint" else waiting
        return [noisy]

    shared: list[int] = []
    rows = (preference_rows(16, 1), preference_rows(8, 2))
    sizes = {"per_device_eval_batch_size": 4, "max_steps": 4}
    engines = {
        way: trained(
            tmp_path / way,
            [rewards(way, number) for number in range(3)],
            execution,
            rows=rows,
            **sizes,
        )
        for way, execution in (("alone", Execution.EXACT), ("joint", Execution.FUSED))
    }
    assert max(at_once) > 1
    for number in range(3):
        assert drawn["joint", number] == drawn["alone", number]
        before, now = (figures(engines[way], number + 1) for way in ("alone", "joint"))
        evaluations = [metrics for _, metrics in now if "eval_reward" in metrics]
        assert evaluations
        for (step, expected), (at, found) in zip(before, now, strict=True):
            assert (step, found) == (at, pytest.approx(expected, rel=1e-4, abs=2e-6))


@pytest.mark.parametrize("pause", [0.0, 0.01])
def test_each_run_draws_what_it_draws_alone(tmp_path: Path, pause: float) -> None:
    def rewards(name: str, drawn: dict[str, list[Any]]) -> list[Callable[..., Any]]:
        async def noise() -> tuple[float, float]:
            await asyncio.sleep(pause)
            return random.random(), float(torch.rand(()))

        async def noisy(completions: list[Any], **columns: Any) -> list[float]:
            first = [await noise() for _ in completions]
            found = first + await asyncio.gather(*(noise() for _ in completions))
            drawn.setdefault(name, []).append(found)
            return [a + b for a, b in found[: len(completions)]]

        return [noisy]

    together: dict[str, list[Any]] = {}
    alone: dict[str, list[Any]] = {}
    more: dict[str, Any] = {"num_iterations": 2, "beta": 0.1, "max_steps": 4}
    joint = trained(tmp_path / "together", [rewards(one, together) for one in "abc"], **more)
    exact = trained(
        tmp_path / "alone", [rewards(one, alone) for one in "abc"], Execution.EXACT, **more
    )
    assert_completed(joint, 1, 2, 3)
    assert_completed(exact, 1, 2, 3)
    assert any(joint.state.record(run_id).fused_with for run_id in (1, 2, 3))
    assert alone.keys() == {"a", "b", "c"}
    assert together == alone
    for run_id in (1, 2, 3):
        ours, theirs = (
            {step: given["reward"] for step, given in figures(one, run_id) if "reward" in given}
            for one in (joint, exact)
        )
        assert len(theirs) == 2, "one a generation"
        assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("execution", [Execution.FUSED, Execution.EXACT])
def test_what_a_cell_made_for_its_judge_serves_all_runs_and_batches(
    tmp_path: Path, execution: Execution
) -> None:
    """A semaphore or a client belongs to the event loop that used it first."""
    busy = asyncio.Semaphore(1)
    at_once, most = 0, 0

    async def asked(text: Any) -> float:
        nonlocal at_once, most
        async with busy:
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0)
            at_once -= 1
        return float(len(str(text)) % 5)

    async def judged(completions: list[Any], **columns: Any) -> list[float]:
        return list(await asyncio.gather(*map(asked, completions)))

    both = [[judged, judged], [judged, checksum]]
    engine = trained(tmp_path, both, execution, limits=(4,), max_steps=3)
    assert_completed(engine, 1, 2)
    assert most == 1


def test_one_that_fails_fails_its_run_alone_and_leaves_nothing_running(tmp_path: Path) -> None:
    left: list[str] = []

    async def fails(completions: list[Any], **columns: Any) -> list[float]:
        await asyncio.sleep(0)
        raise KeyError("judge")

    async def hangs(completions: list[Any], **columns: Any) -> list[float]:
        try:
            await asyncio.sleep(_SECONDS)
        finally:
            left.append("cancelled")
        return checksum(completions, **columns)

    engine = trained(tmp_path, [[fails, hangs], [checksum]], limits=(4,))
    record = engine.state.record(1)
    assert record.state is RunState.FAILED
    assert record.failure is not None
    assert "the reward function 'fails' raised KeyError: 'judge'" in record.failure.message
    assert left == ["cancelled"]
    assert_completed(engine, 2)


def test_what_is_cancelled_before_it_begins_is_closed() -> None:
    async def never() -> None:
        raise AssertionError

    made = never()
    awaiting.cancel([awaiting.begin(made, RunStreams())])
    assert inspect.getcoroutinestate(made) == inspect.CORO_CLOSED


@pytest.mark.parametrize("current", ["none", "the user's", "a closed one"])
@pytest.mark.parametrize("left", [False, True])
def test_a_threads_loop_ends_whatever_the_threads_current_loop_is(current: str, left: bool) -> None:
    async def reward() -> float:
        return 1.0

    async def hangs() -> None:
        await asyncio.sleep(3600)

    def experiment() -> None:
        users = None if current == "none" else asyncio.new_event_loop()
        asyncio.set_event_loop(users)
        try:
            if users is not None and current == "a closed one":
                users.close()
            assert awaiting.result_of(reward()) == 1.0
            task = awaiting.begin(hangs(), RunStreams()) if left else None
            awaiting.close()
            assert task is None or task.cancelled()
            policy = asyncio.get_event_loop_policy()
            if users is None:
                with pytest.raises(RuntimeError, match="no current event loop"):
                    policy.get_event_loop()
            else:
                assert policy.get_event_loop() is users
        finally:
            if users is not None:
                users.close()
            asyncio.set_event_loop(None)

    with ThreadPoolExecutor(1) as thread:
        thread.submit(experiment).result()


@pytest.mark.parametrize(
    ("training", "adapter", "why"),
    [
        ({"generation_kwargs": {"num_beams": 2}}, {}, "it is beam s"),
        ({}, {"lora_dropout": 0.1}, "dropout or noise is active while it writes"),
    ],
)
def test_a_run_that_shares_no_tokens_says_why(
    tmp_path: Path, training: dict[str, Any], adapter: dict[str, Any], why: str
) -> None:
    objects = Objects()
    configs = [
        config("GRPO", objects, adapter=adapter, training=training),
        config("GRPO", objects, adapter={}, training={"seed": 1}),
    ]
    engine = engine_over(tmp_path, configs, objects, Execution.FUSED)
    harness.turn_all(engine)
    assert_completed(engine, 1, 2)
    told = [
        recorded.event.text
        for recorded in engine.state.notes
        if "does not share the joint steps of a token" in recorded.event.text
    ]
    assert len(told) == 1, told
    assert why in told[0]
