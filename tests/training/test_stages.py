"""A model on several devices: where it lies, and how runs fill its stages."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import weakref
from collections import Counter

import pytest
import torch
from accelerate.utils import send_to_device
from torch.utils.weak import WeakTensorKeyDictionary
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer.utils import FusedCausalLMOutput

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.fleet import KERNEL, DeviceFacts
from rf_notebook.core.objects import Objects
from rf_notebook.core.run import RunState
from rf_notebook.engine.work import Work
from rf_notebook.planning.fusion import Execution
from rf_notebook.runners.in_kernel import KernelFleet
from rf_notebook.testing.tiny import create_tiny
from rf_notebook.training import pipeline, stages
from rf_notebook.training.base_models import BaseModels, tree_clone
from rf_notebook.training.device import spread_over
from rf_notebook.training.memory import bytes_of
from rf_notebook.training.stages import Arrival, answer_where_asked, stage_map
from tests.exactness import harness
from tests.fused import world

GPUS = [torch.device("cuda", index) for index in range(4)]


def skeleton(*, layers=32, tied=False, words=128_256):
    """A model of 8 billion weights' shape without its weights."""
    config = LlamaConfig(
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=words,
        tie_word_embeddings=tied,
    )
    with torch.device("meta"):
        return LlamaForCausalLM(config)


@pytest.mark.parametrize(("count", "tied"), itertools.product((1, 2, 3, 4), (False, True)), ids=str)
def test_stages_are_whole_layers_in_order_and_of_equal_size(count, tied):
    model = skeleton(tied=tied)
    places = stage_map(model, GPUS[:count])
    stages = [places[f"model.layers.{layer}"].index for layer in range(32)]
    assert stages == sorted(stages)
    assert set(stages) == set(range(count))
    sizes = [0] * count
    for path, place in places.items():
        if not (tied and path == "lm_head"):
            sizes[place.index] += bytes_of(model.get_submodule(path).parameters())
    assert max(sizes) - min(sizes) <= 2 * bytes_of(model.model.layers[0].parameters())
    assert places["model.embed_tokens"] == places["model.rotary_emb"] == GPUS[0]
    assert places["lm_head"] == (GPUS[0] if tied else GPUS[count - 1]), "tied weights stay together"
    covered = {name for path in places for name, _ in model.get_submodule(path).named_parameters()}
    assert covered, "every weight has a place"
    assert all(
        any(name.startswith(f"{path}.") for path in places) for name, _ in model.named_parameters()
    )


def test_a_model_that_does_not_name_its_layers_is_refused():
    with pytest.raises(ConfigError, match="Linear does not say which of its modules stay whole"):
        stage_map(torch.nn.Linear(2, 2), GPUS[:2])


@pytest.fixture
def two_stages(monkeypatch):
    """Models of this process's runs lie on two devices, both of which are the CPU."""
    spread_over(2)
    facts = [DeviceFacts(name=KERNEL, gpus=2)]
    monkeypatch.setattr(KernelFleet, "devices", lambda _self: facts)
    # what is left when a turn of several ends with an error of its own
    monkeypatch.setattr(Work, "_train_in_turn", None)
    yield
    spread_over(1)


def test_trees_of_runs_have_hooks_of_their_own_over_shared_weights(two_stages):
    base = BaseModels(create_tiny).get({"model_name": "tiny"}, use_cpu=False).model
    clone = tree_clone(base)
    hooked = [name for name, module in base.named_modules() if hasattr(module, "_hf_hook")]
    assert {"model.layers.0", "model.layers.1", "lm_head"} <= set(hooked)
    for name in hooked:
        mine, theirs = (vars(tree.get_submodule(name))["_hf_hook"] for tree in (clone, base))
        assert mine is not theirs
    pairs = zip(clone.parameters(), base.parameters(), strict=True)
    assert all(mine.data_ptr() == theirs.data_ptr() for mine, theirs in pairs)
    assert "to" not in vars(base), "moving it is nobody else's"
    ids = torch.arange(5).unsqueeze(0)
    plain = create_tiny({"model_name": "tiny"})[0]
    assert torch.equal(clone(input_ids=ids).logits, plain(input_ids=ids).logits)


def watched(monkeypatch, seen):
    """Notes each forward's first layer, of whichever run's tree."""

    def create(config):
        model, tokenizer = create_tiny(config)
        model.model.layers[0].register_forward_pre_hook(lambda layer, _: seen.append(id(layer)))
        return model, tokenizer

    monkeypatch.setattr(harness, "create", create)


def configs(objects, *methods, **training):
    training = {"max_steps": 4, "gradient_checkpointing": False, **training}
    return [
        world.config(method, objects, adapter={"lora_dropout": 0.1}, training=training)
        for method in methods
    ]


@pytest.mark.parametrize("execution", [Execution.EXACT, Execution.FUSED], ids=str)
def test_while_one_run_is_on_the_second_stage_the_next_is_on_the_first(
    two_stages, tmp_path, monkeypatch, execution
):
    seen, objects = list[int](), Objects()
    watched(monkeypatch, seen)
    engine = world.engine_over(tmp_path, configs(objects, *["SFT"] * 3), objects, execution)
    harness.turn_all(engine)
    records = [engine.state.record(run_id) for run_id in (1, 2, 3)]
    assert [one.state for one in records] == [RunState.COMPLETED] * 3, records[0].failure
    assert len(set(seen[:3])) == 3, "the first forward of each comes before any backward"
    assert Counter(seen) == dict.fromkeys(seen, 4)
    assert not any(one.is_joint or one.fused_with for one in records), "each has its own passes"
    turns = engine.state.turns
    assert [turn.shared_by for turn in turns] == [3] * len(turns), "bars are as long as turns"


