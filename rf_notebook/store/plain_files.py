"""How is a small file read without following a link, and written whole or not at all?"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.redaction import brief


class NotAPlainFileError(OSError):
    """A link, a folder, a pipe or a device stands where a file should."""


def path_given(what: str, given: object) -> Path:
    """A path as somebody gave it.

    Args:
        what: It is for, as in "export(path)".
        given: A text or a path.

    Raises:
        ConfigError: for what no path can be.
    """
    if isinstance(given, str | os.PathLike) and "\0" not in (text := os.fspath(given)):
        return Path(text)
    raise ConfigError(f"{what}={brief(given)} is no path; give one such as 'folder/name'.")


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
