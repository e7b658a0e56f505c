"""Adapters of the user's that runs start from: is it one, and a copy of it in the experiment."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from rf_notebook.core.errors import ConfigError
from rf_notebook.store import folders

if TYPE_CHECKING:
    from rf_notebook.core.run import StoredFolder

_PEFT_FILES = ("adapter_config.json", "adapter_model.safetensors")


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
