"""On a node: carries messages and files between the bridge and a worker process.

It trains nothing and imports little, so that it always answers. Every call can be made again: a
cluster may lose an answer and keep the actor.
"""

from __future__ import annotations

import math
import pickle
import platform
import shutil
import socket
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import ray

from rf_notebook.core.errors import CheckpointDamaged, ConfigError, StorageFull
from rf_notebook.core.fleet import Leaving
from rf_notebook.core.versions import versions
from rf_notebook.runners.cluster.scratch import Scratch
from rf_notebook.runners.messages import LogLine, OpenExperiment
from rf_notebook.runners.probe import probed
from rf_notebook.runners.process import Place, ProcessLink, worker_link
from rf_notebook.store import copies, folders
from rf_notebook.store.storage import take_from

if TYPE_CHECKING:
    from rf_notebook.core.fleet import DeviceFacts
    from rf_notebook.core.run import StoredFolder
    from rf_notebook.store.storage_place import StoragePlace

_INFO = 20
#: Between two looks at whether the node is being drained.
_LOOK_SECONDS = 1.0
#: Threads of their own for what waits for messages, and for what reads and writes files.
GROUPS = {"waits": 1, "files": 2}
_waits, _files = (ray.method(concurrency_group=group) for group in GROUPS)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What a node is, for whoever may train on it."""

    node: str
    """Ray's id."""
    host: str
    folder: str
    """Where the experiment's files are there, absolute."""
    folder_identity: str
    """Changes when the folder was removed and made again."""
    python: str
    versions: Mapping[str, str]


