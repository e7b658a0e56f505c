"""How does a whole experiment leave the disk?"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from rf_notebook.core.errors import ConfigError, ReadOnlyExperiment, StoreError
from rf_notebook.store import layout
from rf_notebook.store.glance import Recorded, glance
from rf_notebook.store.plain_files import read_plain
from rf_notebook.store.storage_place import known_place

_SQLITE = b"SQLite format 3\0"
#: Files that are counted at most.
_MOST_FILES = 20_000


def bytes_of(folder: Path) -> int:
    """What a folder takes of the disk; links are not followed, and not more than 20,000 files counted."""
    total = files = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(path) / name).lstat().st_size
            except OSError:
                continue
        files += len(names)
        if files > _MOST_FILES:
            break
    return total


def remove_folder(folder: Path) -> None:
    """Remove an experiment's folder; nothing outside it, whatever links there are.

    Args:
        folder: The experiment's, absolute.

    Raises:
        ConfigError: when it is no experiment's, or its checkpoints lie in a storage.
        ReadOnlyExperiment: when a living process trains it.
        StoreError: when it cannot be removed.
    """
    _check_is_experiment(folder)
    if glance(layout.record(folder)).standing is Recorded.ELSEWHERE:
        raise ReadOnlyExperiment(
            f"experiment {folder.name!r} is trained by another process; end it there first."
        )
    place = known_place(folder)
    if place is not None:
        raise ConfigError(
            f"checkpoints of experiment {folder.name!r} lie in {place.address!r}, which would stay; remove them "
            f"there, then the folder {folder}."
        )
    leaving = folder.with_name(f".removing-{secrets.token_hex(4)}")
    try:
        folder.rename(leaving)  # from now on no longer an experiment, also when the rest fails
        shutil.rmtree(leaving)
    except OSError as error:
        raise StoreError(
            f"experiment {folder.name!r} could not be removed ({error.strerror or error}); what is left is in "
            f"{leaving if leaving.exists() else folder}."
        ) from error


def _check_is_experiment(folder: Path) -> None:
    try:
        if not folder.is_symlink() and read_plain(layout.record(folder), 16) == _SQLITE:
            return
    except (OSError, ValueError):
        pass
    raise ConfigError(f"{folder} holds no experiment of its own, so nothing is removed.")
