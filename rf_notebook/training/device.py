"""On which devices do runs train?

One run, one device, however many are visible; in a worker process of several GPUs a run is on all of
them, one stage of its model on each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from rf_notebook.core.errors import ConfigError
from rf_notebook.training.facts import environment

if TYPE_CHECKING:
    from rf_notebook.core.fleet import DeviceFacts

_CPU, _GPU = torch.device("cpu"), torch.device("cuda", 0)


@dataclass(slots=True)
class _Here:
    """Of this process."""

    stages: int = 1
    """Devices over which each run's model is spread."""


_here = _Here()


def spread_over(stages: int) -> None:
    """Spread the models of this process's runs over so many devices; of a worker, as it starts."""
    _here.stages = stages


def run_device(*, use_cpu: bool = False) -> torch.device:
    """The device of a run: the first visible GPU, as in transformers' Trainer, or the CPU.

    Args:
        use_cpu: Whether the run's config asks for the CPU.
    """
    return _CPU if use_cpu or not torch.cuda.is_available() else _GPU


def run_devices(*, use_cpu: bool = False) -> tuple[torch.device, ...]:
    """The devices over which a run's model is spread, the first stage's first; usually one.

    Args:
        use_cpu: Whether the run's config asks for the CPU.
    """
    first = run_device(use_cpu=use_cpu)
    if first.type == "cuda":
        return tuple(torch.device("cuda", index) for index in range(_here.stages))
    return (first,) * (1 if torch.cuda.is_available() else _here.stages)


def is_spread() -> bool:
    """Whether models are spread over several devices in this process."""
    return _here.stages > 1


def gpus_of_runs() -> tuple[torch.device, ...]:
    """The GPUs that runs train on, as soon as anything in this process uses CUDA.

    None before and without one.
    """
    return run_devices() if torch.cuda.is_initialized() else ()


def name_of(devices: Sequence[torch.device]) -> str:
    """What devices of a run are, in words; more than one of them are alike."""
    name = torch.cuda.get_device_name(devices[0]) if devices[0].type == "cuda" else "CPU"
    return name if len(devices) == 1 else f"{len(devices)} x {name}"


def is_broken() -> bool:
    """Whether the GPU takes no more work of this process, as after an illegal memory access."""
    if not torch.cuda.is_initialized():
        return False
    try:
        for device in gpus_of_runs():
            torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


def gpu_names() -> tuple[str, ...]:
    """The visible GPUs; makes no CUDA context."""
    return tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))


def named_devices(wanted: str | int | tuple[str, ...], *, stages: int = 1) -> tuple[str, ...]:
    """The names of the devices that ``run_fit(devices=...)`` asks for; makes no CUDA context.

    Args:
        wanted: Names, how many GPUs, or "auto" for all.
        stages: GPUs that a config needs, of the one that needs most.

    Returns:
        Of each worker process its device, or its devices joined by "+"; none where "auto" finds
        nothing to divide.

    Raises:
        ConfigError: for one that is not here, with the devices that there are; for workers that
            have fewer GPUs than a config needs.
    """
    gpus = gpu_names()
    asked = (
        wanted if isinstance(wanted, str | int) else [one.replace("+", " and ") for one in wanted]
    )
    here = f"this machine has {', '.join(['cpu', *gpus])}"
    if wanted == "auto" or isinstance(wanted, int):
        if isinstance(wanted, int) and wanted > len(gpus):
            raise ConfigError(f"run_fit(devices={asked!r}): {here}.")
        count = len(gpus) if wanted == "auto" else int(wanted)
        if count < stages > 1:
            raise ConfigError(
                f"RFModelConfig(num_gpus={stages}) needs a worker of {stages} GPUs; "
                f"run_fit(devices={asked!r}) gives it {count}, and {here}."
            )
        if wanted == "auto" and len(gpus) == 1:
            return ()
        whole = range(0, count - stages + 1, stages)
        return tuple("+".join(gpus[first : first + stages]) for first in whole)
    missing = [one for name in wanted for one in name.split("+") if one not in ("cpu", *gpus)]
    if missing:
        raise ConfigError(f"run_fit(devices={asked!r}): {here}.")
    given = 1 + wanted[0].count("+")
    if given < stages:
        raise ConfigError(
            f"RFModelConfig(num_gpus={stages}) needs a worker of {stages} devices, and those of "
            f"run_fit(devices={asked!r}) have {given}; give tuples, as in devices=[('cuda:0', 'cuda:1')]."
        )
    return tuple(wanted)


def check_precision(devices: Iterable[DeviceFacts], *, bf16: bool, tf32: bool) -> None:
    """Refuse what a worker's GPU does not compute in; in this process transformers does so.

    Raises:
        ConfigError: naming the GPU.
    """
    for device in devices:
        for name in [name for name, is_asked in (("bf16", bf16), ("tf32", tf32)) if is_asked]:
            if not device.has_bf16:
                raise ConfigError(
                    f"the config is refused: {device.name}, a {device.model}, does not support {name}. "
                    f"On this device set training_args.{name}=False."
                )


def tell_gpus() -> None:
    """Print, as a line of JSON, what each visible GPU is.

    Run in a process of its own, for it makes CUDA contexts: see ``runners.probe``.
    """
    told = []
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        told.append(
            {
                "environment": environment(gpu=number),
                "used_bytes": total - free,
                "total_bytes": total,
                "has_bf16": torch.cuda.get_device_capability(number) >= (8, 0),
            }
        )
    print(json.dumps(told))  # noqa: T201 - the answer
