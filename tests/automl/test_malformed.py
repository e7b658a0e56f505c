"""Five hundred malformed configs.

Each refused at once, in a sentence that names the argument, before any model.
"""

from __future__ import annotations

import math
import random
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rf_notebook.automl import (
    List,
    Range,
    RFGridSearch,
    RFLoraConfig,
    RFModelConfig,
    RFRandomSearch,
    RFSFTConfig,
)
from rf_notebook.automl.library_configs import TRAINING_CONFIGS
from rf_notebook.core.errors import ConfigError
from tests.campaign.malformed import Malformed

TRAINING = tuple(TRAINING_CONFIGS.values())

#: Arguments and values that none of them can take.
WRONG: dict[str, list] = {
    "learning_rate": ["fast", -1e-3, math.nan, math.inf, None, [1e-3], True, {}],
    "per_device_train_batch_size": [0, -4, 2.5, "8", None, True],
    "per_device_eval_batch_size": [0, -1, "8"],
    "gradient_accumulation_steps": [0, -1, 1.5, "2"],
    "num_train_epochs": [0, -1, math.nan, "3", None],
    "max_steps": [0, -2, "100", 1.5],
    "warmup_steps": [-1, "10", math.nan],
    "weight_decay": [-0.1, "0.1", math.inf],
    "adam_beta1": [1.0, -0.1, "0.9"],
    "adam_beta2": [2, -0.1],
    "adam_epsilon": [0, -1e-8],
    "max_grad_norm": [-1, math.nan],
    "seed": [-1, 2**32, 1.5, "42", None],
    "logging_steps": [0, -5],
    "eval_steps": [0, -1],
    "save_steps": [0, -1],
    "lr_scheduler_type": ["cosin", "", 5],
    "optim": ["adam_w", "lion_16bit", 3],
    "eval_strategy": ["step", "always"],
    "save_strategy": ["sometimes"],
    "logging_strategy": ["now"],
    "neftune_noise_alpha": [-1, "5"],
    "deepspeed": ["zero3.json", {"zero": 3}],
    "fsdp": ["full_shard"],
    "use_liger_kernel": [True],
    "auto_find_batch_size": [True],
    "fp16_full_eval": [True],
    "bf16_full_eval": [True],
    "torch_compile": [True],
    "push_to_hub": [True],
    "report_to": ["wandbb", ["tensorbord"], [None, "mlfow"]],
    "resume_from_checkpoint": ["x"],
    "label_smoothing_factor": [1.0, -0.5],
    "gradient_checkpointing_kwargs": [5, [1]],
    "bf16": ["yes"],
    "learning_rat": [1e-3],
    "evaluation_strateg": ["steps"],
    "batch_size": [8],
    "epochs": [3],
    "lr": [1e-3],
    "group_by_length": [True],
}
LORA: dict[str, list] = {
    "r": [0, -8, 1.5, "8", None, True, [8]],
    "lora_alpha": [0, -1, "16"],
    "lora_dropout": [1.0, -0.1, 1.5, "0.1", math.nan],
    "target_modules": [5, 1.5],
    "bias": ["non", "some", 1],
    "use_dora": ["yes", 2],
    "use_rslora": ["yes"],
    "rank": [8],
    "alpha": [16],
    "target_module": [["q_proj"]],
    "dropout": [0.1],
    "megatron_config": [{"a": 1}],
}
MODEL: dict[str, list] = {
    "model_name": [5, "", "  ", ["a"], {}],
    "model_type": ["causal", "seq2seq_lm", "masked_lm", 3],
    "tokenizer": [5, ""],
    "tokenizer_kwargs": ["x", [1], {1: 2}],
    "model_kwargs": ["auto", [1], {1: 2}],
    "formatting_func": ["format", 5, {}],
    "compute_metrics": ["rouge", 5],
    "peft_config": [{"r": 8}, "lora", 5],
    "training_args": [{"learning_rate": 1}, "sft", 5],
    "generation_config": ["greedy", 5],
    "reward_funcs": [5, [], [1.0]],
    "warm_start_from": [5, ["adapter"]],
    "num_gpus": [0, -1, 17, "1", True],
    "modelname": ["x"],
    "peftconfig": [None],
    "formating_func": [len],
}
WRITTEN: list[tuple[object, str, object]] = [
    *((cls, name, value) for cls in TRAINING for name, values in WRONG.items() for value in values),
    *((RFLoraConfig, name, value) for name, values in LORA.items() for value in values),
    *((RFModelConfig, name, value) for name, values in MODEL.items() for value in values),
    # the same inside a List: a search space hides nothing
    *((RFSFTConfig, name, List([values[0]])) for name, values in WRONG.items()),
    *((RFLoraConfig, name, List([values[0], values[-1]])) for name, values in LORA.items()),
]


def refused(make, *names: str) -> None:
    started = time.perf_counter()
    with pytest.raises(ConfigError) as caught:
        make()
    seconds = time.perf_counter() - started
    text = str(caught.value)
    assert any(name in text for name in names), text
    assert text.endswith((".", "?", ")")), text
    assert "\n" not in text
    assert len(text) < 500
    assert seconds < 0.1, f"{seconds:.3f} s: {text}"


