"""A worker as on a cluster's node, without the cluster: its messages and files are carried."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import ray

from rf_notebook.runners.cluster.carried import Carried, call_of
from rf_notebook.runners.cluster.carrier import Carrier, NodeFacts
from rf_notebook.runners.cluster.files import NodeFiles, Stored
from rf_notebook.runners.links import wait_until_gone
from rf_notebook.runners.messages import Gone
from rf_notebook.runners.process import ProcessLink
from rf_notebook.store.storage_place import StoragePlace

_START_SECONDS = 60.0


class Handle:
    """An actor's: calls are made when their answers are asked for."""

    def __init__(self, actor: Carrier) -> None:
        self.actor = actor

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.actor, name)

        class Method:
            @staticmethod
            def remote(*arguments: Any) -> Any:
                return partial(method, *arguments)

        return Method


class OnNode(Carrier):
    """An actor, which says where its files are and what it has started."""

    def enter_storage(self, is_first: bool) -> Any:
        self._token = "test"  # each worker has a node of its own here, and a folder of its own name
        return super().enter_storage(is_first)

    @property
    def worker(self) -> ProcessLink | None:
        return self._link

    def where(self) -> NodeFacts:
        return NodeFacts(
            node="n",
            host="h",
            folder=str(self._scratch.path),
            folder_identity=self._scratch.identity,
            python="3",
            versions={},
        )


class NoCluster:
    """See the module ray."""

    exceptions = ray.exceptions

    def get(self, call: Any, timeout: float | None = None) -> Any:
        return call()

    def kill(self, handle: Any) -> None:
        """Nothing is left of it."""


class CarriedLink:
    """See Link: a kernel's pipe, a bridge's thread, an actor, and the worker process on its node."""

    def __init__(
        self, folder: Path, stored: Stored | None = None, place: StoragePlace | None = None
    ) -> None:
        self._files = NodeFiles(folder, stored)
        self._stored, self._storage = stored, place
        self._actor: OnNode | None = None
        self.pipe, theirs = Pipe()
        self._sending = threading.Lock()
        self._thread = threading.Thread(
            target=Carried(theirs, self._place, NoCluster()).serve, daemon=True
        )
        self._thread.start()

    def _place(self) -> tuple[Handle, NodeFacts, NodeFiles]:
        self._actor = OnNode(f"test-{secrets.token_hex(8)}", "cpu", self._storage)
        if self._stored is not None:
            self._stored.enter(call_of(NoCluster(), Handle(self._actor)))
        return Handle(self._actor), self._actor.where(), self._files

    @property
    def pid(self) -> int:
        until = time.monotonic() + _START_SECONDS
        while self._actor is None or self._actor.worker is None:
            assert time.monotonic() < until, "the worker did not start"
            time.sleep(0.01)
        return self._actor.worker.pid

    def send(self, message: object) -> None:
        with self._sending, contextlib.suppress(OSError):
            self.pipe.send(message)

    def gone(self) -> Gone:
        return Gone(reason="the bridge is gone")

    def kill(self) -> None:
        if self._actor is not None and self._actor.worker is not None:
            self._actor.worker.kill()

    def end(self, seconds: float) -> None:
        wait_until_gone(self.pipe, seconds)
        self.pipe.close()
        self._thread.join(_START_SECONDS)
