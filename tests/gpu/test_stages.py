"""Models over two GPUs: the bits of one, and models that one does not hold."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from trl.trainer.utils import add_fused_lm_head

from rf_notebook import Experiment
from rf_notebook.automl import List, RFGridSearch, RFLoraConfig, RFModelConfig, RFSFTConfig
from rf_notebook.testing.tiny import create_tiny, prompt_rows, tiny_tokenizer
from rf_notebook.training.base_models import BaseModels
from rf_notebook.training.device import spread_over
from rf_notebook.training.stages import answer_where_asked
from tests.gpu.test_worker import trained

pytestmark = pytest.mark.skipif(
    torch.cuda.device_count() < 2,
    reason="needs two GPUs; tests/training/test_stages.py has two stages on the CPU",
)
BOTH = [("cuda:0", "cuda:1")]
#: Bytes of each GPU that a worker may use; the weights of ``create_large`` are 2.1 GiB.
LIMIT = 1_700_000_000


@pytest.mark.parametrize("execution", ["exact", "fused"])
def test_runs_over_two_gpus_give_the_bits_of_one(tmp_path, execution):
    # each GPU draws from its own stream: with dropout, two draw other numbers than one
    expected, weights = trained(tmp_path / "one", "exact", ["cuda:0"], dropout=0.0)
    found, there = trained(tmp_path / "two", execution, BOTH, dropout=0.0)
    assert there == weights
    # torch adds the norms of what lies on one GPU to those on the other in whichever order it finds
    # the two, so the sum over all may be the next number
    norms, theirs = (results.pop("grad_norm").to_numpy("float32") for results in (found, expected))
    assert np.all(np.abs(norms - theirs) <= np.spacing(theirs))
    assert found.equals(expected)


def create_large(_config):
    for gpu in range(torch.cuda.device_count()):
        _, total = torch.cuda.mem_get_info(gpu)
        torch.cuda.set_per_process_memory_fraction(LIMIT / total, gpu)
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=24,
        num_attention_heads=16,
        num_key_value_heads=8,
        vocab_size=len(tokenizer),
        dtype=torch.bfloat16,
    )
    return LlamaForCausalLM(config).to(torch.bfloat16), tokenizer


def test_a_model_that_one_gpu_does_not_hold_trains_over_two(tmp_path):
    states = []
    for devices in (["cuda:0"], BOTH):
        experiment = Experiment(f"large {len(states)}", experiment_path=tmp_path)
        experiment.run_fit(
            RFGridSearch(
                RFModelConfig(
                    model_name="large",
                    peft_config=RFLoraConfig(r=List([4, 8]), target_modules="all-linear"),
                    training_args=RFSFTConfig(
                        per_device_train_batch_size=1, max_steps=4, max_length=64, bf16=True
                    ),
                ),
                "SFT",
            ),
            create_large,
            prompt_rows(8, 1),
            num_chunks=2,
            display=False,
            devices=devices,
        )
        assert experiment.wait(timeout=300)
        states.append([(str(run.state), run.error) for run in experiment.runs])
        experiment.end()
    (one, error), _ = states[0]
    assert one == "failed"
    assert "does not fit on" in error
    assert "RFModelConfig(num_gpus=2)" in error
    assert states[1] == [("completed", None)] * 2


def test_what_a_stage_computes_it_computes_on_its_own_gpu():
    # a Triton kernel goes to the current GPU, wherever its tensors are: trl's fused head is one
    seen = set()

    def create(config):
        model, tokenizer = create_tiny(config)
        for name, module in model.named_modules():
            if name and not isinstance(module, torch.nn.ModuleList):
                module.register_forward_hook(partial(note, name))
        return model, tokenizer

    def note(name, _module, _given, answer):
        answer = answer[0] if isinstance(answer, tuple) else answer
        here = getattr(answer, "last_hidden_state", answer).device.index
        seen.add((name, here, torch.cuda.current_device()))

    spread_over(2)
    try:
        base = BaseModels(create).get({"model_name": "tiny"}, use_cpu=False).model
        add_fused_lm_head(base)
        answer_where_asked(base)
        ids = torch.arange(8, device="cuda:0").unsqueeze(0)
        assert base(input_ids=ids, labels=ids, fused_lm_head=True).loss.device.index == 0
        assert torch.cuda.current_device() == 0
        assert all(here == current for _, here, current in seen)
        assert {here for _, here, _ in seen} == {0, 1}
        with pytest.raises(IndexError):  # on the last stage
            base(input_ids=ids, labels=ids[:, :3], fused_lm_head=True)
        assert torch.cuda.current_device() == 0
    finally:
        spread_over(1)
