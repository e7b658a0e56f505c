"""What is in an adapter's folder, which may come from anybody?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from peft import PeftConfig, get_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

from rf_notebook.core.errors import ConfigError
from rf_notebook.store.adapters import CONFIG, WEIGHTS, tensor_names

#: Fields of an adapter's config whose texts, or keys, peft takes for regular expressions.
_PATTERNS = ("layers_pattern", "rank_pattern", "alpha_pattern")
_MODULES = ("target_modules", "feedforward_modules")
_EXCLUDED = "exclude_modules"
#: A longer or more repetitive pattern could take hours to find that a name does not match.
_LONGEST_PATTERN, _MOST_REPETITIONS = 1000, 3
_PREFIX = "base_model.model."


def read_config(folder: Path) -> PeftConfig:
    """An adapter's config; where it has a pattern for the modules, the modules that its weights are of.

    Raises:
        ConfigError: for a pattern that might not come to an end.
    """
    config = PeftConfig.from_pretrained(str(folder))
    is_by_pattern = False
    for field in _MODULES:
        given = getattr(config, field, None)
        if isinstance(given, str) and given != "all-linear":
            setattr(config, field, sorted(_modules(config, tensor_names(folder / WEIGHTS))))
            is_by_pattern = True
    if is_by_pattern or isinstance(getattr(config, _EXCLUDED, None), str):
        setattr(config, _EXCLUDED, None)
    for field in _PATTERNS:
        for pattern in _texts(getattr(config, field, None)):
            if not _is_quick(pattern):
                raise ConfigError(
                    f"{CONFIG} in {folder} has the pattern {pattern!r:.80} as {field}, which might not come to an end; "
                    "write it with at most three repetitions, and none of a group."
                )
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


def _texts(given: Any) -> list[str]:
    if isinstance(given, str):
        return [given]
    return (
        [one for one in given or () if isinstance(one, str)]
        if isinstance(given, list | Mapping)
        else []
    )


def _is_quick(pattern: str) -> bool:
    repetitions = len(re.findall(r"[*+{]", pattern))
    of_groups = re.search(r"\)[*+{?]", pattern)
    return len(pattern) <= _LONGEST_PATTERN and repetitions <= _MOST_REPETITIONS and not of_groups
