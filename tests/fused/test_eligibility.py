"""Why a config cannot train in joint steps is told before its trainer is built."""

import pytest

from rf_notebook.core.run import RunConfig
from rf_notebook.training.fused.eligibility import fusibility_of


def config(peft=None, training=None, **more):
    return RunConfig(
        method=more.pop("method", "SFT"),
        model={"model_name": "tiny", **more},
        peft={"r": 8, "peft_type": "LORA"} if peft is None else peft or None,
        training=training or {},
    )


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (config(peft={}), "it trains all weights"),
        (config(peft={"peft_type": "IA3"}), "its adapter is IA3, and joint steps know LoRA"),
        (config(peft={"r": 8, "use_dora": True}), "DoRA scales the base weights by its own"),
        (
            config(peft={"r": 8, "init_lora_weights": "olora"}),
            "init_lora_weights='olora' gives it base weights of its own",
        ),
        (config(peft={"r": 8, "bias": "lora_only"}), "bias='lora_only' trains biases of the base"),
        (
            config(peft={"r": 8, "modules_to_save": ["lm_head"]}),
            "modules_to_save trains copies of whole modules",
        ),
    ],
)
def test_why_not(made, reason):
    found = fusibility_of(made)
    assert (found.key, found.reason) == (None, reason)


def test_runs_of_one_model_and_one_setting_of_the_process_s_switches_have_one_key():
    usual = fusibility_of(config())
    assert usual.key is not None
    assert usual.reason == ""
    assert (
        fusibility_of(
            config(peft={"r": 64, "lora_dropout": 0.1, "init_lora_weights": "gaussian"})
        ).key
        == usual.key
    )
    assert (
        fusibility_of(config(method="DPO", training={"learning_rate": 1.0, "bf16": True})).key
        == usual.key
    )
    assert fusibility_of(config(model_kwargs={"dtype": "float16"})).key != usual.key
    assert fusibility_of(config(training={"tf32": True})).key != usual.key
    assert fusibility_of(config(training={"use_cpu": True})).key != usual.key
    assert fusibility_of(config(training={"packing": True})).key == usual.key
