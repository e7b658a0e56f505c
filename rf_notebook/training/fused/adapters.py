"""Where do the LoRA weights of several runs lie while they train together?

Adapters of equal shape form a block: one flat row a member. So all members' weights of one layer
are one tensor for a batched product, and all weights of one member are one tensor for its
optimizer. Each Parameter of each run, its gradient and its moments are views into the block for as
long as it exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

if TYPE_CHECKING:
    from rf_notebook.training.fused.request import Autocast

#: peft's classes of layers that bitsandbytes quantised.
QUANTISED = ("Linear4bit", "Linear8bitLt")
#: Elements to which a weight's place in a row is rounded up: 32 bytes of bfloat16, what matrix
#: units like.
_ALIGNMENT = 16


@dataclass(frozen=True, slots=True)
class LoraWeights:
    """What one run adds to one linear layer."""

    layer: LoraLayer
    adapter: str

    @property
    def down(self) -> nn.Parameter:
        """[r, in], LoRA's A."""
        return self.layer.lora_A[self.adapter].weight

    @property
    def up(self) -> nn.Parameter:
        """[out, r], LoRA's B."""
        return self.layer.lora_B[self.adapter].weight

    @property
    def scaling(self) -> float:
        """By which the update is multiplied."""
        return float(self.layer.scaling[self.adapter])

    @property
    def dropout(self) -> float:
        """The share of inputs that training leaves out."""
        module = self.layer.lora_dropout[self.adapter]
        return float(module.p) if isinstance(module, nn.Dropout) else 0.0

    def input_dtype(self, autocast: Autocast) -> torch.dtype | None:
        """The type that peft gives to inputs before dropout; None when it lets them be."""
        is_quantised = type(self.layer).__name__ in QUANTISED
        lets_be = is_quantised and autocast.is_enabled and autocast.device_type == "cuda"
        return None if lets_be else self.down.dtype


def adapter_weights(backbone: nn.Module, adapter: str) -> dict[str, LoraWeights]:
    """The LoRA layers below a backbone, by path."""
    return {
        path: LoraWeights(module, adapter)
        for path, module in backbone.named_modules()
        if isinstance(module, LoraLayer) and adapter in module.lora_A
    }


@dataclass(slots=True)
class Adapter:
    """The trained weights of one run, and its optimizer's moments of them."""

    weights: dict[str, LoraWeights]
    """By the path of the layer inside the backbone."""
    moments: Callable[[nn.Parameter], dict[str, Tensor]] | None
    """The optimizer's state of a parameter, made if it is not there; None when its moments stay
    where they are."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """In the order in which they lie in a block's row."""
        for pair in self.weights.values():
            yield pair.down
            yield pair.up

    def shape(self) -> tuple[Any, ...]:
        """Equal for adapters that can lie in one block."""
        layers = (
            (path, tuple(w.down.shape), tuple(w.up.shape), w.down.dtype)
            for path, w in self.weights.items()
        )
        return (*layers, self.moments is not None)


#: Gives the tensor of an adapter that belongs to one of its parameters: the parameter itself, or a
#: moment of it.
TensorOf = Callable[[Adapter, nn.Parameter], Tensor]


@dataclass(frozen=True, slots=True)
class _Place:
    start: int
    shape: tuple[int, ...]

    @property
    def stop(self) -> int:
        return self.start + prod(self.shape)


class _Form:
    """A block's weights in the type in which products are computed."""

    def __init__(
        self, weights: Tensor, dtype: torch.dtype, places: Sequence[_Place], paths: Sequence[str]
    ) -> None:
        self._weights = weights
        self._low = weights if dtype == weights.dtype else torch.empty_like(weights, dtype=dtype)
        self.is_stale = True
        made = [weight.detach().requires_grad_() for weight in _stacked(self._low, places)]
        self.leaves = dict(zip(paths, zip(made[::2], made[1::2], strict=True), strict=True))

    def refresh(self) -> None:
        """Follow the weights, if they changed."""
        if self.is_stale and self._low is not self._weights:
            self._low.copy_(self._weights)
        self.is_stale = False


