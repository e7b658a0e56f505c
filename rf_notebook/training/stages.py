"""How does a model lie on several devices?

As stages, one after another: whole layers, as many bytes on each device. A hook of each layer moves
what goes from one stage to the next.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import dispatch_model
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_submodules
from accelerate.utils import find_device, recursively_apply, send_to_device
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary

from rf_notebook.core.errors import ConfigError
from rf_notebook.planning.memory_plan import gibibytes
from rf_notebook.training.device import name_of
from rf_notebook.training.memory import bytes_of

#: What accelerate puts on a model to warn of moving it; they move this very tree, also when a clone
#: is meant.
_WRAPPERS = ("to", "cuda", "npu", "xpu")
#: Of a device map: what is not on a GPU.
_ELSEWHERE = {"cpu", "disk", "meta"}


def stage_map(model: nn.Module, devices: Sequence[torch.device]) -> dict[str, torch.device]:
    """Where each part of a model lies, by its path: a ``device_map``.

    Args:
        model: Its weights may be on the meta device.
        devices: Of the stages, in their order.

    Raises:
        ConfigError: for a model that does not say which modules are its layers.
    """
    layers = tuple(getattr(model, "_no_split_modules", None) or ())
    if not layers:
        raise ConfigError(
            f"{type(model).__name__} does not say which of its modules stay whole, so it cannot be spread over "
            f"{len(devices)} devices; train it on one."
        )
    parts = dict(_parts(model, layers))
    first: dict[int, str] = {}
    """The part that each weight is first in; tied ones are in several."""
    for path, module in parts.items():
        for weight in module.parameters():
            first.setdefault(id(weight), path)
    sizes = {
        path: bytes_of(one for one in module.parameters() if first[id(one)] == path)
        for path, module in parts.items()
    }
    total, before = max(1, sum(sizes.values())), 0
    places: dict[str, torch.device] = {}
    for path, module in parts.items():
        owners = [first[id(one)] for one in module.parameters()]
        if sizes[path]:
            stage = (before + sizes[path] // 2) * len(devices) // total
            places[path] = devices[min(stage, len(devices) - 1)]
        else:  # tied to a part before it, or without weights: what all layers are given, say
            places[path] = places[owners[0]] if owners else devices[0]
        before += sizes[path]
    return places


def spread(model: nn.Module, devices: Sequence[torch.device]) -> nn.Module:
    """The model as stages on these devices; as it lies, where a user's loader has spread it already.

    Raises:
        ConfigError: when it does not fit there, or cannot be spread.
    """
    there = _places(getattr(model, "hf_device_map", None) or {})
    is_on_gpus = devices[0].type == "cuda"
    if is_on_gpus and there & _ELSEWHERE and len(there) > 1:
        raise ConfigError(
            f"the base model was spread over {', '.join(sorted(there))}, so it does not fit on {name_of(devices)}. "
            "Use a smaller or quantised model, or more GPUs a worker."
        )
    if not (is_on_gpus and len(there) > 1):
        remove_hook_from_submodules(model)
        try:
            dispatch_model(
                model,
                stage_map(model, devices),
                main_device=devices[0],
                skip_keys=stays_where_it_is(model),
                force_hooks=True,
            )
        except torch.cuda.OutOfMemoryError as error:
            needed = bytes_of((*model.parameters(), *model.buffers()))
            raise does_not_fit_on(devices, needed) from error
    for name in _WRAPPERS:
        model.__dict__.pop(name, None)
    known = defaultdict[torch.device, WeakTensorKeyDictionary](WeakTensorKeyDictionary)
    places, parts = getattr(model, "hf_device_map", {}), dict(model.named_modules())
    for path in sorted(places.keys() & parts.keys(), key=len):  # a user's map may be nested
        device = torch.device(places[path])
        remove_hook_from_submodules(parts[path])  # what is in a layer finds everything here
        add_hook_to_module(parts[path], Arrival(device, known[device], stays_where_it_is(model)))
    return model


def stays_where_it_is(model: nn.Module) -> list[str]:
    """Arguments and answers that are not moved: a cache, whose layers lie with the model's."""
    named = getattr(model, "_skip_keys_device_placement", None) or []
    return [named] if isinstance(named, str) else list(named)


