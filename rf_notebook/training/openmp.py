"""How many CPU workers wait idly, and do they slow the others?

libgomp lets idle workers spin for a moment before they sleep, but only while all its workers
together are no more than the cores. Each thread that ever ran a parallel loop keeps a pool of them.
When the notebook's main thread has one and the engine's thread makes another, neither spins any
more and every small operation pays for waking its workers.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch

_PAUSE_SOFT = 1  # omp_pause_soft of OpenMP 5.0


def release_workers() -> None:
    """Let the current thread's idle OpenMP workers go; its next parallel loop makes new ones.

    Source: OpenMP 5.0, section 3.2.44, omp_pause_resource_all. Does nothing where torch has no
    libgomp.
    """
    pause = _pause()
    if pause is not None:
        pause(_PAUSE_SOFT)


@cache
def _pause() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    package = Path(torch.__file__).parent
    for folder in (package / "lib", package.parent / "torch.libs"):
        for library in sorted(folder.glob("libgomp*.so*")):
            try:
                return ctypes.CDLL(str(library)).omp_pause_resource_all
            except (OSError, AttributeError):
                continue
    return None
