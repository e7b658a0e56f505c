"""Where do checkpoints lie that every node of a cluster reaches? In a bucket, or on a mount.

Files are written first and a folder's manifest last, so what has one is whole. A folder has a name
that no other one ever had. The sha256 of its manifest is in the experiment's log, and what is read is
compared with it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import CheckpointDamaged, ConfigError, StorageFull
from rf_notebook.store import copies, folders

if TYPE_CHECKING:
    from rf_notebook.core.run import StoredFolder

#: In an experiment's folder: who writes there at the moment, so that nodes see whether they share it.
_MARK = ".rf-notebook"
_PIECE = 32 * 2**20


class Storage:
    """The folders of one experiment in a bucket or on a mount; any thread."""

    def __init__(self, address: str, name: str) -> None:
        """Nothing is reached yet.

        Args:
            address: What pyarrow takes, such as ``s3://bucket/folder``, or a folder's absolute path.
            name: Of the experiment's folder in it.
        """
        self.address, self.name = address, name

    @cached_property
    def _place(self) -> tuple[Any, str]:
        """The file system of pyarrow, and the path of the experiment's folder in it.

        Raises:
            ConfigError: for an address that nobody knows.
            StorageFull: when it does not answer now.
        """
        from pyarrow.fs import FileSystem, LocalFileSystem

        with self._refused():
            try:
                if Path(self.address).is_absolute():
                    system, base = LocalFileSystem(), self.address
                else:
                    system, base = FileSystem.from_uri(self.address)
            except (ValueError, ImportError) as error:
                raise ConfigError(
                    f"storage={self.address!r} is not an address that pyarrow knows: {_words(error)}"
                ) from None
        return system, f"{base.rstrip('/')}/{self.name}"

    @property
    def _is_mount(self) -> bool:
        return bool(self._place[0].type_name == "local")

    def enter(self, token: str, *, is_first: bool) -> None:
        """Make sure that this machine writes and reads there, and where the others do.

        Args:
            token: Of those who share it.
            is_first: Whether no other machine with this token was there before.

        Raises:
            ConfigError: for an address that nobody knows, and for a place that is not shared.
            StorageFull: when it cannot be written or read now.
        """
        system, base = self._place
        mark = f"{base}/{_MARK}"
        with self._refused():
            if self._is_mount and not Path(base).parent.is_dir():
                raise OSError("it is not there; it has to be a folder that all machines have")
            if is_first:
                system.create_dir(base)
                self._write(mark, token.encode())
            try:
                found = self._read(mark, 0)
            except FileNotFoundError:
                found = b""
        if found != token.encode():
            raise ConfigError(
                f"storage={self.address!r} is not the same place on all machines; give a bucket, or a mount that all nodes share."
            )

    def leave(self) -> None:
        """Delete what ``enter`` wrote; what cannot be deleted stays."""
        with contextlib.suppress(OSError, ConfigError):  # it may not be reached at all
            system, base = self._place
            system.delete_dir(base)

    def put(self, root: Path, relative: str) -> None:
        """Copy a folder there; one that is there already stays as it is.

        Args:
            root: Below which it lies here.
            relative: Its place below ``root``, and there.

        Raises:
            StorageFull: when it cannot be written now.
        """
        folder = folders.safe_path(root, relative)
        system, base = self._place
        manifest = f"{base}/{relative}/{folders.MANIFEST}"
        with self._refused():
            if self._is_mount and not Path(base).is_dir():
                raise OSError("it is not there")
            if self._size(manifest) is not None:
                return
            for name in sorted(copies.names_in(folder), key=_manifest_last):
                place = f"{base}/{relative}/{name}"
                system.create_dir(place.rpartition("/")[0])
                with (folder / name).open("rb") as ours:
                    self._write(place, ours)

    def take(self, root: Path, folder: StoredFolder) -> None:
        """Bring a folder here, whole or not at all; nothing happens when it is here.

        Args:
            root: Below which it is to lie.
            folder: What was recorded of it.

        Raises:
            CheckpointDamaged: when it is gone, or another one than was recorded.
            StorageFull: when it cannot be read now, or there is no room here.
        """
        copies.take_folder(root, folder, self._pieces(folder))

    def has(self, folder: StoredFolder) -> bool:
        """Whether a folder is there.

        Raises:
            StorageFull: when nobody can say now.
        """
        with self._refused():
            return self._size(f"{self._place[1]}/{folder.path}/{folders.MANIFEST}") is not None

    def remove(self, relative: str) -> None:
        """Delete a folder there, its manifest first.

        Raises:
            StorageFull: when it cannot be deleted now.
        """
        folders.safe_path(Path(), relative)
        system, base = self._place
        place = f"{base}/{relative}"
        with self._refused():
            if self._size(f"{place}/{folders.MANIFEST}") is not None:
                system.delete_file(f"{place}/{folders.MANIFEST}")
            if self._is_mount:  # no link is followed
                folders.remove_folder(Path(base), relative)
                return
            try:
                system.delete_dir(place)
            except FileNotFoundError:
                return

    def folders(self) -> list[str]:
        """What is there of runs, whole or not: paths as in the record, sorted.

        Raises:
            StorageFull: when nobody can say now.
        """
        from pyarrow.fs import FileSelector

        system, base = self._place
        with self._refused():
            every = FileSelector(f"{base}/runs", allow_not_found=True, recursive=True)
            found = [one.path.removeprefix(f"{base}/") for one in system.get_file_info(every)]
        return sorted({"/".join(path.split("/")[:3]) for path in found if path.count("/") >= 2})

    def _pieces(self, folder: StoredFolder) -> Iterator[copies.Piece]:
        base = self._place[1]
        with self._refused():
            try:
                text = self._read(f"{base}/{folder.path}/{folders.MANIFEST}", 0)
            except FileNotFoundError:
                if self._size(base) is None:
                    raise OSError("it is not there") from None
                raise CheckpointDamaged(
                    f"{folder.path} is no longer in {self.address}/{self.name}."
                ) from None
            if hashlib.sha256(text).hexdigest() != folder.sha256:
                raise CheckpointDamaged(
                    f"{folder.path} in {self.address}/{self.name} is not the one that was recorded."
                )
            yield copies.Piece(folders.MANIFEST, 0, text)
        for name in json.loads(text):
            yield from self._pieces_of(folder, name)

    def _pieces_of(self, folder: StoredFolder, name: str) -> Iterator[copies.Piece]:
        folders.safe_path(Path(), name)
        offset = 0
        while True:
            with self._refused():
                try:
                    data = self._read(f"{self._place[1]}/{folder.path}/{name}", offset)
                except FileNotFoundError:
                    raise CheckpointDamaged(
                        f"{folder.path}/{name} is no longer in {self.address}/{self.name}."
                    ) from None
            yield copies.Piece(name, offset, data)
            if len(data) < _PIECE:
                return
            offset += len(data)

    def _size(self, path: str) -> int | None:
        """In bytes, 0 for a folder; None when nothing is there."""
        from pyarrow.fs import FileType

        found = self._place[0].get_file_info(path)
        return None if found.type == FileType.NotFound else found.size or 0

    def _read(self, path: str, offset: int) -> bytes:
        with self._place[0].open_input_file(path) as stream:
            left = max(0, stream.size() - offset)
            return bytes(stream.read_at(min(_PIECE, left), offset)) if left else b""

    def _write(self, path: str, data: Any) -> None:
        """Bytes, or what an open file holds."""
        with self._place[0].open_output_stream(path) as stream:
            if isinstance(data, bytes):
                stream.write(data)
            else:
                shutil.copyfileobj(data, stream, _PIECE)
        if self._is_mount:
            for written in (Path(path), Path(path).parent):
                folders.flush(written)

    @contextlib.contextmanager
    def _refused(self) -> Iterator[None]:
        """What pyarrow raises, in a sentence."""
        try:
            yield
        except (CheckpointDamaged, StorageFull):
            raise
        except OSError as error:
            raise StorageFull(
                f"storage={self.address!r} does not answer as it should: {_words(error)}. Training continues when it does."
            ) from error


def take_from(storages: Sequence[Storage], root: Path, folder: StoredFolder) -> None:
    """Bring a folder here from the first of some storages that has it; see ``Storage.take``."""
    having = (one for one in storages[1:] if one.has(folder))
    first = storages[0]
    (first if len(storages) == 1 or first.has(folder) else next(having, first)).take(root, folder)


def _manifest_last(name: str) -> tuple[bool, str]:
    return name == folders.MANIFEST, name


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
