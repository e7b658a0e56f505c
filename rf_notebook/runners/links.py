"""A worker process as the kernel sees it, wherever it runs."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Protocol

from rf_notebook.core.fleet import DeviceFacts, Lost, Message
from rf_notebook.core.run import RunConfig, objects_in, secrets_in
from rf_notebook.runners.messages import (
    Bring,
    Gone,
    Live,
    LogLine,
    MemoryInUse,
    OpenExperiment,
    Placed,
    Ready,
)
from rf_notebook.runners.recipe import pickled

if TYPE_CHECKING:
    from rf_notebook.core.objects import Objects
    from rf_notebook.core.runner import Saved


class Link(Protocol):
    """The way to one process, from its start to its end."""

    @property
    def pid(self) -> int:
        """Of the process on this machine that answers."""

    @property
    def pipe(self) -> Connection:
        """What the process says; it ends with the process, or with a Gone."""

    def send(self, message: object) -> None:
        """Say something; a process that is gone hears nothing; any thread."""

    def gone(self) -> Gone:
        """Why the process ended; called once the pipe has."""

    def kill(self) -> None:
        """End it at once; any thread."""

    def end(self, seconds: float) -> None:
        """Let go, after so many seconds for the process to end by itself."""


def wait_until_gone(pipe: Connection, seconds: float) -> None:
    """Hear the last words of a worker whose pipe outlives it, for at most so many seconds."""
    until = time.monotonic() + seconds
    with contextlib.suppress(EOFError, OSError):
        while (left := until - time.monotonic()) > 0 and pipe.poll(left):
            if isinstance(pipe.recv(), Gone):
                return


class RemoteWorker:
    """One device's process; one that was lost can be started again."""

    def __init__(
        self,
        facts: DeviceFacts,
        start: Callable[[], Link],
        opening: OpenExperiment,
        objects: Objects,
        log: logging.Logger,
    ) -> None:
        """Start it.

        Args:
            facts: What is known of the device; its name is the fleet's.
            start: Starts the process.
            opening: The first message.
            objects: Functions and other values behind the configs' names.
            log: The experiment's.
        """
        self.facts = facts
        self._start_link = start
        self._opening = opening
        self._objects = objects
        self._log = log
        self._is_abandoned = False
        self._is_ready = False
        """Whether the process has begun to listen."""
        self._start()

    @property
    def pid(self) -> int:
        """Of the process on this machine that answers."""
        return self._link.pid

    @property
    def pipe(self) -> Connection:
        """What the process says."""
        return self._link.pipe

    def send(self, message: object, *configs: RunConfig) -> None:
        """Say something; a process that is gone hears nothing, and ``hear`` tells of it.

        Args:
            message: What.
            configs: What they refer to is sent before, unless it was.
        """
        for config in configs:
            self._bring(config)
        self._link.send(message)

    def hear(self) -> Message | Live | Saved | Ready | None:
        """The next message, when the pipe has one; None for what only this end needs to know."""
        try:
            said = self.pipe.recv()
        except (EOFError, OSError):
            said = self._link.gone()
        match said:
            case Gone():
                self.is_lost = True
                return Lost(
                    reason=said.reason, was_ready=self._is_ready, was_killed=said.was_killed
                )
            case LogLine():
                self._log.log(said.level, "%s: %s", self.facts.name, said.text)
                return None
            case Placed():
                self.facts = replace(self.facts, host=said.host)
                return None
            case MemoryInUse():
                self.facts = replace(self.facts, used_bytes=said.used, total_bytes=said.total)
                return None
            case Ready():
                self._is_ready = True
                self.facts = replace(self.facts, environment=said.environment)
        heard: Message | Live | Saved | Ready = said
        return heard

    def restart(self) -> None:
        """Start a process again that was lost."""
        self._link.end(0.0)
        if not self._is_abandoned:
            self._start()

    def abandon(self) -> None:
        """Let it give up at once; any thread."""
        self._is_abandoned = True
        self._link.kill()

    def close(self, seconds: float) -> None:
        """Let go, after so many seconds for the process to end, as it was told to."""
        self._link.end(seconds)

    def _start(self) -> None:
        self.is_lost = False
        """Whether it was told that the process is gone."""
        self._is_ready = False
        self._sent: dict[str, int] = {}
        """Ids of the objects that the process has, by name."""
        self._link: Link = self._start_link()
        self.send(self._opening)

    def _bring(self, config: RunConfig) -> None:
        """Send what a config refers to and the worker does not have yet, or has another value of."""
        body = config.as_json()
        names = [*objects_in(body), *(f"secret {name}" for name in secrets_in(body))]
        values = {name: self._objects.get(name) for name in names}
        new = {name: value for name, value in values.items() if self._sent.get(name) != id(value)}
        if new:
            self.send(
                Bring(
                    values={
                        name: pickled(value, name.partition("@")[0]) for name, value in new.items()
                    }
                )
            )
            self._sent |= {name: id(value) for name, value in new.items()}
