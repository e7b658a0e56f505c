"""On which device do runs train? One run, one device, however many are visible."""

from __future__ import annotations

import torch

from rf_notebook.core.errors import ConfigError

_GPU = torch.device("cuda", 0)


def run_device(*, use_cpu: bool = False) -> torch.device:
    """The device of a run: the first visible GPU, as in transformers' Trainer, or the CPU.

    Args:
        use_cpu: Whether the run's config asks for the CPU.
    """
    return torch.device("cpu") if use_cpu or not torch.cuda.is_available() else _GPU


def gpu_of_runs() -> torch.device | None:
    """The GPU that runs train on, as soon as anything in this process uses CUDA.

    None before and without one.
    """
    return _GPU if torch.cuda.is_initialized() else None


def check_device(name: str) -> None:
    """Refuse a device that is not here; makes no CUDA context.

    Args:
        name: "cpu" or "cuda:N".

    Raises:
        ConfigError: with the devices that there are.
    """
    count = torch.cuda.device_count()
    here = ["cpu", *(f"cuda:{number}" for number in range(count))]
    if name not in here:
        raise ConfigError(f"run_fit(devices=[{name!r}]): this machine has {', '.join(here)}.")