class Carrier:
    """See the module; an actor, each of whose groups of methods has threads of its own."""

    def __init__(self, token: str, device: str, storage: StoragePlace | None = None) -> None:
        """Start nothing yet.

        Args:
            token: Of the experiment's stay in the cluster.
            device: What the worker sees: "cpu", "cuda:0", or several joined by "+".
            storage: Where its checkpoints lie, when that is not the kernel's machine.
        """
        self._token = token
        self._scratch = Scratch(token)
        self._storages = () if storage is None else storage.opened()
        self._device = device
        self._link: ProcessLink | None = None
        self._words: deque[str] = deque()
        self._taken = 0
        """Messages that were passed to the worker."""
        self._said: dict[int, bytes] = {}
        """What the worker said and nobody has confirmed, by number."""
        self._number = 0
        """Of the newest of them."""
        self._looks_at = 0.0
        """When it is looked whether the node is being drained; never again once it is."""

    def node(self) -> NodeFacts:
        """What this node is."""
        return NodeFacts(
            node=ray.get_runtime_context().get_node_id(),
            host=socket.gethostname(),
            folder=str(self._scratch.path),
            folder_identity=self._scratch.identity,
            python=platform.python_version(),
            versions=versions(),
        )

    def facts(self) -> DeviceFacts:
        """What the device is; asked in a process that ends."""
        return probed([self._device])[0]

    def say(self, number: int, message: bytes) -> None:
        """Pass a message to the worker; the first one starts it.

        Args:
            number: Counts up; one that was passed is not passed again.
            message: Pickled.
        """
        if number <= self._taken:
            return
        self._taken = number
        if self._link is None:
            place = Place(self._device, self._scratch.path)
            self._link = worker_link(place, self._words.append)
            opening: OpenExperiment = pickle.loads(message)
            opening = replace(opening, folder=str(self._scratch.path))
            self._link.send(opening)
            return
        self._link.send_bytes(message)

    @_waits
    def hear(self, after: int, seconds: float) -> list[tuple[int, bytes]]:
        """What the worker has said, numbered and pickled; the last of all is a Gone.

        Args:
            after: Up to this number all has arrived.
            seconds: How long to wait for something new.
        """
        for number in [number for number in self._said if number <= after]:
            del self._said[number]
        if self._link is not None:
            self._look_for_notice()
        if self._link is not None and not self._said:
            self._listen(self._link, seconds)
        return list(self._said.items())

    @_files
    def names(self, relative: str) -> list[str]:
        """The files of a folder."""
        return copies.names_in(folders.safe_path(self._scratch.path, relative))

    @_files
    def read(self, relative: str, name: str, offset: int) -> bytes:
        """Some bytes of a file of a folder."""
        return copies.read_piece(folders.safe_path(self._scratch.path, relative), name, offset)

    @_files
    def write(self, relative: str, name: str, offset: int, data: bytes) -> None:
        """Add the next piece to a file of a folder that is not there yet."""
        place = self._unfinished(relative)
        copies.write_piece(place, copies.Piece(name, offset, data))

    @_files
    def finish(self, relative: str) -> None:
        """All of a folder was written: give it its name."""
        place, target = self._unfinished(relative), self._scratch.path / relative
        if place.exists():
            shutil.rmtree(target, ignore_errors=True)
            place.rename(target)

    @_files
    def remove(self, relative: str) -> None:
        """Delete a folder."""
        folders.remove_folder(self._scratch.path, relative)

    @_files
    def enter_storage(self, is_first: bool) -> ConfigError | StorageFull | None:
        """Whether this node reaches the storage that the others do; why not, when it does not."""
        try:
            self._storages[0].enter(self._token, is_first=is_first)
        except (ConfigError, StorageFull) as error:
            return error
        return None

    @_files
    def leave_storage(self) -> None:
        """The storage was only tried: nothing of it stays."""
        self._storages[0].leave()

    @_files
    def stored(self) -> list[str]:
        """What the storage has of runs; nothing when nobody can say."""
        try:
            return self._storages[0].folders()
        except StorageFull:
            return []

    @_files
    def store(self, relative: str) -> StorageFull | None:
        """Copy a folder to the storage; why not, when that takes it not."""
        try:
            self._storages[0].put(self._scratch.path, relative)
        except StorageFull as error:
            return error
        return None

    @_files
    def bring(self, folder: StoredFolder) -> CheckpointDamaged | StorageFull | None:
        """Have a folder of the storage here; why not, when that is not possible."""
        try:
            take_from(self._storages, self._scratch.path, folder)
        except (CheckpointDamaged, StorageFull) as error:
            return error
        return None

    @_files
    def unstore(self, relative: str) -> bool:
        """Delete a folder of the storage; whether it is gone."""
        try:
            self._storages[0].remove(relative)
        except StorageFull:
            return False
        return True

    def close(self) -> None:
        """End the worker, and remove the files where nobody else needs them."""
        if self._link is not None:
            self._link.end(0.0)
        self._scratch.close()

    def _unfinished(self, relative: str) -> Any:
        target = folders.safe_path(self._scratch.path, relative)
        return target.with_name(f".writing-{target.name}")

    def _look_for_notice(self) -> None:
        """Tell once when the node is about to go: it is preempted, scaled down, or drained by hand."""
        if time.monotonic() < self._looks_at:
            return
        self._looks_at = time.monotonic() + _LOOK_SECONDS
        until = _drained_at()
        if until is None:
            return
        self._looks_at = math.inf
        seconds = until - time.time()
        reason = "its node is drained" + (f", in {seconds:.0f} s" if seconds > 0 else "")
        self._keep(pickle.dumps(Leaving(reason=reason)))

    def _listen(self, link: ProcessLink, seconds: float) -> None:
        """Wait for something that the worker says, and take all that there is."""
        try:
            is_there = link.pipe.poll(seconds)
            self._take_words()
            while is_there:
                self._keep(link.pipe.recv_bytes())
                is_there = link.pipe.poll(0)
        except (EOFError, OSError):
            gone = link.gone()
            self._take_words()
            self._keep(pickle.dumps(gone))

    def _take_words(self) -> None:
        while self._words:
            self._keep(pickle.dumps(LogLine(level=_INFO, text=self._words.popleft())))

    def _keep(self, message: bytes) -> None:
        self._number += 1
        self._said[self._number] = message


def _drained_at() -> float | None:
    """When this node is taken away, in Unix time, 0.0 for any time now; None when nobody says so."""
    try:
        from ray._private.state import state  # it is said nowhere else (2.60)

        found = state.get_draining_nodes().get(ray.get_runtime_context().get_node_id())
    except Exception:  # noqa: BLE001 - the head is away, or this Ray says it elsewhere: nobody knows, and training goes on
        return None
    return None if found is None else found / 1000
