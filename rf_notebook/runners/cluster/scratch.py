"""Where does a node keep the files of an experiment that trains there?

In a folder of the user's below the system's temporary one, shared by the node's carriers. It goes with
the last of them; what a crash left behind, the next carrier removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
from pathlib import Path

_LOCK = ".lock"
_IDENTITY = ".identity"


class Scratch:
    """Of one experiment on one node, as long as the object is not closed."""

    def __init__(self, token: str) -> None:
        """Make the folder, or take part in it.

        Args:
            token: Of the experiment's stay in the cluster.

        Raises:
            PermissionError: when another user has made a folder of its name.
        """
        parent = Path(tempfile.gettempdir()) / f"rf-notebook-{os.getuid()}"
        parent.mkdir(mode=0o700, exist_ok=True)
        found = parent.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise PermissionError(f"{parent} belongs to another user")
        self.path = parent / token
        self._lock = _locked(self.path)
        self.path.mkdir(mode=0o700, exist_ok=True)
        self.identity = _identity_of(self.path)
        """Of this folder, which another one of its name does not have."""
        for other in parent.glob(f"*{_LOCK}"):
            if other != _lock_of(self.path):
                _remove_unused(other.with_suffix(""))

    def close(self) -> None:
        """Leave; the last one removes the folder."""
        os.close(self._lock)
        _remove_unused(self.path)


def _identity_of(folder: Path) -> str:
    """As whoever made the folder has chosen it."""
    path = folder / _IDENTITY
    with contextlib.suppress(FileExistsError):
        path.symlink_to(secrets.token_hex(16))  # made and filled at once
    return str(path.readlink())


def _lock_of(folder: Path) -> Path:
    return folder.with_suffix(_LOCK)


def _locked(folder: Path) -> int:
    """A shared lock on a folder: its descriptor."""
    while True:
        lock = os.open(_lock_of(folder), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        fcntl.flock(lock, fcntl.LOCK_SH)
        if os.fstat(lock).st_nlink:
            return lock
        os.close(lock)  # another one has just removed it


def _remove_unused(folder: Path) -> None:
    """Remove a folder that no carrier holds; what cannot be removed now is left to the next one."""
    with contextlib.suppress(OSError):
        lock = os.open(_lock_of(folder), os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                _lock_of(folder).unlink()
        finally:
            os.close(lock)
