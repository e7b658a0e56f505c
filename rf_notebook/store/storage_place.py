"""Which storage does an experiment use? Noted in its folder; reached only when the user names it, too."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from rf_notebook.core.errors import ConfigError
from rf_notebook.store import folders, layout
from rf_notebook.store.storage import Storage

_NAME = re.compile(r"[\w.-]+-[0-9a-f]{16}")
_NOT_IN_NAMES = re.compile(r"[^\w.-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoragePlace:
    """A bucket's or a mount's folders of one experiment."""

    address: str
    """As the user gave it."""
    names: tuple[str, ...]
    """Of the experiment's folders in it: the one that is written, and those that are only read, for
    a copy of this experiment's folder may use them."""

    @classmethod
    def to_try(cls, address: str) -> StoragePlace:
        """For who only looks whether it works."""
        return cls(address=address, names=(f"trial-{secrets.token_hex(8)}",))

    def opened(self) -> tuple[Storage, ...]:
        """Each of them."""
        return tuple(Storage(self.address, name) for name in self.names)


def known_place(folder: Path) -> StoragePlace | None:
    """What is noted; None when nothing is.

    Args:
        folder: The experiment's.
    """
    noted = _noted(folder)
    return None if noted is None else noted[0]


def use_place(folder: Path, address: str, name: str) -> StoragePlace:
    """The place to write to at an address; noted.

    An experiment's folder that was copied gets a new one, so that no other's checkpoints are
    deleted.

    Args:
        folder: The experiment's; its record is there.
        address: The user's.
        name: The experiment's.

    Raises:
        ConfigError: when its checkpoints lie at another address.
    """
    noted, record = _noted(folder), layout.record(folder).stat().st_ino
    names: tuple[str, ...] = ()
    if noted is not None and noted[0].address == address:
        names = noted[0].names
    elif noted is not None and stand_ins(folder):
        raise ConfigError(
            f"storage={address!r}: checkpoints of this experiment lie in {noted[0].address!r}; give that."
        )
    if noted is None or not names or noted[1] != record:
        names = (f"{_NOT_IN_NAMES.sub('_', name)}-{secrets.token_hex(8)}", *names)
    file = layout.storage(folder)
    new = file.with_suffix(".new")
    new.write_text(json.dumps({"address": address, "names": names, "record": record}))
    new.replace(file)
    return StoragePlace(address=address, names=names)


def stand_ins(folder: Path) -> list[str]:
    """The folders of runs that lie elsewhere, relative to the experiment's, sorted."""
    found = (place.relative_to(folder).as_posix() for place in (folder / "runs").glob("*/*"))
    return sorted(
        path
        for path in found
        if layout.is_of_a_run(path.rpartition("/")[2]) and folders.is_stand_in(folder, path)
    )


def _noted(folder: Path) -> tuple[StoragePlace, object] | None:
    """The place that is noted, and which record it was noted for; None when nothing readable is."""
    try:
        noted = json.loads(layout.storage(folder).read_text())
        address, names = noted["address"], noted["names"]
        if not isinstance(address, str) or not all(map(_NAME.fullmatch, names)) or not names:
            return None
        return StoragePlace(address=address, names=tuple(names)), noted.get("record")
    except (OSError, ValueError, TypeError, KeyError):
        return None
