"""A base model is loaded once and no run can reach into another's."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from rf_notebook.core.errors import ConfigError
from rf_notebook.testing.tiny import create_tiny, tiny_model, tiny_tokenizer
from rf_notebook.training.base_models import BaseModels, changes_base_weights, tree_clone, tree_copy

CONFIG = {
    "model_name": "tiny",
    "model_type": "causal_lm",
    "model_kwargs": {},
    "tokenizer": None,
    "tokenizer_kwargs": {},
}


def test_a_clone_shares_storage_and_nothing_else():
    base = tiny_model()
    clone = tree_clone(base)
    for (name, mine), (_, theirs) in zip(
        base.named_parameters(), clone.named_parameters(), strict=True
    ):
        assert mine.data_ptr() == theirs.data_ptr(), name
        assert mine is not theirs
    clone.requires_grad_(False)
    clone.forward = None
    assert all(p.requires_grad for p in base.parameters())
    assert callable(base.forward)


def test_tied_weights_stay_tied():
    base = tiny_model()
    base.lm_head.weight = base.model.embed_tokens.weight
    clone = tree_clone(base)
    assert clone.lm_head.weight is clone.model.embed_tokens.weight


@pytest.mark.parametrize("init", ["pissa", "olora", "orthogonal", True])
def test_initialisations_that_change_the_base_change_one_runs_only(init):
    base, pristine = tiny_model(), tiny_model()
    config = LoraConfig(
        task_type="CAUSAL_LM", target_modules=["q_proj"], r=4, init_lora_weights=init
    )
    tree, share_unchanged = (
        tree_copy(base) if changes_base_weights(init) else (tree_clone(base), lambda: None)
    )
    adapted = get_peft_model(tree, config)
    share_unchanged()
    shared = {p.data_ptr() for p in base.parameters()}
    own = [
        n for n, p in adapted.named_parameters() if "lora_" not in n and p.data_ptr() not in shared
    ]
    assert all("q_proj" in name for name in own), (
        "only what the initialisation changed is the run's own"
    )
    assert bool(own) == (init in ("pissa", "olora"))
    for (name, found), (_, expected) in zip(
        base.named_parameters(), pristine.named_parameters(), strict=True
    ):
        assert torch.equal(found, expected), name


def test_each_distinct_model_is_loaded_once():
    asked = []

    def create(config):
        asked.append(config["model_name"])
        return create_tiny({})

    models = BaseModels(create)
    first = models.get(CONFIG, use_cpu=True)
    assert models.get(dict(CONFIG), use_cpu=True) is first
    models.get({**CONFIG, "model_name": "other"}, use_cpu=True)
    assert asked == ["tiny", "other"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (None, r"must return a tuple \(model, tokenizer\)"),
        ((tiny_model(),), "must return a tuple"),
        ((tiny_model(), None), "no tokenizer"),
        (("model", tiny_tokenizer()), "returned a str as model"),
    ],
)
def test_a_loader_that_gives_something_else_is_told_so(given, sentence):
    with pytest.raises(ConfigError, match=sentence):
        BaseModels(lambda config: given).get(CONFIG, use_cpu=True)


def test_a_model_with_an_adapter_is_no_base():
    adapted = get_peft_model(
        tiny_model(), LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
    )
    with pytest.raises(ConfigError, match="without an adapter"):
        BaseModels(lambda config: (adapted, tiny_tokenizer())).get(CONFIG, use_cpu=True)


def test_device_map_auto_becomes_a_plain_module(tmp_path):
    from transformers import AutoModelForCausalLM

    tiny_model().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    config = {**CONFIG, "model_name": str(tmp_path), "model_kwargs": {"device_map": "auto"}}
    base = BaseModels(None).get(config, use_cpu=True)
    assert not hasattr(base.model, "hf_device_map")
    assert not any(hasattr(module, "_hf_hook") for module in base.model.modules())
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert all(
        torch.equal(a, b) for a, b in zip(base.model.parameters(), plain.parameters(), strict=True)
    )


def test_runs_with_equal_settings_share_a_tokenizer_copy():
    base = BaseModels(create_tiny).get(CONFIG, use_cpu=True)
    assert base.tokenizer_for({"eos_token": None}) is base.tokenizer_for({"eos_token": None})
    assert base.tokenizer_for({"eos_token": "<eos>"}) is not base.tokenizer_for({"eos_token": None})
    assert base.tokenizer_for({"eos_token": None}) is not base.tokenizer