def test_a_run_that_ended_is_let_go(two_stages, tmp_path):
    objects = Objects()
    engine = world.engine_over(tmp_path, configs(objects, "SFT", "SFT"), objects, Execution.EXACT)
    harness.turn_all(engine, turns=1)
    held = weakref.ref(engine.fleet.runner.runs[1])
    harness.turn_all(engine)
    gc.collect()
    assert held() is None


def test_one_that_fails_in_a_pipeline_fails_alone(two_stages, tmp_path, monkeypatch):
    objects = Objects()
    runs = configs(objects, "SFT", "DPO", "GRPO", "SFT")
    alone = [losses(tmp_path / "alone", config, objects) for config in runs[:3]]

    def judge(completions, **_):
        raise ValueError("the judge is away")

    training = {"max_steps": 4, "gradient_checkpointing": False}
    runs[3] = world.config("GRPO", objects, adapter={}, training=training, reward_funcs=[judge])
    engine = world.engine_over(tmp_path / "all", runs, objects, Execution.EXACT)
    monkeypatch.setattr(pipeline, "side_by_side", in_pairs)
    harness.turn_all(engine)
    assert engine.state.record(4).state is RunState.FAILED
    assert "the judge is away" in engine.state.record(4).failure.message
    for run_id in (1, 2, 3):
        record = engine.state.record(run_id)
        assert record.state is RunState.COMPLETED, record.failure
        assert points(record) == alone[run_id - 1]


def in_pairs(requests, _runs):
    """As where no more than two runs have room."""
    return [requests[first : first + 2] for first in range(0, len(requests), 2)]


def losses(folder, config, objects):
    """Of a config that trains by itself."""
    engine = world.engine_over(folder / config.method, [config], objects, Execution.EXACT)
    harness.turn_all(engine)
    return points(engine.state.record(1))


def points(record):
    return [(point.step, point.metrics.get("loss")) for point in record.all_points()]


class HeadOnTheLastDevice(torch.nn.Module):
    """Takes its inputs anywhere; its answers are on the CPU."""

    def forward(self, input_ids, labels=None):
        ones = torch.ones(input_ids.shape)
        return FusedCausalLMOutput(
            loss=ones.sum(), log_probs=ones, entropy=ones, is_top1=ones > 0, label_mask=ones > 0
        )


def test_what_a_spread_model_computes_lies_where_its_inputs_do():
    model = HeadOnTheLastDevice()
    ids = torch.zeros((2, 5), dtype=torch.long, device="meta")
    assert model(input_ids=ids, labels=ids).loss.device.type == "cpu"
    answer_where_asked(model)
    found = model(input_ids=ids, labels=ids)
    assert isinstance(found, FusedCausalLMOutput)
    assert set(found) == {"loss", "log_probs", "entropy", "is_top1", "label_mask"}
    assert {value.device.type for value in found.values()} == {"meta"}


def test_what_all_layers_of_a_stage_are_given_is_moved_once():
    there = torch.device("meta")
    known = WeakTensorKeyDictionary()
    layers = [Arrival(there, known, ["past_key_values"]) for _ in range(2)]
    mask, cos = torch.ones(2, 2), torch.ones(3)
    hidden = torch.ones(2, requires_grad=True) * 2
    (first, mine), given = layers[0].pre_forward(None, hidden, (cos, 1), mask=mask)
    (_, (again, one)), given_again = layers[1].pre_forward(None, first, (cos, 1), mask=mask)
    assert {first.device, mine[0].device, given["mask"].device} == {there}
    assert one == 1
    assert again is mine[0]
    assert given_again["mask"] is given["mask"]
    assert first.requires_grad, "its gradient comes back"
    mask.add_(1)
    _, changed = layers[0].pre_forward(None, mask=mask)
    assert changed["mask"] is not given["mask"]
    with torch.inference_mode():
        _, other = layers[0].pre_forward(None, mask=torch.ones(2), past_key_values=mask)
    assert other["mask"].device == there
    assert other["past_key_values"] is mask, "a cache has its layers where they are"
    del mask, cos, other
    assert not known, "nothing is kept longer than what it was made of"


@pytest.mark.parametrize("method", ["SFT", "DPO", "KTO", "GRPO", "RLOO"])
def test_every_trainers_model_answers_where_it_is_asked(two_stages, tmp_path, monkeypatch, method):
    sent = []

    def send(answer, device, **more):
        sent.append(answer)
        return send_to_device(answer, device, **more)

    monkeypatch.setattr(stages, "send_to_device", send)
    objects = Objects()
    more = {"beta": 0.1} if method in world.GENERATE else {"per_device_train_batch_size": 2}
    (run,) = configs(objects, method, max_steps=1, **more)
    runs = [run, dataclasses.replace(run, peft=None)]
    engine = world.engine_over(tmp_path, runs, objects, Execution.EXACT)
    harness.turn_all(engine)
    assert [engine.state.record(run_id).state for run_id in (1, 2)] == [RunState.COMPLETED] * 2
    fused = sum(isinstance(answer, FusedCausalLMOutput) for answer in sent)
    # the full one's reference is a model of its own
    assert fused >= {"SFT": 2, "DPO": 4, "KTO": 8, "GRPO": 3, "RLOO": 4}[method]
