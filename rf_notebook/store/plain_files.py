"""How is a small file read without following a link, and written whole or not at all?"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path


class NotAPlainFileError(OSError):
    """A link, a folder, a pipe or a device stands where a file should."""


def read_plain(path: Path, most: int) -> bytes:
    """The first bytes of a plain file; links are not followed, pipes and devices not opened.

    Args:
        path: The file.
        most: Bytes to read at most.

    Raises:
        NotAPlainFileError: when something else is there.
        OSError: when it cannot be read.
        ValueError: for a path that no file can have.
    """
    flags = (
        os.O_RDONLY
        | getattr(os, "O_NOFOLLOW", 0)
        | getattr(os, "O_NONBLOCK", 0)
        | getattr(os, "O_BINARY", 0)
    )
    descriptor = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotAPlainFileError(f"{path.name} is not a plain file")
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            return stream.read(most)
    finally:
        os.close(descriptor)


def write_whole(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file whole, or not at all.

    Args:
        path: The file; what is there is replaced, a link too.
        data: All of its bytes.
        mode: Who may read and write it.

    Raises:
        OSError: when it cannot be written; what was there stays.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
