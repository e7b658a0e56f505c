"""What fits into memory is told beforehand, and what did not fit is tried again."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from peft import LoraConfig

from rf_notebook import ConfigError, IllegalOperation
from rf_notebook.planning.memory_plan import Load, ModelShape
from rf_notebook.testing.tiny import (
    prompt_rows,
    tiny_model,
)
from rf_notebook.training.memory_estimate import (
    Need,
    memory_refusal,
    model_without_weights,
    trainable_bytes,
)
from tests.experiment_world import model
from tests.methods_world import fit


def on_a_path(tmp_path, **training):
    tiny_model().save_pretrained(tmp_path / "described")
    config = model(**training)
    config.model_name = str(tmp_path / "described")
    return config


def with_memory(monkeypatch, free, total):
    from rf_notebook.training import memory

    monkeypatch.setattr(memory, "device_memory", lambda **kwargs: ("a small device", free, total))


def test_a_config_that_cannot_fit_is_refused_before_any_model_is_loaded(new, tmp_path, monkeypatch):
    with_memory(monkeypatch, 10**6, 10**5)
    with pytest.raises(
        ConfigError,
        match=r"config 1: it needs at least .* GiB and a small device has .* GiB; load it quantised",
    ):
        new().run_fit(
            on_a_path(tmp_path), lambda _: pytest.fail("a model was loaded"), prompt_rows(24, 1)
        )
    config = on_a_path(tmp_path)
    config.peft_config = None
    with pytest.raises(ConfigError, match="give a peft_config"):
        new().run_fit(config, lambda _: pytest.fail("a model was loaded"), prompt_rows(24, 1))


@pytest.mark.parametrize(
    ("here", "gpus", "told"),
    [
        (1, 1, "10.0 GiB; load it quantised"),
        (
            2,
            1,
            r"10.0 GiB; spread it over 2 GPUs with RFModelConfig\(num_gpus=2\), or load it quant",
        ),
        (8, 2, r"10.0 GiB; spread it over 4 GPUs with RFModelConfig\(num_gpus=4\), or"),
        (2, 2, "10.0 GiB; it would need 4 such GPUs and 2 are here: load it quantised"),
    ],
)
def test_a_refused_model_is_told_how_many_gpus_would_hold_it(here, gpus, told):
    shape = ModelShape(
        weight_bytes=16 * 2**30,
        element_bytes=2,
        layers=32,
        hidden=4096,
        intermediate=14_336,
        key_value_width=1024,
    )
    load = Load(
        method="SFT",
        has_adapter=True,
        trainable_bytes=2**28,
        optimizer_bytes=2**29,
        examples=4,
        accumulation=1,
        length=1024,
        is_checkpointed=False,
        compute_bytes=2,
    )
    refusal = memory_refusal(Need(shape, load), "2 x A", 10 * 2**30, gpus=gpus, here=here)
    assert re.search(told, refusal), refusal


def test_a_config_that_will_hardly_fit_is_warned_of_with_the_knob_that_makes_it_fit(
    new, tmp_path, monkeypatch
):
    with_memory(monkeypatch, 4 * 10**6, 10**9)
    experiment = new()
    with pytest.warns(
        UserWarning,
        match=r"config 1: it may need about .* \(base .* gradient_checkpointing=True.* would fit",
    ):
        fit(experiment, on_a_path(tmp_path, per_device_train_batch_size=8))
    experiment.wait()
    assert experiment.run(1).state == "completed"
    assert "would fit" in experiment.messages[0]


def test_a_run_out_of_memory_is_retried_with_half_the_batch(new, monkeypatch):
    from rf_notebook.training.methods.sft import RunSFTTrainer

    step = RunSFTTrainer.training_step

    def hungry(self, *given, **named):
        if self.args.per_device_train_batch_size > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return step(self, *given, **named)

    monkeypatch.setattr(RunSFTTrainer, "training_step", hungry)
    experiment = fit(new(), model(per_device_train_batch_size=4))
    experiment.wait()
    failed = experiment.run(1)
    assert failed.state == "failed"
    assert (
        "were estimated; retry it with per_device_train_batch_size=2, gradient_accumulation_steps=2"
        in failed.error
    )
    again = experiment.retry(1).result(timeout=30)
    experiment.wait()
    assert again.state == "completed"
    assert (again.parent, again.config["training_args"]["gradient_accumulation_steps"]) == (1, 2)
    with pytest.raises(IllegalOperation, match="did not run out of memory"):
        experiment.retry(again)


def test_the_estimate_that_a_launching_cell_makes_warns_of_nothing(tmp_path):
    config = on_a_path(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        described = model_without_weights({"model_name": config.model_name})
        trained = trainable_bytes(described, LoraConfig(r=8, target_modules=["q_proj"]))
    assert trained > 0
