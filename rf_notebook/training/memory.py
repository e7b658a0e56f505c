"""How much memory is a run's own, and what is left of it when it ends?"""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import psutil
import torch

from rf_notebook.training.device import gpu_of_runs, run_device

if TYPE_CHECKING:
    from rf_notebook.training.methods.trainer_like import TrainerLike


def own_bytes(trainer: TrainerLike) -> int:
    """Bytes of the tensors that a parked run alone holds: trainable weights and optimizer state."""
    tensors = {id(p): p for p in trainer.model.parameters() if p.requires_grad}
    optimizer = getattr(trainer, "optimizer", None)
    for state in optimizer.state.values() if optimizer is not None else ():
        tensors.update({id(value): value for value in state.values() if torch.is_tensor(value)})
    return bytes_of(tensors.values())


def bytes_of(tensors: Iterable[Any]) -> int:
    """Bytes of tensors, on whatever device, the meta device too."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def free_bytes(device: torch.device) -> int:
    """What can still be allocated on a GPU, the allocator's unused memory included."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def device_memory(*, use_cpu: bool = False) -> tuple[str, int, int]:
    """The device that runs train on.

    Its name, the bytes that can still be allocated, and how many it has.
    """
    device = run_device(use_cpu=use_cpu)
    if device.type == "cuda":
        return (
            torch.cuda.get_device_name(device),
            free_bytes(device),
            torch.cuda.mem_get_info(device)[1],
        )
    memory = psutil.virtual_memory()
    return "CPU", memory.available, memory.total


def allocated_bytes() -> int:
    """Device memory in use by tensors; 0 without a GPU."""
    device = gpu_of_runs()
    return 0 if device is None else torch.cuda.memory_allocated(device)


def collect() -> None:
    """Give back what ended runs held: trainers are full of reference cycles."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def peak_bytes() -> int | None:
    """Highest device memory since ``reset_peak``; None without a GPU."""
    device = gpu_of_runs()
    return None if device is None else torch.cuda.max_memory_allocated(device)


def reset_peak() -> None:
    """Start a new measurement of the peak."""
    device = gpu_of_runs()
    if device is not None:
        torch.cuda.reset_peak_memory_stats(device)
