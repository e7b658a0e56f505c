"""One file a training method. Adding one is a file here, a line below and a test."""

from __future__ import annotations

from rf_notebook.core.errors import ConfigError
from rf_notebook.training.methods.base import Method
from rf_notebook.training.methods.sft import SFT

METHODS: dict[str, Method] = {"SFT": SFT()}


def method_named(name: str) -> Method:
    """The method of a trainer_type.

    Raises:
        ConfigError: for one that cannot be trained yet.
    """
    if name not in METHODS:
        raise ConfigError(
            f"trainer_type={name!r} can be configured but not trained by this version; it trains {', '.join(METHODS)}."
        )
    return METHODS[name]


__all__ = ["METHODS", "Method", "method_named"]
