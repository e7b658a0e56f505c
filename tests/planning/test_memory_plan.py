"""What a run needs is known before it starts, near enough, and the knob that makes it fit is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rf_notebook.planning.memory_plan import (
    Load,
    ModelShape,
    edits_sentence,
    estimate,
    halved_batch,
    remedy,
)

GIB = 2**30
LLAMA = {"layers": 22, "hidden": 2048, "intermediate": 5632, "key_value_width": 256}
QWEN = {"layers": 24, "hidden": 896, "intermediate": 4864, "key_value_width": 128}
#: Peak device memory of plain TRL's SFTTrainer, three steps, on one H200 with torch 2.11, trl 1.16,
#: 2026-11-22: the model, bytes of a weight, bf16, checkpointing, all weights trained, examples,
#: length, base, trainable and peak bytes.
MEASURED = [
    (LLAMA, 2, True, True, False, 1, 512, 2269303808, 50462720, 2548987392),
    (LLAMA, 2, True, True, False, 4, 512, 2269303808, 50462720, 2913498624),
    (LLAMA, 2, True, True, False, 4, 2048, 2269303808, 50462720, 4388464128),
    (LLAMA, 2, True, False, False, 1, 512, 2269303808, 50462720, 3600765952),
    (LLAMA, 2, True, False, False, 4, 512, 2269303808, 50462720, 6920708608),
    (LLAMA, 2, True, False, False, 4, 2048, 2269303808, 50462720, 20119221248),
    (LLAMA, 4, True, False, False, 4, 1024, 4467303424, 50462720, 15670432768),
    (LLAMA, 4, True, True, False, 4, 1024, 4467303424, 50462720, 6060594688),
    (LLAMA, 4, False, False, False, 4, 1024, 4467303424, 50462720, 31638827520),
    (LLAMA, 2, True, True, True, 4, 1024, 0, 2200096768, 11077626880),
    (LLAMA, 2, True, False, True, 4, 1024, 0, 2200096768, 15306779136),
    (LLAMA, 4, True, True, True, 4, 1024, 0, 4400193536, 22067809280),
    (QWEN, 2, True, True, False, 4, 1024, 1065528320, 35192832, 1755352576),
    (QWEN, 2, True, True, False, 8, 2048, 1065528320, 35192832, 3505335808),
    (QWEN, 2, True, False, False, 4, 1024, 1065528320, 35192832, 7504650752),
    (QWEN, 2, True, False, False, 8, 2048, 1065528320, 35192832, 25885660160),
]


def shape(model=LLAMA, element_bytes=2, weight_bytes=2 * GIB):
    return ModelShape(weight_bytes=weight_bytes, element_bytes=element_bytes, **model)


def load(**changes):
    given = {
        "method": "SFT",
        "has_adapter": True,
        "trainable_bytes": 50 * 2**20,
        "optimizer_bytes": 100 * 2**20,
        "examples": 8,
        "accumulation": 1,
        "length": 2048,
        "is_checkpointed": True,
        "compute_bytes": 2,
    }
    return Load(**{**given, **changes})


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: "-".join(map(str, row[1:7])))
def test_estimates_are_near_what_was_measured(row):
    model, element, bf16, checkpointed, full, examples, length, base, trainable, peak = row
    found = estimate(
        shape(model, element, base),
        load(
            has_adapter=not full,
            trainable_bytes=trainable,
            optimizer_bytes=2 * trainable,
            examples=examples,
            length=length,
            is_checkpointed=checkpointed,
            compute_bytes=2 if bf16 else element,
        ),
    )
    assert found.certain <= peak, "what is called certain is"
    assert 0.8 <= found.total / peak <= 1.3


def test_dpo_holds_two_sides_and_grpo_what_it_writes():
    one = estimate(shape(), load())
    assert estimate(shape(), load(method="DPO")).activations == 2 * one.activations
    assert (
        estimate(shape(), load(method="GRPO", generated_examples=10_000)).activations
        > one.activations
    )


def test_the_remedy_with_the_least_consequences_comes_first():
    whole, tight = shape(), load(is_checkpointed=False)
    needed = estimate(whole, tight).total
    assert remedy(whole, tight, needed // 2) == {"training_args.gradient_checkpointing": True}
    smallest = estimate(whole, load(examples=2)).total
    assert remedy(whole, tight, smallest) == {
        "training_args.gradient_checkpointing": True,
        "training_args.per_device_train_batch_size": 2,
        "training_args.gradient_accumulation_steps": 4,
    }
    assert remedy(whole, tight, 2**20) is None
    assert remedy(whole, replace(tight, least_examples=tight.examples), smallest) is None


def test_half_a_batch_keeps_the_examples_of_a_step():
    assert halved_batch({}) == {
        "training_args.per_device_train_batch_size": 4,
        "training_args.gradient_accumulation_steps": 2,
    }
    edits = halved_batch(
        {
            "per_device_train_batch_size": 6,
            "gradient_accumulation_steps": 3,
            "steps_per_generation": 2,
        }
    )
    assert edits_sentence(edits) == (
        "per_device_train_batch_size=3, gradient_accumulation_steps=6, steps_per_generation=4"
    )
    assert halved_batch({"per_device_train_batch_size": 1}) == {}
    assert halved_batch({"per_device_train_batch_size": 2}, least=2) == {}
