"""How do numbers that the host knows reach the device without anybody waiting for it?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def on_device(arrays: Sequence[npt.NDArray[np.integer[Any]]], device: torch.device) -> list[Tensor]:
    """Arrays of whole numbers as tensors of int64, in one copy from page-locked memory.

    Args:
        arrays: One-dimensional.
        device: Where the tensors are to be.
    """
    whole = torch.from_numpy(np.concatenate(arrays).astype(np.int64, copy=False))
    if device.type == "cuda":
        whole = whole.pin_memory().to(device, non_blocking=True)
    return list(whole.split([len(array) for array in arrays]))


def numbers(values: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers as a tensor [n]."""
    made = torch.tensor(values, dtype=dtype)
    return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made
