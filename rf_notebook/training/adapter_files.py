"""What is in an adapter's folder, which may come from anybody?"""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from peft import PeftConfig, get_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

from rf_notebook.core.errors import ConfigError
from rf_notebook.store.adapters import WEIGHTS, tensor_names

#: Fields whose text peft takes for a regular expression over the names of all modules.
_MODULES, _EXCLUDED = ("target_modules", "feedforward_modules"), "exclude_modules"
_PREFIX = "base_model.model."


def read_config(folder: Path) -> PeftConfig:
    """An adapter's config; where it has a pattern for modules, the modules that its weights are of.

    So the pattern, which may be anybody's, is not tried.
    """
    config = PeftConfig.from_pretrained(str(folder))
    given = {name: getattr(config, name, None) for name in (*_MODULES, _EXCLUDED)}
    if not any(isinstance(one, str) and one != "all-linear" for one in given.values()):
        return config
    modules = sorted(_modules(config, tensor_names(folder / WEIGHTS)))
    for name in _MODULES:
        if given[name] is not None and modules:
            setattr(config, name, modules)
    if given[_EXCLUDED] is not None:
        setattr(config, _EXCLUDED, None)
    return config


def check_loaded(model: Any, folder: Path) -> list[str]:
    """Weights of a model's adapter that are not in the folder that it was read from.

    Raises:
        ConfigError: when none of them is.
    """
    wanted = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    missing = sorted(wanted - tensor_names(folder / WEIGHTS))
    if wanted and len(missing) == len(wanted):
        raise ConfigError(
            f"{folder / WEIGHTS} holds none of the {len(wanted)} weights of its adapter, such as {missing[0]}; "
            "it is of another base model, or not what was written."
        )
    return missing


def _modules(config: PeftConfig, names: Set[str]) -> Iterator[str]:
    prefix = PEFT_TYPE_TO_PREFIX_MAPPING.get(config.peft_type, "")
    for name in names:
        module, found, _ = name.removeprefix(_PREFIX).partition(f".{prefix}")
        if found and prefix:
            yield module
