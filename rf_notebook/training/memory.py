"""How much memory is a run's own, and what is left of it when it ends?"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import psutil
import torch

from rf_notebook.training.device import gpus_of_runs, name_of, run_devices

if TYPE_CHECKING:
    from rf_notebook.core.fleet import DeviceFacts
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


def device_memory(
    *, use_cpu: bool = False, elsewhere: Sequence[DeviceFacts] = ()
) -> tuple[str, int, int]:
    """The device that runs train on.

    Its name, the bytes that can still be allocated, and how many it has.

    Args:
        use_cpu: Whether the run's config asks for the CPU.
        elsewhere: Devices of worker processes, of which the smallest counts; this process makes no
            CUDA context then.
    """
    smallest = min(elsewhere, key=lambda one: one.total_bytes or 0, default=None)
    if smallest is not None and smallest.total_bytes is not None and not use_cpu:
        free = smallest.total_bytes - (smallest.used_bytes or 0)
        return smallest.described, free, smallest.total_bytes
    devices = run_devices(use_cpu=use_cpu or smallest is not None)
    if devices[0].type == "cuda":
        return (
            name_of(devices),
            sum(map(free_bytes, devices)),
            sum(torch.cuda.mem_get_info(device)[1] for device in devices),
        )
    memory = psutil.virtual_memory()
    return "CPU", memory.available, memory.total


def allocated_bytes() -> int:
    """Device memory in use by tensors; 0 without a GPU."""
    return sum(map(torch.cuda.memory_allocated, gpus_of_runs()))


def collect() -> None:
    """Give back what ended runs held: trainers are full of reference cycles."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def peak_bytes() -> int | None:
    """Highest device memory since ``reset_peak``, of several GPUs the sum; None without one."""
    gpus = gpus_of_runs()
    return sum(map(torch.cuda.max_memory_allocated, gpus)) if gpus else None


def reset_peak() -> None:
    """Start a new measurement of the peak."""
    for gpu in gpus_of_runs():
        torch.cuda.reset_peak_memory_stats(gpu)