class AdapterBlock:
    """Adapters of equal shape, one row each; ``k`` members."""

    def __init__(self, adapters: Sequence[Adapter]) -> None:
        """Take the adapters in; ``leave`` gives them back."""
        first = adapters[0]
        parameters = list(first.parameters())
        self._adapters = list(adapters)
        self._places: list[_Place] = []
        start = 0
        for parameter in parameters:
            self._places.append(_Place(start, tuple(parameter.shape)))
            start += -(-parameter.numel() // _ALIGNMENT) * _ALIGNMENT
        options = {"dtype": parameters[0].dtype, "device": parameters[0].device}
        self.weights = torch.zeros(len(adapters), start, **options)  # type: ignore[call-overload]
        """[k, p]: all trained weights."""
        self.gradients = torch.zeros_like(self.weights)
        """[k, p]: summed over the micro-steps so far."""
        self._stacked_gradients = list(_stacked(self.gradients, self._places))
        self.moments: dict[str, Tensor] = {}
        """[k, p] each: AdamW's exp_avg and exp_avg_sq."""
        self._scales: dict[tuple[str, torch.dtype], Tensor] = {}
        self._forms: dict[torch.dtype, _Form] = {}
        self._house(self.weights, _weight)
        for adapter, row in zip(self._adapters, self.gradients, strict=True):
            for parameter, view in zip(adapter.parameters(), self._views(row), strict=True):
                if parameter.grad is not None:
                    view.copy_(parameter.grad)
                parameter.grad = view
        if first.moments is not None:
            for name in ("exp_avg", "exp_avg_sq"):
                self.moments[name] = torch.zeros_like(self.weights)
                self._house(self.moments[name], _moment(name))

    def leave(self, *, is_mid_step: bool) -> None:
        """Give every adapter tensors of its own again.

        The gradients, too, if members are inside a step.
        """
        self._forms.clear()
        self._move_out(self.weights, _weight)
        for name, flat in self.moments.items():
            self._move_out(flat, _moment(name))
        for adapter, row in zip(self._adapters, self.gradients, strict=True):
            own = row.clone() if is_mid_step else row
            for parameter, view in zip(adapter.parameters(), self._views(own), strict=True):
                parameter.grad = view if is_mid_step else None

    def changed(self) -> None:
        """A member's weights are other ones."""
        for form in self._forms.values():
            form.is_stale = True

    def leaves(self, dtype: torch.dtype) -> dict[str, tuple[Tensor, Tensor]]:
        """By layer: all members' A [k, r, in] and B [k, out, r], in the dtype of the products."""
        form = self._forms.get(dtype)
        if form is None:
            form = self._forms[dtype] = _Form(
                self.weights, dtype, self._places, list(self._adapters[0].weights)
            )
        form.refresh()
        return form.leaves

    def add_gradients(self, given: Sequence[Tensor | None]) -> None:
        """What a joint backward gave, in the order of the leaves."""
        pairs = [
            (own, new)
            for own, new in zip(self._stacked_gradients, given, strict=True)
            if new is not None
        ]
        torch._foreach_add_([own for own, _ in pairs], [new for _, new in pairs])

    def scale(self, path: str, dtype: torch.dtype) -> Tensor:
        """What each member's update of a layer is multiplied by, [k, 1, 1]."""
        key = (path, dtype)
        if key not in self._scales:
            factors = [adapter.weights[path].scaling for adapter in self._adapters]
            self._scales[key] = torch.tensor(factors, dtype=dtype, device=self.weights.device).view(
                -1, 1, 1
            )
        return self._scales[key]

    def shares(self, path: str) -> list[float]:
        """The factor by which each member's dropout scales the inputs it keeps, as torch rounds it."""
        shares = [1.0 / (1.0 - adapter.weights[path].dropout) for adapter in self._adapters]
        is_rounded = self.weights.device.type == "cpu"  # a GPU's kernel multiplies in float32
        dtype = self.weights.dtype if is_rounded else torch.float32
        return torch.tensor(shares, dtype=dtype).tolist()

    def input_dtype(self, path: str, autocast: Autocast) -> torch.dtype | None:
        """The type in which the inputs of a layer meet dropout.

        None for the type that they have.
        """
        return self._adapters[0].weights[path].input_dtype(autocast)

    def _house(self, flat: Tensor, tensor_of: TensorOf) -> None:
        """Copy a tensor of each parameter to its place, and let it be a view of that place."""
        for adapter, row in zip(self._adapters, flat, strict=True):
            tensors = [tensor_of(adapter, parameter) for parameter in adapter.parameters()]
            views = list(self._views(row))
            torch._foreach_copy_(views, [tensor.data for tensor in tensors])
            for tensor, view in zip(tensors, views, strict=True):
                tensor.data = view

    def _move_out(self, flat: Tensor, tensor_of: TensorOf) -> None:
        """The inverse of ``_house``: the tensors are views of a row of the adapter's own."""
        for adapter, row in zip(self._adapters, flat, strict=True):
            for parameter, view in zip(adapter.parameters(), self._views(row.clone()), strict=True):
                tensor_of(adapter, parameter).data = view

    def _views(self, row: Tensor) -> Iterator[Tensor]:
        for place in self._places:
            yield row[place.start : place.stop].view(place.shape)


def _weight(_adapter: Adapter, parameter: nn.Parameter) -> Tensor:
    return parameter


def _moment(name: str) -> TensorOf:
    def moment(adapter: Adapter, parameter: nn.Parameter) -> Tensor:
        assert adapter.moments is not None
        return adapter.moments(parameter)[name]

    return moment


def _stacked(flat: Tensor, places: Sequence[_Place]) -> Iterator[Tensor]:
    """[k, ...] for each weight of a row."""
    for place in places:
        yield flat[:, place.start : place.stop].view(-1, *place.shape)
