"""How do functions and attributes of one object become others for a while?"""

from __future__ import annotations

import functools
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


def train_of(model: Any) -> Callable[..., Any]:
    """A model's ``train()``, which every micro-step calls, without visiting all modules each time."""
    own = model.train
    known: bool | None = None  # what the outermost module says need not hold for those below

    @functools.wraps(own)
    def train(mode: bool = True) -> Any:
        nonlocal known
        if known != mode:
            known = mode
            own(mode)
        return model

    return train


def unwrap_of(accelerator: Any, model: Any) -> Callable[..., Any]:
    """An accelerator's ``unwrap_model``, which visits all modules, known for one model."""
    own = accelerator.unwrap_model
    is_plain = own(model) is model

    @functools.wraps(own)
    def unwrap_model(given: Any, *args: Any, **kwargs: Any) -> Any:
        return model if is_plain and given is model else own(given, *args, **kwargs)

    return unwrap_model
