"""Does a model have the modules that an adapter's config names?

peft trains those that it finds and says nothing of others.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.values import mapping

if TYPE_CHECKING:
    from rf_notebook.core.values import Json

#: Arguments of peft's configs that list modules by the ends of their names.
_LISTS = ("target_modules", "modules_to_save", "exclude_modules", "feedforward_modules")
#: Those that give some modules values of their own, by patterns that the end of a name has to
#: match.
_PATTERNS = ("rank_pattern", "alpha_pattern")
_SHORTHANDS = ("all-linear",)
_MOST_SHOWN = 12


def check_module_names(peft: Mapping[str, Json], model: Any) -> None:
    """Refuse names that no module of a model has.

    Args:
        peft: Arguments of the adapter's config.
        model: The base model, with weights or without.

    Raises:
        ConfigError: naming the argument, and the nearest name that there is.
    """
    modules = [name for name, _ in model.named_modules() if name]
    for argument in _LISTS:
        given = peft.get(argument)
        if isinstance(given, Mapping) and len(given) == 1:
            given = next(iter(given.values()))  # a set or a tuple
        for name in given if isinstance(given, list) else ():
            if (
                isinstance(name, str)
                and name not in _SHORTHANDS
                and not any(_ends_with(one, name) for one in modules)
            ):
                raise _unknown(argument, name, modules)
    for argument in _PATTERNS:
        for pattern in mapping(peft.get(argument) or {}):
            if not any(re.match(rf"(.*\.)?({pattern})$", one) for one in modules):
                raise _unknown(argument, pattern, modules)


def _ends_with(module: str, name: str) -> bool:
    return module == name or module.endswith(f".{name}")


def _unknown(argument: str, name: str, modules: Iterable[str]) -> ConfigError:
    ends = list(
        dict.fromkeys(
            one.rpartition(".")[2] for one in modules if not one.rpartition(".")[2].isdigit()
        )
    )
    near = difflib.get_close_matches(name.rpartition(".")[2], ends, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(ends[:_MOST_SHOWN])}."
    return ConfigError(
        f"peft_config.{argument} names {name!r}, which the base model does not have; {hint}"
    )
