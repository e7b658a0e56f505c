"""How does a LoRA layer give the same bits with less work?

peft's forward of a layer is general: it looks for variants, several adapters, merged weights. Where
weights are float32 and autocast computes in bfloat16, it casts a layer's input to float32, and
autocast casts it back, which changes no bit. A model of 32 layers has 224 such forwards, and for most
batches the GPU waits for them. Here a plain layer does only what its result needs, in peft's order, so
that gradients are summed in the same order, too. Whatever is special about a layer, or is asked of it,
is peft's own.

Source: peft 0.21, ``peft.tuners.lora.layer.Linear.forward``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn

from rf_notebook.training.fused.patches import patch

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def shorten(model: nn.Module) -> list[Callable[[], None]]:
    """Let plain LoRA layers do only what their results need.

    Args:
        model: With its adapter.

    Returns:
        What gives each layer its own forward back.
    """
    return [patch(layer, "forward", _forward_of(layer)) for layer in _plain_layers(model)]


def _plain_layers(model: nn.Module) -> Iterator[Linear]:
    for layer in model.modules():
        if type(layer) is Linear and "forward" not in vars(layer) and _is_plain(layer):
            yield layer


def _is_plain(layer: Linear) -> bool:
    """Whether peft's forward comes down to two products beside the layer's own."""
    active = layer.active_adapters
    if len(active) != 1 or active[0] not in layer.lora_A or active[0] in layer.lora_variant:
        return False
    name = active[0]
    products = (layer.base_layer, layer.lora_A[name], layer.lora_B[name])
    return (
        getattr(layer, "cast_input_dtype_enabled", True)
        and all(type(one) is nn.Linear and _is_untouched(one) for one in products)
        and type(layer.lora_dropout[name]) in (nn.Identity, nn.Dropout)
        and _is_untouched(layer.lora_dropout[name])
    )


def _is_untouched(module: nn.Module) -> bool:
    return "forward" not in vars(module) and not any(getattr(module, name) for name in _HOOKS)


def _forward_of(layer: Linear) -> Callable[..., Any]:
    own = layer.forward
    name = layer.active_adapters[0]
    base, down, up = layer.base_layer, layer.lora_A[name], layer.lora_B[name]
    dropout, scaling = layer.lora_dropout[name], layer.scaling
    drops = isinstance(dropout, nn.Dropout) and dropout.p > 0
    linear = nn.functional.linear

    @functools.wraps(own)
    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args or kwargs or layer.disable_adapters or layer.merged:
            return own(x, *args, **kwargs)
        kind = x.device.type
        if not (
            torch.is_autocast_enabled(kind)
            and x.dtype is torch.get_autocast_dtype(kind)
            and layer.active_adapters == [name]
        ):
            return own(x)
        result = linear(x, base.weight, base.bias)
        if drops and dropout.training:
            x = nn.functional.dropout(x.to(down.weight.dtype), dropout.p, training=True)
        low = linear(x, down.weight, down.bias)
        added: Tensor = result + linear(low, up.weight, up.bias) * scaling[name]
        return added

    return forward
