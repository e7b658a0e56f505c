"""Adapters of the user's that runs start from: is it one, and a copy of it in the experiment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from rf_notebook.core.errors import ConfigError
from rf_notebook.store import folders
from rf_notebook.store.plain_files import read_plain

if TYPE_CHECKING:
    from rf_notebook.core.run import StoredFolder

#: Kinds whose files hold what an encoder has made.
_PROMPTS = ("CARTRIDGE", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING")
_LONGEST_CONFIG = 1 << 20
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PEFT_FILES = (CONFIG, WEIGHTS)
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
    kind = _kind(path / CONFIG)
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


def tensor_names(file: Path) -> set[str]:
    """Of the tensors in a file of safetensors; none where it is not one."""
    try:
        size = int.from_bytes(read_plain(file, 8), "little")
        names = json.loads(read_plain(file, 8 + min(size, _LONGEST_HEADER))[8:])
    except (OSError, ValueError, RecursionError):
        return set()
    return set(names) - {"__metadata__"} if isinstance(names, dict) else set()


def _kind(file: Path) -> str:
    """The peft_type that an adapter's config names; "" where it says none."""
    try:
        config = json.loads(read_plain(file, _LONGEST_CONFIG))
    except (OSError, ValueError, RecursionError):
        return ""  # peft says what is wrong with it
    return str(config.get("peft_type", "")) if isinstance(config, dict) else ""


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
