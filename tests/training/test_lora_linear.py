"""LoRA layers that do only what their results need: the bits of peft's own."""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model

from rf_notebook.testing.tiny import create_tiny
from rf_notebook.training.lora_linear import shorten

IDS = torch.arange(12).reshape(3, 4)


def adapted(dtype=torch.bfloat16, **lora):
    base, _ = create_tiny({"model_name": "tiny"})
    given = {"r": 4, "target_modules": "all-linear", "lora_dropout": 0.0, **lora}
    model = get_peft_model(base.to(dtype), LoraConfig(**given))
    torch.manual_seed(1)
    for weight in model.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.3)
    return model.train()


def bits(model, *, dtype=torch.bfloat16):
    """Loss and gradients of a step."""
    model.zero_grad()
    torch.manual_seed(2)
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    return [loss.detach(), *(one.grad for one in model.parameters() if one.grad is not None)]


def assert_same(found, expected):
    assert len(found) == len(expected) > 1
    assert all(map(torch.equal, found, expected))


def linears(model):
    return [one for one in model.modules() if hasattr(one, "base_layer")]


@pytest.mark.parametrize(
    ("dropout", "dtype"), itertools.product((0.0, 0.3), (torch.bfloat16, torch.float32)), ids=str
)
def test_a_step_has_the_bits_of_pefts_own(dropout, dtype):
    model = adapted(dtype, lora_dropout=dropout)
    expected = bits(model)
    undo = shorten(model)
    assert len(undo) == len(linears(model)) > 0
    assert_same(bits(model), expected)
    model.eval()
    there = bits(model)
    for one in undo:
        one()
    assert_same(there, bits(model))
    assert not any("forward" in vars(one) for one in linears(model)), "they are peft's again"


def test_it_does_less(monkeypatch):
    casts, own = [], torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda x, *args, **kwargs: casts.append(args) or own(x, *args, **kwargs)
    )
    model = adapted()
    bits(model)
    before = len(casts)
    shorten(model)
    casts.clear()
    bits(model)
    assert before - len(casts) >= 2 * len(linears(model)), "the input's, and that of the result"


def test_without_autocast_it_is_pefts_own():
    model = adapted()
    expected = bits(model, dtype=None)
    shorten(model)
    assert_same(bits(model, dtype=None), expected)


def loss_of(model):
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        return model(input_ids=IDS, labels=IDS).loss


def test_what_is_asked_of_a_layer_is_heard():
    model = adapted()
    trained = loss_of(model)
    with model.disable_adapter():
        base = loss_of(model)
    shorten(model)
    with model.disable_adapter():
        assert torch.equal(loss_of(model), base)
    assert not torch.equal(trained, base)
    for layer in linears(model):
        layer.scaling["default"] *= 2
    doubled = loss_of(model)
    assert not torch.equal(doubled, trained), "the scaling is read each time"
    model.add_adapter("other", LoraConfig(r=2, target_modules="all-linear"))
    model.set_adapter("other")
    assert torch.equal(loss_of(model), base), "a fresh adapter changes nothing"
    model.set_adapter("default")
    assert torch.equal(loss_of(model), doubled)
    model.merge_adapter()
    merged = loss_of(model)
    for layer in linears(model):
        del layer.forward
    assert torch.equal(loss_of(model), merged)


@pytest.mark.parametrize("special", [{"use_dora": True}, {"lora_bias": True}], ids=str)
def test_special_layers_are_left_alone_or_equal(special):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # layers without a bias of their own cannot be merged
        model = adapted(**special)
    expected = bits(model)
    undo = shorten(model)
    assert bool(undo) == ("use_dora" not in special)
    assert_same(bits(model), expected)


@pytest.mark.parametrize("part", ["base_layer", "lora_A", "lora_B", "lora_dropout"])
def test_a_layer_with_somebodys_hook_is_left_alone(part):
    model = adapted(lora_dropout=0.1)
    layer = linears(model)[0]
    module = getattr(layer, part)
    module = module if part == "base_layer" else module["default"]
    calls = []
    module.register_forward_hook(lambda *_: calls.append(part))
    assert len(shorten(model)) == len(linears(model)) - 1
    bits(model)
    assert calls