def answer_where_asked(model: Any) -> None:
    """Let what a model on several devices computes lie where its inputs do.

    accelerate's hook does so, but trl puts the forward with its fused head over the hook: the
    log-probabilities stay on the last device, and dividing them by a count on the first one fails.

    Args:
        model: Of a trainer that is built; its module tree is the trainer's own.
    """
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    causal.forward = Answering(_back_on_its_gpu(causal.forward), stays_where_it_is(causal))


def _back_on_its_gpu(own: Callable[..., Any]) -> Callable[..., Any]:
    """A forward after which the thread's current GPU is the one that it was, errors included.

    Inside it is the one of the stage, see ``Arrival``.
    """

    @functools.wraps(own)
    def forward(*args: Any, **kwargs: Any) -> Any:
        is_on_gpus = torch.cuda.is_initialized()
        with torch.cuda.device(torch.cuda.current_device()) if is_on_gpus else nullcontext():
            return own(*args, **kwargs)

    return forward


class Answering:
    """A forward whose answer goes to the device of its inputs."""

    def __init__(self, own: Callable[..., Any], stays: Sequence[str]) -> None:
        """Nothing is computed yet.

        Args:
            own: The forward.
            stays: See ``stays_where_it_is``.
        """
        self.own, self.stays = own, list(stays)
        functools.update_wrapper(self, own)  # ``generate`` looks at its parameters

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the forward gives."""
        answer = self.own(*args, **kwargs)
        return send_to_device(answer, find_device((args, kwargs)), skip_keys=self.stays)


class Arrival(ModelHook):
    """Moves what a layer is given to its stage; what all layers are given, masks say, once.

    From then on the stage's GPU is the thread's current one, until another stage begins. torch's own
    operations go to the GPU of their tensors, but a Triton kernel goes to the current GPU's stream:
    trl's fused head on the last stage read what the first GPU had not waited for.

    accelerate's own hook copies such tensors for each layer anew, and each copy lets the device that
    it comes from wait for the one that it goes to.
    """

    def __init__(
        self, device: torch.device, moved: WeakTensorKeyDictionary, stays: Sequence[str]
    ) -> None:
        """Nothing is moved yet.

        Args:
            device: Of the stage.
            moved: Of the stage: of tensors elsewhere their versions and copies here.
            stays: See ``stays_where_it_is``.
        """
        self.device = device
        self._moved = moved
        self._stays = frozenset(stays)

    def pre_forward(self, _module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """What the part is given, on its device, which is the current one."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        there = {
            name: value if name in self._stays else recursively_apply(self._move, value)
            for name, value in kwargs.items()
        }
        return recursively_apply(self._move, args), there

    def _move(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device == self.device or tensor.requires_grad or tensor.is_inference():
            return tensor.to(self.device)
        version, copy = self._moved.get(tensor, (-1, tensor))
        if version != tensor._version:  # noqa: SLF001 - torch names it so
            copy = tensor.to(self.device)
            self._moved[tensor] = (tensor._version, copy)  # noqa: SLF001
        return copy


def does_not_fit_on(devices: Sequence[torch.device], needed: int) -> ConfigError:
    """The sentence for a model that is larger than the devices of a worker."""
    total = sum(torch.cuda.mem_get_info(device)[1] for device in devices)
    return ConfigError(
        f"the base model of {gibibytes(needed)} GiB does not fit on {name_of(devices)} with {gibibytes(total)} GiB. "
        "Use a smaller or quantised model, or more GPUs a worker."
    )


def _places(device_map: Mapping[str, Any]) -> set[str]:
    return {str(place) for place in device_map.values()}


def _parts(
    model: nn.Module, layers: tuple[str, ...], path: str = ""
) -> Iterator[tuple[str, nn.Module]]:
    """What is not divided: layers, and what holds none, in their order."""
    for name, child in model.named_children():
        below = f"{path}.{name}" if path else name
        is_whole = type(child).__name__ in layers
        if is_whole or not any(type(one).__name__ in layers for one in child.modules()):
            yield below, child
        else:
            yield from _parts(child, layers, below)
