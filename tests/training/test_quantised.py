"""Runs over a quantised base share its weights and scales, and train as plain TRL does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from rf_notebook.planning.fusion import Execution
from rf_notebook.testing.tiny import tiny_model
from rf_notebook.training.base_models import load_from_hub, tree_clone
from rf_notebook.training.residency import storage_of, tensors_of
from tests import warm
from tests.exactness.cases import CASES, data
from tests.exactness.harness import start, turn_all
from tests.exactness.test_equals_plain_trl import assert_equal
from tests.fused.world import figures

KINDS = ["load_in_4bit", "load_in_8bit"]


@pytest.fixture(params=KINDS)
def quantised(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_model(hidden=128).save_pretrained(folder)
    from rf_notebook.testing.tiny import tiny_tokenizer

    tiny_tokenizer().save_pretrained(folder)
    kwargs = {"quantization_config": {"quant_method": "bitsandbytes", request.param: True}}
    return load_from_hub({"model_name": str(folder), "model_kwargs": kwargs})[0]


def test_a_clone_of_a_quantised_model_shares_all_its_storage_and_works_as_often_as_wanted(
    quantised,
):
    ids = torch.arange(5, 20)[None]
    own = {storage_of(tensor) for tensor in tensors_of(quantised)}
    first, second = tree_clone(quantised), tree_clone(quantised)
    for tree in (first, second):
        assert {storage_of(tensor) for tensor in tensors_of(tree)} == own
    with torch.no_grad():
        logits = first(ids).logits
        assert torch.equal(second(ids).logits, logits)
        assert torch.equal(tree_clone(quantised)(ids).logits, logits), (
            "the base is as it was, also after two clones ran"
        )
    for tree in (tree_clone(quantised), tree_clone(quantised)):
        adapted = get_peft_model(tree, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
        adapted.train()(ids, labels=ids).loss.backward()
        assert all(p.grad is not None for p in adapted.parameters() if p.requires_grad)


@pytest.mark.slow
def test_runs_over_quantised_bases_equal_plain_trl_bit_for_bit(tmp_path):
    names = [name for name, case in CASES.items() if case.data == "quantised"]
    assert len(names) >= 3
    plain = {}
    for name in names:
        # Each in a process of its own that was not forked: importing bitsandbytes initialises a
        # GPU.
        command = [
            *warm.python(),
            "-W",
            "ignore",
            "-m",
            "tests.exactness.plain_trl",
            str(tmp_path),
            name,
        ]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[2], timeout=300)
        plain[name] = torch.load(tmp_path / f"{name}.pt", weights_only=True)
    engine = start(tmp_path / "ours", names, data("quantised"), num_chunks=4)
    turn_all(engine)
    for run_id, name in enumerate(names, start=1):
        assert engine.state.record(run_id).state == "completed", engine.state.record(run_id).failure
        assert_equal(name, plain[name], engine.fleet.runner.results[run_id])


@pytest.mark.parametrize(
    "names", [["sft_4bit", "dpo_4bit"], ["sft_8bit", "sft_8bit"]], ids=["4bit", "8bit"]
)
def test_runs_over_a_quantised_base_train_in_joint_steps_and_equal_runs_alone(tmp_path, names):
    engines = {}
    for execution in (Execution.EXACT, Execution.FUSED):
        engine = start(
            tmp_path / execution, names, data("quantised"), num_chunks=2, execution=execution
        )
        turn_all(engine)
        engines[execution] = engine
    alone, joint = engines[Execution.EXACT], engines[Execution.FUSED]
    (model,) = joint.fleet.runner.joint_turns.models.values()
    assert model.counts.forwards > 0
    assert model.counts.requests > model.counts.forwards
    for run_id, name in enumerate(names, start=1):
        record = joint.state.record(run_id)
        assert record.state == "completed", record.failure
        assert record.fused_with == (3 - run_id,)
        pairs = list(zip(figures(alone, run_id), figures(joint, run_id), strict=True))
        assert len(pairs) > 2
        for (step, expected), (_, found) in pairs:
            assert found == pytest.approx(expected, rel=1e-6), (name, step)
        weights = alone.fleet.runner.results[run_id]["weights"]
        assert weights.keys() == joint.fleet.runner.results[run_id]["weights"].keys()
        assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
        for path, expected in weights.items():
            assert torch.equal(joint.fleet.runner.results[run_id]["weights"][path], expected), (
                name,
                path,
            )
