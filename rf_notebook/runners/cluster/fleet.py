"""A fleet of workers on a cluster's nodes, as the kernel sees it."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from rf_notebook.runners.cluster.placing import Stay, stay_in
from rf_notebook.runners.fleet import WorkerFleet
from rf_notebook.runners.links import RemoteWorker, wait_until_gone
from rf_notebook.runners.messages import Gone, OpenExperiment
from rf_notebook.runners.process import Place, ProcessLink
from rf_notebook.runners.recipe import Recipe, pickled

if TYPE_CHECKING:
    from rf_notebook.core.cluster import Cluster
    from rf_notebook.core.fleet import DeviceFacts
    from rf_notebook.core.objects import Objects
    from rf_notebook.store.storage_place import StoragePlace

_CLOSE_SECONDS = 20.0


class ClusterFleet(WorkerFleet):
    """See core.fleet.Fleet."""

    def __init__(
        self,
        recipe: Recipe,
        objects: Objects,
        *,
        folder: Path,
        cluster: Cluster,
        devices: Sequence[DeviceFacts],
        storage: StoragePlace | None,
        log: logging.Logger,
    ) -> None:
        """Start the workers, as soon as the cluster has room for them.

        Args:
            recipe: What their runners are made of.
            objects: Functions and other values behind the configs' names; what a turn needs is sent
                with it.
            folder: The experiment's.
            cluster: Which one.
            devices: As the probe found them; the cluster may give others of their kind.
            storage: Where checkpoints lie; None for the experiment's folder.
            log: The experiment's.

        Raises:
            ConfigError: for what cannot be sent to another process.
        """
        stay = stay_in(cluster, [facts.name.rpartition("/")[2] for facts in devices], storage)
        opening = OpenExperiment(recipe=pickled(recipe, "the experiment"), folder=str(folder))
        self._bridge = Bridge(stay, folder, log)
        super().__init__(
            RemoteWorker(
                replace(facts, name=f"worker {number}"),
                partial(self._bridge.link, number - 1),
                opening,
                objects,
                log,
            )
            for number, facts in enumerate(devices, start=1)
        )

    def close(self) -> None:
        """See Fleet."""
        super().close()
        self._bridge.end()


class Bridge:
    """The process that joins the cluster; it is started again when it was lost."""

    def __init__(self, stay: Stay, folder: Path, log: logging.Logger) -> None:
        """Start nothing yet.

        Args:
            stay: Which cluster and which workers.
            folder: The experiment's.
            log: The experiment's.
        """
        self._stay = stay
        self._folder = folder
        self._log = log
        self._place = Place("cpu")
        self._process: ProcessLink | None = None
        self._pipes: list[Connection] = []

    def link(self, number: int) -> BridgeLink:
        """Of one worker; the first message through it starts that."""
        if self._process is None or not self._process.is_alive:
            self._start()
        assert self._process is not None
        return BridgeLink(self._process, self._pipes[number])

    def end(self) -> None:
        """Leave the cluster."""
        for pipe in self._pipes:
            pipe.close()
        if self._process is not None:
            self._process.end(_CLOSE_SECONDS)

    def _start(self) -> None:
        again = "" if self._process is None else "again"
        if self._process is not None:
            self._process.end(0.0)
        pairs = [Pipe() for _ in self._stay.devices]
        self._pipes = [ours for ours, _ in pairs]
        numbers = [theirs.fileno() for _, theirs in pairs]
        self._process = ProcessLink(
            self._place,
            "rf_notebook.runners.cluster.bridge",
            self._stay.as_text(),
            str(self._folder),
            again,
            *map(str, numbers),
            write_down=partial(self._log.info, "bridge: %s"),
            descriptors=numbers,
        )
        for _, theirs in pairs:
            theirs.close()


class BridgeLink:
    """See Link: one worker's pipe to the bridge, which outlives it."""

    def __init__(self, process: ProcessLink, pipe: Connection) -> None:
        """Say nothing yet.

        Args:
            process: The bridge.
            pipe: To it.
        """
        self._process = process
        self.pipe = pipe
        """See Link."""
        self._sending = threading.Lock()

    @property
    def pid(self) -> int:
        """See Link."""
        return self._process.pid

    def send(self, message: object) -> None:
        """See Link; any thread."""
        with self._sending, contextlib.suppress(OSError):
            self.pipe.send(message)

    def gone(self) -> Gone:
        """See Link; the worker is not to blame for it."""
        return replace(self._process.gone(), was_killed=True)

    def kill(self) -> None:
        """See Link; all workers of the bridge end."""
        self._process.kill()

    def end(self, seconds: float) -> None:
        """See Link; the pipe stays for the next worker."""
        wait_until_gone(self.pipe, seconds)
