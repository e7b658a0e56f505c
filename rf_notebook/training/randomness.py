"""Does a run draw random numbers in its steps?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch.nn.modules.dropout import _DropoutNd

from rf_notebook.training.methods import method_named

if TYPE_CHECKING:
    from rf_notebook.core.run import RunConfig
    from rf_notebook.core.values import Json

_DRAWS = re.compile(r"dropout|pdrop|drop_path|layerdrop|layer_drop|noise|jitter")

#: Kinds of adapters that draw in every step whatever their settings are.
_DRAWING_ADAPTERS = ("PVERA",)


def draws_in_steps(model: Any, config: RunConfig) -> bool:
    """Whether its steps may use random numbers; False only where it is sure that they do not.

    Args:
        model: The run's, or the base model of one that is still to be built.
        config: The run's.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if (
        method_named(config.method).generates
        or config.training.get("full_determinism")
        or config.adapter in _DRAWING_ADAPTERS
        or not type(base).__module__.startswith("transformers.")
    ):
        return True
    if any(isinstance(module, _DropoutNd) and module.p > 0 for module in model.modules()):
        return True
    said = (base.config.to_dict(), config.training, config.peft or {})
    return any(value for settings in said for value in _random_settings(settings))


def _random_settings(settings: Mapping[str, Json]) -> Iterator[float]:
    """Values of settings whose names say that something is left out or added at random."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _random_settings(value)
        elif (
            _DRAWS.search(str(name))
            and isinstance(value, int | float)
            and not isinstance(value, bool)
        ):
            yield value
