"""Which weights are on the device, and how do they leave and return under a live trainer?

Only ``.data`` of the tensors changes, so optimizers, hooks and wrappers that hold the tensors stay
valid. Tensors over one storage (a base model and all trees cloned from it, tied weights) move
together and share it again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rf_notebook.planning.residency import Resident, to_move_out
from rf_notebook.training import memory
from rf_notebook.training.device import is_spread, run_device

if TYPE_CHECKING:
    from rf_notebook.training.methods.trainer_like import TrainerLike


def tensors_of(module: Any) -> Iterator[Tensor]:
    """Parameters, buffers, and what quantised parameters carry besides their data."""
    for tensor in (*module.parameters(), *module.buffers()):
        yield tensor
        yield from quantisation_tensors(tensor)


def quantisation_tensors(parameter: Any) -> Iterator[Tensor]:
    """The scales and code books of a bitsandbytes parameter."""
    state = getattr(parameter, "quant_state", None)
    while state is not None:
        for name in ("absmax", "code", "offset"):
            value = getattr(state, name, None)
            if torch.is_tensor(value):
                yield value
        state = getattr(state, "state2", None)
    for name in ("CB", "SCB"):
        value = getattr(parameter, name, None)
        if torch.is_tensor(value):
            yield value


def storage_of(tensor: Tensor) -> int:
    """Equal for tensors over one storage."""
    return tensor.untyped_storage().data_ptr()


def trainer_tensors(trainer: TrainerLike) -> Iterator[Tensor]:
    """All that a parked trainer holds.

    Its model, its reference, models that give rewards, its optimizer's state.
    """
    yield from tensors_of(trainer.model)
    others = [getattr(trainer, "ref_model", None), *getattr(trainer, "reward_funcs", ())]
    for other in others:
        if isinstance(other, torch.nn.Module):
            yield from tensors_of(other)
    optimizer = getattr(trainer, "optimizer", None)
    for state in optimizer.state.values() if optimizer is not None else ():
        yield from (value for value in state.values() if torch.is_tensor(value))


class Mover:
    """Moves a set of tensors away and back.

    Keeps the memory where they were away for the next time.
    """

    def __init__(self) -> None:
        self._away: list[list[Tensor]] = []
        """What was moved, those over one storage together."""
        self._spare: dict[int, list[Tensor]] = {}

    @property
    def is_away(self) -> bool:
        """Whether the tensors are where ``out`` put them."""
        return bool(self._away)

    def out(self, tensors: Iterable[Tensor], device: torch.device, away: torch.device) -> int:
        """Move those of the tensors that are on ``device``. Returns their bytes."""
        groups: dict[int, dict[int, Tensor]] = {}
        for tensor in tensors:
            if tensor.device == device and tensor.untyped_storage().nbytes():
                groups.setdefault(storage_of(tensor), {})[id(tensor)] = tensor
        self._away = [list(group.values()) for group in groups.values()]
        return sum(_rehouse(group, self._room(group, away))[0] for group in self._away)

    def back(self, device: torch.device) -> int:
        """Move what ``out`` moved to ``device``. Returns the bytes."""
        total = 0
        for group in self._away:
            target = torch.empty(
                group[0].untyped_storage().nbytes(), dtype=torch.uint8, device=device
            )
            size, left = _rehouse(group, target)
            self._spare.setdefault(size, []).append(left)
            total += size
        self._away = []
        return total

    def _room(self, group: list[Tensor], away: torch.device) -> Tensor:
        """Page-locked where there is a GPU, which makes copies several times faster."""
        size = group[0].untyped_storage().nbytes()
        spare = self._spare.get(size)
        if spare:
            return spare.pop()
        return torch.empty(
            size, dtype=torch.uint8, device=away, pin_memory=torch.cuda.is_available()
        )


def _rehouse(tensors: list[Tensor], target: Tensor) -> tuple[int, Tensor]:
    """Give tensors over one storage another one with the same content.

    Returns its bytes and the storage they leave.
    """
    storage = tensors[0].untyped_storage()
    source = torch.empty(0, dtype=torch.uint8, device=tensors[0].device).set_(storage)
    target.copy_(source)
    for tensor in tensors:
        over = torch.empty(0, dtype=tensor.dtype, device=target.device)
        offset, shape, stride = tensor.storage_offset(), tensor.size(), tensor.stride()
        tensor.data = over.set_(target.untyped_storage(), offset, shape, stride)
    return storage.nbytes(), source


@dataclass(slots=True)
class _Kept:
    tensors: Callable[[], Iterable[Tensor]]
    is_base: bool
    mover: Mover = field(default_factory=Mover)
    bytes: int = 0
    last_used: int = 0


class Residency:
    """Keeps on the device what the next turn needs.

    Does nothing without a GPU, and for models that are spread over several: they stay.
    """

    def __init__(self, log: logging.Logger) -> None:
        """Empty; ``log`` is the experiment's."""
        device = run_device()
        self._device = device if device.type == "cuda" and not is_spread() else None
        self._log = log
        self._kept: dict[str, _Kept] = {}
        self._turn = 0

    def keep(self, key: str, tensors: Callable[[], Iterable[Tensor]], *, is_base: bool) -> None:
        """Make something known that is on the device now and may be moved while it is not used.

        Args:
            key: The run or base model's key.
            tensors: Gives all tensors that have to move together; called again each time.
            is_base: Whether several runs may share it.
        """
        if self._device is not None and key not in self._kept:
            self._kept[key] = _Kept(tensors, is_base)

    def forget(self, key: str) -> None:
        """Something is gone."""
        self._kept.pop(key, None)

    def use(self, keys: Iterable[str], room: int) -> None:
        """Bring what a turn needs onto the device; move others out until ``room`` bytes are free.

        Args:
            keys: What the turn needs; unknown ones are ignored.
            room: Bytes for what the turn makes: activations, gradients, a new copy of weights.
        """
        if self._device is None:
            return
        self._turn += 1
        needed = {key: self._kept[key] for key in keys if key in self._kept}
        missing = (
            room
            + sum(one.bytes for one in needed.values() if one.mover.is_away)
            - memory.free_bytes(self._device)
        )
        if missing > 0:
            others = {
                key: one
                for key, one in self._kept.items()
                if key not in needed and not one.mover.is_away
            }
            for one in others.values():
                one.bytes = _bytes_on(one.tensors(), self._device)
            residents = [
                Resident(key=key, bytes=one.bytes, last_used=one.last_used, is_base=one.is_base)
                for key, one in others.items()
            ]
            for key in to_move_out(residents, missing):
                self._move_out(key, others[key])
        for key, one in needed.items():
            one.last_used = self._turn
            if one.mover.is_away:
                one.mover.back(self._device)
                self._log.info("%s: %.0f MiB are back on the device", key, one.bytes / 2**20)

    def clear(self) -> None:
        """Move everything out."""
        for key, one in self._kept.items():
            if not one.mover.is_away:
                self._move_out(key, one)

    def _move_out(self, key: str, one: _Kept) -> None:
        assert self._device is not None
        one.bytes = one.mover.out(one.tensors(), self._device, torch.device("cpu"))
        torch.cuda.empty_cache()  # so that others than this allocator see the room, too
        self._log.info("%s: %.0f MiB moved to host memory", key, one.bytes / 2**20)


def _bytes_on(tensors: Iterable[Tensor], device: torch.device) -> int:
    sizes = {storage_of(t): t.untyped_storage().nbytes() for t in tensors if t.device == device}
    return sum(sizes.values())
