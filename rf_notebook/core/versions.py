"""Which versions of which packages decide the figures?"""

from __future__ import annotations

import contextlib
import importlib.metadata

_DISTRIBUTIONS = ("rf-notebook", "torch", "transformers", "trl", "peft", "accelerate", "datasets")
#: Recorded where they are installed.
_OPTIONAL = ("bitsandbytes",)


def versions() -> dict[str, str]:
    """The installed version of every package that decides figures.

    "unknown" for one without metadata.
    """
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    for name in _OPTIONAL:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
