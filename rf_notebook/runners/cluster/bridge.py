"""The bridge: the process that joins a cluster for the kernel, and carries the messages of its workers.

Started by ``fleet.py``. It ends with the kernel, whose pipes close then, and with it its actors.
"""

from __future__ import annotations

import contextlib
import threading
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rf_notebook.core.errors import ConfigError, StorageFull
from rf_notebook.runners.cluster.carried import Carried, call_of
from rf_notebook.runners.cluster.files import NodeFiles, Stored
from rf_notebook.runners.cluster.joining import joined
from rf_notebook.runners.cluster.placing import Stay, settled, started
from rf_notebook.runners.ending import end_with_parent

#: How long a device is waited for.
_PLACE_SECONDS = 120.0


def main(_descriptor: str, text: str, folder: str, again: str, *pipes: str) -> None:
    """Carry until the kernel closes the pipes.

    Args:
        _descriptor: Of a pipe that only tells the kernel that this process is there.
        text: A Stay.
        folder: The experiment's.
        again: "again" when the cluster was there before, so that it is waited for.
        pipes: Descriptors, one for each worker.
    """
    end_with_parent()
    stay = Stay.from_text(text)
    try:
        ray = joined(stay.cluster, again=bool(again))
    except ConfigError as error:
        raise SystemExit(str(error)) from None
    nodes = Nodes(Path(folder), None if stay.storage is None else Stored())
    threads = [
        threading.Thread(
            target=Carried(
                Connection(int(pipe)), partial(_placed, ray, stay, device, nodes), ray
            ).serve
        )
        for pipe, device in zip(pipes, stay.devices, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ray.shutdown()


class Nodes:
    """What each node of the cluster has of the experiment's files; any thread."""

    def __init__(self, folder: Path, stored: Stored | None) -> None:
        """None is known.

        Args:
            folder: The experiment's, here.
            stored: What the storage has, when checkpoints lie in one.
        """
        self._folder = folder
        self.stored = stored
        """See above."""
        self._files: dict[str, NodeFiles] = {}
        self._lock = threading.Lock()

    def files(self, identity: str) -> NodeFiles:
        """Of one node, by the identity of its folder; one that was made again is empty."""
        with self._lock:
            return self._files.setdefault(identity, NodeFiles(self._folder, self.stored))


def _placed(ray: Any, stay: Stay, device: str, nodes: Nodes) -> Any:
    actor = started(ray, stay, device)
    facts = settled(ray, stay, actor, _PLACE_SECONDS)
    if nodes.stored is not None:
        try:
            with contextlib.suppress(StorageFull):  # what needs it waits for it
                nodes.stored.enter(call_of(ray, actor))
        except ConfigError:
            ray.kill(actor)
            raise
    return actor, facts, nodes.files(facts.folder_identity)
