"""How do functions and attributes of one object become others for a while?"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any


def patch(owner: Any, name: str, value: Any) -> Callable[[], None]:
    """Let a method or attribute of one object, not of its class, be another one.

    Returns what undoes this.
    """
    was = owner.__dict__.get(name)

    def undo() -> None:
        if was is None:
            delattr(owner, name)
        else:
            setattr(owner, name, was)

    setattr(owner, name, value)
    return undo


def knowing(function: FunctionType, **names: Any) -> FunctionType:
    """The same function with other globals of these names."""
    return FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
