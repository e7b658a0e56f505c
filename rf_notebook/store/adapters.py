"""Adapters of the user's that runs start from: is it one, and a copy of it in the experiment."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.redaction import brief
from rf_notebook.store import folders
from rf_notebook.store.plain_files import read_plain

if TYPE_CHECKING:
    from rf_notebook.core.run import StoredFolder

#: Kinds whose files hold what an encoder has made.
_PROMPTS = ("CARTRIDGE", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING")
_LONGEST_CONFIG = 1 << 20
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PEFT_FILES = (CONFIG, WEIGHTS)
#: Fields of a config whose texts, or keys, peft takes for regular expressions.
_PATTERNS = ("layers_pattern", "rank_pattern", "alpha_pattern")
#: A longer or more repetitive one could take hours to find that a name does not match.
_LONGEST_PATTERN, _MOST_REPETITIONS = 1000, 3
#: Of a file of tensors: what says where they lie in it.
_LONGEST_HEADER = 100 << 20


def check_adapter(path: Path) -> None:
    """Refuse a folder that holds no adapter which can be started from.

    Raises:
        ConfigError: with the folder and what would do.
    """
    missing = [name for name in _PEFT_FILES if not (path / name).is_file()]
    if missing:
        raise ConfigError(
            f"warm_start_from={str(path)!r} is not an adapter: it has no {' and no '.join(missing)}. "
            "Give a folder that export(run, path) or peft's save_pretrained wrote."
        )
    kind = str(_config(path / CONFIG).get("peft_type", ""))
    if kind in _PROMPTS:
        raise ConfigError(
            f"warm_start_from={str(path)!r} is a prompt ({kind}): its files serve for using it, and what makes it is not "
            "there. Start from an adapter of another kind, or clone the run with warm_start."
        )
    if not any(name.startswith("base_model.") for name in tensor_names(path / WEIGHTS)):
        raise ConfigError(
            f"warm_start_from={str(path)!r}: {WEIGHTS} holds no weights of an adapter. "
            "Give a folder that export(run, path) or peft's save_pretrained wrote."
        )
    check_patterns(path)


def check_patterns(path: Path) -> None:
    """Refuse an adapter of others with a pattern that might not come to an end.

    Those for its modules are not tried; see ``adapter_files.read_config``.

    Raises:
        ConfigError: with the pattern.
    """
    config = _config(path / CONFIG)
    for field in _PATTERNS:
        given = config.get(field) or ()
        for pattern in [given] if isinstance(given, str) else given:
            if isinstance(pattern, str) and not _is_quick(pattern):
                raise ConfigError(
                    f"{path / CONFIG} has the pattern {brief(pattern)} as {field}, which might not come to an end; "
                    "write it with at most three repetitions, and none of a group."
                )


def _is_quick(pattern: str) -> bool:
    repetitions = len(re.findall(r"[*+{]", pattern))
    of_groups = re.search(r"\)[*+{?]", pattern)
    return len(pattern) <= _LONGEST_PATTERN and repetitions <= _MOST_REPETITIONS and not of_groups


def tensor_names(file: Path) -> set[str]:
    """Of the tensors in a file of safetensors; none where it is not one."""
    file = file.resolve()  # the hub's cache has links, which the user has named
    try:
        size = int.from_bytes(read_plain(file, 8), "little")
        names = json.loads(read_plain(file, 8 + min(size, _LONGEST_HEADER))[8:])
    except (OSError, ValueError, RecursionError):
        return set()
    return set(names) - {"__metadata__"} if isinstance(names, dict) else set()


def _config(file: Path) -> dict[str, Any]:
    """An adapter's config; empty where it is none."""
    try:
        config = json.loads(read_plain(file.resolve(), _LONGEST_CONFIG))
    except (OSError, ValueError, RecursionError):
        return {}  # peft says what is wrong with it
    return config if isinstance(config, dict) else {}


def adopt_adapter(root: Path, path: Path, target: str) -> StoredFolder:
    """Copy an adapter in peft's format into the experiment.

    So the run does not depend on other folders.

    Args:
        root: The experiment's folder.
        path: The adapter's.
        target: The folder to write, relative to ``root``.

    Raises:
        ConfigError: when it is not an adapter.
    """
    check_adapter(path)

    def copy(folder: Path) -> None:
        for name in _PEFT_FILES:
            shutil.copyfile(path / name, folder / name)

    return folders.write_folder(root, target, copy, steps=0, samples=0)
