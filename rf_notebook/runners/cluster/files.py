"""Which folders of the experiment does a node have? They travel before the messages that name them.

Through the kernel's machine, or through a storage, and then their manifests alone are here. Copies
follow the experiment's folder: what is deleted there is deleted on the nodes and in the storage.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rf_notebook.core.errors import CheckpointDamaged
from rf_notebook.core.run import StoredFolder
from rf_notebook.store import copies, folders, layout

#: Calls a method of an actor by its name, and waits for what it answers.
Call = Callable[..., Any]


def folders_in(message: Any) -> Iterator[StoredFolder]:
    """The folders that a message names, however deep."""
    if isinstance(message, StoredFolder):
        yield message
    elif is_dataclass(message):
        for one in fields(message):
            yield from folders_in(getattr(message, one.name))
    elif isinstance(message, list | tuple):
        for part in message:
            yield from folders_in(part)


class Stored:
    """What a storage holds of an experiment, for all nodes; any thread."""

    def __init__(self) -> None:
        """Nothing is known to be there."""
        self.paths: set[str] = set()
        self._lock = threading.Lock()
        self.is_entered = False
        """Whether a node was there."""

    def enter(self, call: Call) -> None:
        """Let a node show that it reaches what the others do.

        Args:
            call: See ``NodeFiles``.

        Raises:
            ConfigError: when it reaches another place.
            StorageFull: when it does not answer now.
        """
        with self._lock:
            error = call("enter_storage", not self.is_entered)
            if error is not None:
                raise error
            if not self.is_entered:  # what was left there by whoever was killed
                self.paths |= set(call("stored"))
            self.is_entered = True

    def forget_deleted(self, folder: Path, call: Call) -> None:
        """Delete there what was deleted in the experiment's folder."""
        with self._lock:
            for path in sorted(self.paths):
                if not (folder / path).exists() and call("unstore", path):
                    self.paths.discard(path)


class NodeFiles:
    """Of one node, for all its workers; any thread.

    Its methods take a ``call``, which calls a method of an actor on that node and waits for what it
    answers.
    """

    def __init__(self, folder: Path, stored: Stored | None = None) -> None:
        """Nothing is there yet.

        Args:
            folder: The experiment's, here.
            stored: What the storage has, when checkpoints lie in one.
        """
        self._folder = folder
        self._stored = stored
        self._there: set[str] = set()
        self._lock = threading.Lock()

    def send_data(self, call: Call) -> None:
        """Send the data that lies in the experiment's folder, unless it is there."""
        data = layout.data(self._folder)
        if data.exists():
            with self._lock:
                self._send(data.relative_to(self._folder).as_posix(), call)

    def send(self, named: Iterable[StoredFolder], call: Call) -> list[str]:
        """Send folders that are not there yet.

        Args:
            named: What a message names; one that was deleted meanwhile, or is damaged, whoever needs
                it misses.
            call: See the class.

        Returns:
            What is damaged in the storage, in sentences.

        Raises:
            StorageFull: when the storage does not answer, or there is no room on the node.
        """
        damaged = []
        with self._lock:
            for folder in named:
                if folders.is_stand_in(self._folder, folder.path):
                    try:
                        self._bring(folder, call)
                    except CheckpointDamaged as error:
                        damaged.append(str(error))
                elif (self._folder / folder.path).exists():
                    self._send(folder.path, call)
        return damaged

    def fetch(self, named: Iterable[StoredFolder], call: Call) -> None:
        """Bring folders here that the node has written, or to the storage.

        Args:
            named: What a message names.
            call: See the class.

        Raises:
            StorageFull: when there is no room here, or the storage does not take it.
            CheckpointDamaged: when one arrived otherwise than it was written.
        """
        for folder in named:
            if self._stored is None:
                copies.take_folder(self._folder, folder, _pieces(folder.path, call))
            elif not (self._folder / folder.path).exists():
                self._store(folder, self._stored, call)
            self._there.add(folder.path)

    def fetch_export(self, relative: str, target: Path, call: Call) -> None:
        """Bring a folder to a place of the user's, and delete it there."""
        for piece in _pieces(relative, call):
            copies.write_piece(target, piece)
        call("remove", relative)

    def forget_deleted(self, call: Call) -> None:
        """Delete there what was deleted here."""
        for path in sorted(self._there):
            if not (self._folder / path).exists():
                self._there.discard(path)
                call("remove", path)
        self.forget_stored(call)

    def forget_stored(self, call: Call) -> None:
        """Delete in the storage what was deleted here."""
        if self._stored is not None:
            self._stored.forget_deleted(self._folder, call)

    def _store(self, folder: StoredFolder, stored: Stored, call: Call) -> None:
        if not stored.is_entered:
            stored.enter(call)
        error = call("store", folder.path)
        if error is not None:
            raise error
        manifest = call("read", folder.path, folders.MANIFEST, 0)
        folders.write_stand_in(self._folder, folder, manifest)
        stored.paths.add(folder.path)

    def _bring(self, folder: StoredFolder, call: Call) -> None:
        if folder.path in self._there:
            return
        error = call("bring", folder)
        if error is not None:
            raise error
        self._there.add(folder.path)

    def _send(self, relative: str, call: Call) -> None:
        if relative in self._there:
            return
        for piece in copies.pieces_of(self._folder / relative):
            call("write", relative, piece.name, piece.offset, piece.data)
        call("finish", relative)
        self._there.add(relative)


def _pieces(relative: str, call: Call) -> Iterator[copies.Piece]:
    return copies.pieces(call("names", relative), partial(call, "read", relative))
