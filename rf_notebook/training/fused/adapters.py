"""Where do the LoRA weights of several runs lie while they train together?

Adapters of the same layers form a block: one flat row a member, with room for the largest rank. So
all members' weights of one layer are one tensor for a batched product, and all weights of one
member are one tensor for its optimizer. B lies transposed, so that a smaller rank is the beginning
of its place, as A's is. Each Parameter of each run, its gradient and its moments
are views into the block for as long as it exists. What a smaller rank leaves free is zero, gets a
gradient of zero, and stays zero.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from rf_notebook.training.fused.transfer import numbers

if TYPE_CHECKING:
    from rf_notebook.training.fused.request import Autocast

#: peft's classes of layers that bitsandbytes quantised.
QUANTISED = ("Linear4bit", "Linear8bitLt")
#: Elements to which a weight's place in a row is rounded up: 32 bytes of bfloat16, what matrix
#: units like.
_ALIGNMENT = 16
#: What ranks are rounded up to on a GPU, for the same reason.
_RANK_ALIGNMENT = 8


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


def lora_layers_of(model: Any) -> dict[str, LoraWeights]:
    """Those of a peft model's active adapter, by path below its backbone."""
    causal = model.get_base_model()
    backbone = getattr(causal, causal.base_model_prefix)
    return adapter_weights(backbone, model.active_adapter)


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
        """Equal for adapters that can lie in one block.

        Whoever's moments stay where they are updates each weight by itself, and not every optimizer
        takes weights that lie in larger ones.
        """
        is_flat = self.moments is not None
        layers = (
            (
                path,
                w.down.shape[1],
                w.up.shape[0],
                w.down.dtype,
                None if is_flat else w.down.shape[0],
            )
            for path, w in self.weights.items()
        )
        return (*layers, is_flat)


#: Gives the tensor of an adapter that belongs to one of its parameters: the parameter itself, or a
#: moment of it.
TensorOf = Callable[[Adapter, nn.Parameter], Tensor]


