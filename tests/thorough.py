"""More of the same: cases that test nothing which the first ones do not.

``make test`` leaves them out, ``make thorough`` runs them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def few(count: int, values: Iterable[Any]) -> list[Any]:
    """Parameters for a test, those after the first ``count`` only for ``make thorough``."""
    return [
        pytest.param(value, marks=[] if number < count else [pytest.mark.thorough])
        for number, value in enumerate(values)
    ]
