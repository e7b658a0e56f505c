"""A run that runs out of memory, wherever in its step, changes no figure of the others."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from rf_notebook.core.run import RunState
from rf_notebook.testing.tiny import preference_rows
from rf_notebook.training.methods import METHODS
from tests.exactness.cases import CASES
from tests.exactness.harness import WatchedRunner, start, turn_all

pytestmark = pytest.mark.slow
NAMES = [
    "sft_among_others",
    "dpo_combined",
    "kto_own_reference",
    "grpo_two_generations",
    "rloo_without_reference",
    "reward_lora",
]
DATA = (preference_rows(8, 1), None)
_PLACES = 50


def figures(engine: Any, run_id: int) -> list[Any]:
    return [(p.step, dict(p.metrics)) for p in engine.state.record(run_id).all_points()]


class OutOfMemory(WatchedRunner):
    """Lets one run meet an allocation that fails, at the n-th pass through a layer.

    Forward, backward or generation.
    """

    victim = 0
    passes = 0

    def build(self, request: Any) -> Any:
        built = super().build(request)
        held = self.runs.get(request.run_id)
        if held is not None and request.run_id == self.victim:
            left = [self.passes]

            def fail(*_: Any) -> None:
                left[0] -= 1
                if left[0] == 0:
                    raise torch.cuda.OutOfMemoryError(
                        "CUDA out of memory. Tried to allocate 20.00 GiB (injected)."
                    )

            def watch(_layer: Any, _given: Any, made: Any) -> None:
                fail()
                output = made[0] if isinstance(made, tuple) else made
                if output.requires_grad:
                    output.register_hook(fail)

            layers = [
                m for n, m in held.trainer.model.named_modules() if n.endswith(("self_attn", "mlp"))
            ]
            for layer in layers:
                layer.register_forward_hook(watch)
        return built


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Any]]:
    engine = start(tmp_path_factory.mktemp("undisturbed"), NAMES, DATA, num_chunks=2)
    turn_all(engine)
    return {run_id: figures(engine, run_id) for run_id in engine.state.runs}


@pytest.mark.parametrize("seed", range(_PLACES))
def test_the_others_train_as_without_it(
    seed: int, tmp_path: Path, undisturbed: dict[int, list[Any]]
) -> None:
    rng = random.Random(seed)
    victim = 1 + seed % len(NAMES)

    class Runner(OutOfMemory):
        pass

    Runner.victim, Runner.passes = victim, rng.randint(1, 40)
    engine = start(tmp_path, NAMES, DATA, num_chunks=2, runner=Runner)
    turn_all(engine)
    failed = engine.state.record(victim)
    assert failed.state is RunState.FAILED
    assert failed.failure is not None
    assert failed.failure.out_of_memory
    assert "retry it with per_device_train_batch_size=" in failed.failure.message
    assert failed.failure.retry["training_args.gradient_accumulation_steps"] in (2, 4)
    assert figures(engine, victim) == undisturbed[victim][: len(figures(engine, victim))], (
        "what it had is kept"
    )
    for run_id in undisturbed.keys() - {victim}:
        assert engine.state.record(run_id).state is RunState.COMPLETED
        assert figures(engine, run_id) == undisturbed[run_id]


def test_every_method_is_among_the_victims() -> None:
    assert {CASES[name].method for name in NAMES} == METHODS.keys()