@dataclass(frozen=True, slots=True)
class _Place:
    """Of one weight in a row, as large as the largest member's; the rank comes first."""

    start: int
    shape: tuple[int, int]

    @property
    def stop(self) -> int:
        return self.start + prod(self.shape)

    def of(self, row: Tensor, rank: int) -> Tensor:
        """What of this place in a row [p] belongs to an adapter of a rank, [rank, ...]."""
        return row[self.start : self.stop].view(self.shape)[:rank]


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
        some = next(first.parameters())
        self._adapters = list(adapters)
        self._places: list[_Place] = []
        start = 0
        for path in first.weights:
            for shape in _largest([adapter.weights[path] for adapter in adapters]):
                self._places.append(_Place(start, shape))
                start += -(-prod(shape) // _ALIGNMENT) * _ALIGNMENT
        options = {"dtype": some.dtype, "device": some.device}
        self.weights = torch.zeros(len(adapters), start, **options)  # type: ignore[call-overload]
        """[k, p]: all trained weights."""
        self.gradients = torch.zeros_like(self.weights)
        """[k, p]: summed over the micro-steps so far."""
        self._stacked_gradients = list(_stacked(self.gradients, self._places))
        self.moments: dict[str, Tensor] = {}
        """[k, p] each: AdamW's exp_avg and exp_avg_sq."""
        self._scales: dict[tuple[torch.dtype, tuple[float, ...]], Tensor] = {}
        self._shares: dict[float, float] = {}
        self._forms: dict[torch.dtype, _Form] = {}
        self.version = 0
        """Another one whenever a member's weights are other ones."""
        self._house(self.weights, _weight)
        for adapter, row in zip(self._adapters, self.gradients, strict=True):
            for parameter, view in self._views(adapter, row):
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
            for parameter, own in self._own(adapter, row) if is_mid_step else ():
                parameter.grad = own
            for parameter in () if is_mid_step else adapter.parameters():
                parameter.grad = None

    def changed(self) -> None:
        """A member's weights are other ones."""
        self.version += 1
        for form in self._forms.values():
            form.is_stale = True

    def leaves(self, dtype: torch.dtype) -> dict[str, tuple[Tensor, Tensor]]:
        """By layer: all members' A [k, r, in] and transposed B [k, r, out], in the products' dtype."""
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

    @property
    def paths(self) -> list[str]:
        """The layers, in the order of the places in a row."""
        return list(self._adapters[0].weights)

    @property
    def layout(self) -> Hashable:
        """Equal for blocks whose weights lie alike."""
        return (len(self._adapters), tuple(self._places), tuple(self.paths))

    @property
    def widths(self) -> list[tuple[int, int, int]]:
        """Of each layer: inputs, rank, outputs."""
        pairs = zip(self._places[::2], self._places[1::2], strict=True)
        return [(down.shape[1], *up.shape) for down, up in pairs]

    def stacked(self, flat: Tensor) -> list[Tensor]:
        """What of [k, p] belongs to each layer: A [k, r, in] and transposed B [k, r, out] in turn."""
        return list(_stacked(flat, self._places))

    def only_scale(self, dtype: torch.dtype) -> Tensor | None:
        """The scale of all layers, [k]; None where they differ in it."""
        scales = {id(one): one for one in (self.scale(path, dtype) for path in self.paths)}
        return next(iter(scales.values())) if len(scales) == 1 else None

    def scale(self, path: str, dtype: torch.dtype) -> Tensor:
        """What each member's update of a layer is multiplied by, [k]; one tensor for equal ones."""
        factors = tuple(adapter.weights[path].scaling for adapter in self._adapters)
        key = (dtype, factors)
        if key not in self._scales:
            self._scales[key] = numbers(factors, dtype, self.weights.device)
        return self._scales[key]

    def share(self, path: str, row: int) -> float:
        """The factor by which a member's dropout scales the inputs it keeps, as torch rounds it."""
        dropped = self._adapters[row].weights[path].dropout
        if dropped not in self._shares:
            is_rounded = self.weights.device.type == "cpu"  # a GPU's kernel multiplies in float32
            dtype = self.weights.dtype if is_rounded else torch.float32
            self._shares[dropped] = float(torch.tensor(1.0 / (1.0 - dropped), dtype=dtype))
        return self._shares[dropped]

    def input_dtype(self, path: str, autocast: Autocast) -> torch.dtype | None:
        """The type in which the inputs of a layer meet dropout.

        None for the type that they have.
        """
        return self._adapters[0].weights[path].input_dtype(autocast)

    def _house(self, flat: Tensor, tensor_of: TensorOf) -> None:
        """Copy a tensor of each parameter to its place, and let it be a view of that place."""
        for adapter, row in zip(self._adapters, flat, strict=True):
            pairs = [(tensor_of(adapter, p), view) for p, view in self._views(adapter, row)]
            torch._foreach_copy_([view for _, view in pairs], [one.data for one, _ in pairs])
            for tensor, view in pairs:
                tensor.data = view

    def _move_out(self, flat: Tensor, tensor_of: TensorOf) -> None:
        """The inverse of ``_house``: the tensors lie in memory of the adapter's own."""
        for adapter, row in zip(self._adapters, flat, strict=True):
            for parameter, own in self._own(adapter, row):
                tensor_of(adapter, parameter).data = own

    def _views(self, adapter: Adapter, row: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """A member's parameters, and the place of each in a row."""
        places = iter(self._places)
        for pair in adapter.weights.values():
            yield pair.down, next(places).of(row, pair.down.shape[0])
            yield pair.up, next(places).of(row, pair.up.shape[1]).mT

    def _own(self, adapter: Adapter, row: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """A member's parameters, and for each a copy of what is at its place in a row."""
        parameters = list(adapter.parameters())
        copies = row.new_empty(sum(parameter.numel() for parameter in parameters))
        own = copies.split([parameter.numel() for parameter in parameters])
        views = [view for _, view in self._views(adapter, row)]
        shaped = [one.view(view.shape) for one, view in zip(own, views, strict=True)]
        torch._foreach_copy_(shaped, views)
        yield from zip(parameters, shaped, strict=True)


@dataclass(slots=True)
class Stacked:
    """Blocks of adapters, and where each member's lies."""

    blocks: list[AdapterBlock]
    place: dict[Any, tuple[int, int]]
    """By member: block and row in it."""


def _weight(_adapter: Adapter, parameter: nn.Parameter) -> Tensor:
    return parameter


def _moment(name: str) -> TensorOf:
    def moment(adapter: Adapter, parameter: nn.Parameter) -> Tensor:
        assert adapter.moments is not None
        return adapter.moments(parameter)[name]

    return moment


def _largest(weights: Sequence[LoraWeights]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The shapes of a place for A and of one for transposed B that hold those of all members."""
    rank = max(one.down.shape[0] for one in weights)
    if weights[0].down.is_cuda:
        rank = -(-rank // _RANK_ALIGNMENT) * _RANK_ALIGNMENT
    return (rank, weights[0].down.shape[1]), (rank, weights[0].up.shape[0])


def _stacked(flat: Tensor, places: Sequence[_Place]) -> Iterator[Tensor]:
    """[k, ...] for each weight of a row."""
    for place in places:
        yield flat[:, place.start : place.stop].view(-1, *place.shape)
