"""Operations at random steps on real trainers leave the untouched runs exactly as without them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from rf_notebook.core.operations import CloneRun, DeleteRun, ResumeRun, StopRun
from rf_notebook.core.run import RunState
from rf_notebook.engine.turns import Idle
from rf_notebook.planning.fusion import Execution
from rf_notebook.store.memory import MemoryStore
from tests.exactness.cases import data
from tests.exactness.harness import start, turn_all
from tests.thorough import few

pytestmark = pytest.mark.slow
NAMES = ["sft_cosine_dropout", "sft_dora", "sft_neftune_max_steps", "sft_plateau_scheduler"]


def outcome(engine: Any, run_id: int) -> tuple[list[Any], dict[str, torch.Tensor] | None]:
    points = [(p.step, dict(p.metrics)) for p in engine.state.record(run_id).all_points()]
    result = engine.fleet.runner.results.get(run_id)
    return points, None if result is None else result["weights"]


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[int, tuple[list[Any], dict[str, torch.Tensor]]]:
    engine = start(tmp_path_factory.mktemp("undisturbed"), NAMES, data("prompts"), num_chunks=4)
    turn_all(engine)
    return {run_id: outcome(engine, run_id) for run_id in range(1, len(NAMES) + 1)}


def assert_same(found: Any, expected: Any, execution: Execution) -> None:
    """Equal; what took part in joint steps, up to rounding."""
    points, weights = found
    expected_points, expected_weights = expected
    if execution is Execution.EXACT:
        assert points == expected_points
    for (step, metrics), (at, before) in zip(points, expected_points, strict=True):
        assert (step, metrics) == (at, pytest.approx(before, rel=1e-5, abs=1e-6))
    for name, tensor in (expected_weights or {}).items():
        apart = (weights[name] - tensor).abs().max().item()
        assert apart <= (0.0 if execution is Execution.EXACT else 5e-6), name


@pytest.mark.parametrize("execution", [Execution.EXACT, Execution.FUSED])
@pytest.mark.parametrize("seed", few(3, range(8)))
def test_untouched_runs_are_as_without_the_operations_and_stopped_ones_too(
    seed: int, execution: Execution, tmp_path: Path, undisturbed: Any
) -> None:
    rng = random.Random(seed)
    store = MemoryStore()
    engine = start(tmp_path, NAMES, data("prompts"), num_chunks=4, store=store, execution=execution)
    restart_after = rng.randint(3, 12)
    moments = sorted(rng.sample(range(90), 6))
    steps = [0]

    def user(run_id: int, progress: Any, point: Any) -> None:
        if point is not None:
            return
        steps[0] += 1
        if moments and steps[0] >= moments[0]:
            moments.pop(0)
            target = rng.choice(sorted(engine.state.runs))
            config = engine.state.record(target).config
            kind = rng.choice(["stop", "stop", "resume", "clone", "warm", "delete"])
            operation: Any = {
                "stop": StopRun(run_id=target),
                "resume": ResumeRun(run_id=target),
                "delete": DeleteRun(run_id=target),
                "clone": CloneRun(run_id=target, config=config, edits={}),
                "warm": CloneRun(run_id=target, config=config, edits={}, warm_start=True),
            }[kind]
            engine.mailbox.submit(operation)

    def listen(run_id: int, progress: Any, point: Any) -> None:
        engine.on_live(run_id, progress, point)
        user(run_id, progress, point)

    engine.fleet.listener = listen  # type: ignore[attr-defined]
    turns = 0
    while not isinstance(engine.turn(), Idle):
        turns += 1
        if turns == restart_after:
            results = engine.fleet.runner.results  # type: ignore[attr-defined]
            engine.fleet.close()
            engine = start(
                tmp_path, NAMES, data("prompts"), num_chunks=4, store=store, execution=execution
            )
            engine.fleet.runner.results.update(
                {k: v for k, v in results.items() if k not in engine.fleet.runner.results}
            )  # type: ignore[attr-defined]
            engine.fleet.listener = listen  # type: ignore[attr-defined]
    engine.fleet.listener = engine.on_live  # type: ignore[attr-defined]
    for record in list(engine.state.runs.values()):
        if record.state is RunState.STOPPED:
            engine.mailbox.submit(ResumeRun(run_id=record.run_id))
    turn_all(engine)
    for run_id, (points, weights) in undisturbed.items():
        record = engine.state.record(run_id)
        found, found_weights = outcome(engine, run_id)
        if record.state is RunState.DELETED:
            assert_same((found, None), (points[: len(found)], None), execution)
            continue
        assert record.state is RunState.COMPLETED, record.failure
        assert found_weights is not None
        assert_same((found, found_weights), (points, weights), execution)
    for record in engine.state.runs.values():
        assert record.state in (RunState.COMPLETED, RunState.DELETED), record.failure
