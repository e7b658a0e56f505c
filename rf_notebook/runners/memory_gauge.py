"""How much memory is in use?"""

from __future__ import annotations

import sys
import time

#: Between two measurements: one costs more than all else that a panel shows.
_EVERY_SECONDS = 2.0

#: The device's name, the bytes in use on it, and how many it has.
Reading = tuple[str, int | None, int | None]


class MemoryGauge:
    """Measures every few seconds at most, and loads no torch for it."""

    def __init__(self) -> None:
        self._read_at = float("-inf")
        self._reading: Reading = ("memory", None, None)

    def read(self, *, is_training: bool) -> Reading:
        """The memory of the device that runs train on, or of the machine when nothing trains."""
        now = time.monotonic()
        if now - self._read_at > _EVERY_SECONDS:
            self._read_at, self._reading = now, _measured(is_training=is_training)
        return self._reading


def _measured(*, is_training: bool) -> Reading:
    torch = sys.modules.get("torch")
    if (
        is_training
        and torch is not None
        and torch.cuda.is_available()
        and torch.cuda.is_initialized()
    ):
        from rf_notebook.training.device import gpus_of_runs

        known = [torch.cuda.mem_get_info(gpu) for gpu in gpus_of_runs()]
        total = sum(total for _, total in known)
        return "GPU", total - sum(free for free, _ in known), total
    import psutil

    return "memory", psutil.Process().memory_info().rss, psutil.virtual_memory().total