@pytest.fixture(scope="module", autouse=True)
def warm():
    """The first config reads the libraries' sources."""
    for cls in (*TRAINING, RFLoraConfig):
        cls.known()


def test_the_written_list_is_long_enough():
    assert len(WRITTEN) >= 350, len(WRITTEN)


@pytest.mark.parametrize(
    ("cls", "name", "value"), WRITTEN, ids=lambda v: getattr(v, "__name__", repr(v)[:30])
)
def test_a_malformed_argument_is_refused_by_name(cls, name, value):
    refused(lambda: cls(**{name: value}), name)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: List([]), "List"),
        (lambda: List("abc"), "List"),
        (lambda: List(5), "List"),
        (lambda: Range("a", 2), "start"),
        (lambda: Range(1, None), "end"),
        (lambda: Range(2, 1), "start"),
        (lambda: Range(0, 1, log=True), "log"),
        (lambda: Range(1, 2, log=True, step=1), "step"),
        (lambda: Range(1, 2, step=0), "step"),
        (lambda: Range(1, 2, step=-1), "step"),
        (lambda: Range(1, 2, dtype="str"), "dtype"),
        (lambda: Range(0.5, 2, dtype="int"), "dtype"),
        (lambda: Range(math.nan, 1), "start"),
        (lambda: RFSFTConfig(5), "RFSFTConfig"),
        (lambda: RFSFTConfig(learning_rate=Range(-1, 1)), "learning_rate"),
        (lambda: RFLoraConfig(r=Range(0, 4)), "r"),
        (lambda: RFSFTConfig(bf16=True, fp16=True), "fp16"),
        (lambda: RFSFTConfig(load_best_model_at_end=True), "eval_strategy"),
        (lambda: RFSFTConfig(padding_free=True), "padding_free"),
        (lambda: RFSFTConfig(packing=True, max_length=None), "max_length"),
        (lambda: RFGridSearch([], "SFT"), "RFGridSearch"),
        (
            lambda: RFGridSearch(
                RFModelConfig(model_name="a", training_args=RFSFTConfig()), "sftt"
            ),
            "trainer_type",
        ),
        (
            lambda: RFGridSearch(RFModelConfig(model_name="a", training_args=RFSFTConfig()), 5),
            "trainer_type",
        ),
        (
            lambda: RFGridSearch(RFModelConfig(model_name="a", training_args=RFSFTConfig()), "DPO"),
            "training_args",
        ),
        (lambda: RFGridSearch(RFModelConfig(model_name="a"), "SFT"), "training_args"),
        (lambda: RFGridSearch({"model_name": "a"}, "SFT"), "RFGridSearch"),
        (lambda: RFRandomSearch(RFModelConfig(model_name="a"), "SFT", num_runs=0), "num_runs"),
        (lambda: RFRandomSearch(RFModelConfig(model_name="a"), "SFT", num_runs="3"), "num_runs"),
        (lambda: RFRandomSearch(RFModelConfig(model_name="a"), "SFT", num_runs=2, seed=-1), "seed"),
    ],
)
def test_malformed_search_spaces_are_refused(make, name):
    refused(make, name)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    cls=st.sampled_from([*TRAINING, RFLoraConfig, RFModelConfig]),
    name=st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=25),
    value=st.none()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.lists(st.integers(), max_size=3),
)
def test_an_argument_that_does_not_exist_is_refused_whatever_its_value(cls, name, value):
    known = set(RFModelConfig.FIELDS) if cls is RFModelConfig else set(cls.known())
    from rf_notebook.automl import compatibility

    tables = (
        compatibility._ALWAYS,  # noqa: SLF001 - every argument there is or was
        compatibility._RENAMED_TRAINING,  # noqa: SLF001
        compatibility._RENAMED_MODEL,  # noqa: SLF001
        compatibility._WITHOUT_EFFECT,  # noqa: SLF001
    )
    # hypothesis draws from the texts in our own source, those tables' too
    if name in known.union({"warmup_ratio"}, *tables):
        return
    refused(lambda: cls(**{name: value}), name)


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(
        ["r", "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs"]
    ),
    value=st.integers(max_value=0)
    | st.text(max_size=8)
    | st.lists(st.integers(), max_size=2)
    | st.booleans(),
)
def test_counts_must_be_positive_numbers(name, value):
    cls = RFLoraConfig if name == "r" else RFSFTConfig
    refused(lambda: cls(**{name: value}), name)


@pytest.mark.parametrize("seed", range(4))
def test_odd_values_of_any_argument_are_refused_in_a_sentence_or_taken(seed, tmp_path):
    """Arrays, Series, numbers of 400 digits, lists without end: what the campaign does for longer."""
    part = Malformed(tmp_path)
    for number in range(250):
        assert not part.attempt(random.Random(f"{seed}/{number}"))
