"""Are the installed libraries new enough? The bounds are those of the package's own metadata."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator

_PACKAGE = "rf-notebook"
_BOUND = re.compile(r"([\w.-]+)\s*>=\s*([\d.]+)\s*$")


def lower_bounds() -> dict[str, str]:
    """By distribution, the oldest version that works.

    Empty where the package itself is not installed.
    """
    try:
        listed = importlib.metadata.requires(_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found = (_BOUND.match(requirement) for requirement in listed if ";" not in requirement)
    return {one[1].lower(): one[2] for one in found if one is not None}


def too_old(*names: str) -> Iterator[str]:
    """A sentence for each of these distributions that is installed and older than its lower bound.

    Args:
        names: Of distributions, such as "trl".
    """
    bounds = lower_bounds()
    for name in names:
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        bound = bounds.get(name)
        if bound is not None and _release(installed) < _release(bound):
            yield (
                f"rf_notebook needs {name} {bound} or newer, and {installed} is installed; "
                f"run pip install -U '{name}>={bound}' and restart the kernel."
            )


#: What trains; the versions matter before anything is imported.
TRAINING = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")


def _release(version: str) -> tuple[int, ...]:
    """The numbers before a suffix, without zeros at the end: 5.3 is 5.3.0."""
    numbers = [
        int(one) for one in re.findall(r"\d+", (re.match(r"\d+(\.\d+)*", version) or ["0"])[0])
    ]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
