"""How does a folder of the experiment get to another machine, and whole?

In pieces, to a temporary name; what was recorded is verified before it stands at its place.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rf_notebook.core.errors import CheckpointDamaged
from rf_notebook.core.ports import unobserved
from rf_notebook.store.folders import BegunFolder, flush, is_stand_in, safe_path, verify_folder

if TYPE_CHECKING:
    from rf_notebook.core.run import StoredFolder

_PIECE = 32 * 2**20


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a file."""

    name: str
    """Relative to the folder, with forward slashes."""
    offset: int
    data: bytes


def names_in(folder: Path) -> list[str]:
    """The files of a folder, relative to it, sorted; none when it is not there. No link is followed."""
    return sorted(
        file.relative_to(folder).as_posix()
        for parent, _, names in os.walk(folder)
        for file in (Path(parent, name) for name in names)
        if file.is_file() and not file.is_symlink()
    )


def read_piece(folder: Path, name: str, offset: int) -> bytes:
    """Bytes of a file from an offset; fewer than a piece at its end, none behind it."""
    with safe_path(folder, name).open("rb") as stream:
        stream.seek(offset)
        return stream.read(_PIECE)


def pieces_of(folder: Path) -> Iterator[Piece]:
    """A folder in pieces, in the order of its names."""
    return pieces(names_in(folder), partial(read_piece, folder))


def pieces(names: Iterable[str], read: Callable[[str, int], bytes]) -> Iterator[Piece]:
    """Files in pieces.

    Args:
        names: Of the files.
        read: As ``read_piece``, of the folder that they are in.
    """
    for name in names:
        offset = 0
        while True:
            data = read(name, offset)
            yield Piece(name, offset, data)
            if len(data) < _PIECE:
                break
            offset += len(data)


def write_piece(folder: Path, piece: Piece) -> None:
    """Write a piece of a copy; a file's pieces come in order, and each may come again.

    Raises:
        CheckpointDamaged: for a name outside the folder.
    """
    path = safe_path(folder, piece.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("r+b" if piece.offset else "wb") as stream:
        stream.seek(piece.offset)
        stream.write(piece.data)


def take_folder(root: Path, folder: StoredFolder, pieces: Iterable[Piece]) -> None:
    """Write a folder as another machine has it; nothing happens when it is here already.

    Where a manifest stands in for it, the files come to it.

    Args:
        root: The experiment's folder.
        folder: What was recorded of it.
        pieces: All of it.

    Raises:
        CheckpointDamaged: when it is not what was recorded.
        StorageFull: when there is no room; nothing is left behind.
    """
    target = safe_path(root, folder.path)
    stands_in = is_stand_in(root, folder.path)
    if target.exists() and not stands_in:
        verify_folder(root, folder)
        return
    begun = BegunFolder(root, folder.path, folder.steps, folder.samples, unobserved)
    temporary = begun.temporary
    with begun.refused_by_disk():
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for piece in pieces:
            write_piece(temporary, piece)
        place = temporary.relative_to(root).as_posix()
        try:
            verify_folder(root, replace(folder, path=place))
        except CheckpointDamaged as error:
            raise CheckpointDamaged(
                f"{folder.path} arrived otherwise than it was written: {error}"
            ) from error
        if stands_in:
            _fill(target, temporary)
        else:
            begun.place()


def _fill(target: Path, whole: Path) -> None:
    """Move files to a folder that has the same manifest; when that ends early, it can be done again."""
    for name in names_in(whole):
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        flush(whole / name)
        (whole / name).replace(place)
        flush(place.parent)
    shutil.rmtree(whole)
