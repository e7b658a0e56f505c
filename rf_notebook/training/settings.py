"""Which settings of torch do figures depend on, and how does another process get the same?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from rf_notebook.core.values import text, whole

if TYPE_CHECKING:
    from rf_notebook.core.values import Json


def threads_of_each(processes: int) -> int:
    """Torch's threads of each of so many processes that share those of this one."""
    return max(1, torch.get_num_threads() // processes)


def settings_now(*, processes: int = 1) -> dict[str, Json]:
    """This process's settings, as JSON, for so many others that share its threads."""
    return {
        "threads": threads_of_each(processes),
        "dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "deterministic_warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
    }


def use_settings(settings: Mapping[str, Json]) -> None:
    """Give this process the settings that ``settings_now`` told in another one."""
    torch.set_num_threads(whole(settings["threads"]))
    torch.set_default_dtype(getattr(torch, text(settings["dtype"])))
    torch.use_deterministic_algorithms(
        bool(settings["deterministic_algorithms"]),
        warn_only=bool(settings["deterministic_warn_only"]),
    )
    torch.set_float32_matmul_precision(text(settings["float32_matmul_precision"]))
    torch.backends.cudnn.deterministic = bool(settings["cudnn_deterministic"])
    torch.backends.cudnn.benchmark = bool(settings["cudnn_benchmark"])
    torch.backends.cudnn.allow_tf32 = bool(settings["cudnn_allow_tf32"])
