"""One worker's messages, between the kernel's pipe and an actor on a node.

A first message starts an actor; the last one to the kernel is a Gone. After that the kernel may start
the next one: what an earlier actor still says is dropped, so a node that was away and comes back
changes nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import queue
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rf_notebook.core.errors import CheckpointDamaged, ConfigError, StorageFull
from rf_notebook.core.fleet import Answer, TurnFailed, TurnOver
from rf_notebook.core.runner import Saved, WriteModel
from rf_notebook.runners.cluster.files import Call, NodeFiles, folders_in
from rf_notebook.runners.messages import Ask, Begin, Close, Gone, LogLine, OpenExperiment, Placed

if TYPE_CHECKING:
    from rf_notebook.runners.cluster.carrier import NodeFacts

#: How long an actor waits for something to tell.
_HEAR_SECONDS = 5.0
#: How long an actor may be out of reach.
_AWAY_SECONDS = 60.0
_PAUSE_SECONDS = 0.5
_CLOSE_SECONDS = 10.0


@dataclass(slots=True, eq=False)
class Actor:
    """A carrier, and what was said to it."""

    handle: Any
    """Ray's."""
    call: Call
    """Calls a method of it."""
    facts: NodeFacts
    files: NodeFiles
    said: int = 0
    """Messages to it, so far."""

    def say(self, message: object) -> None:
        """Pass a message to the worker."""
        self.said += 1
        self.call("say", self.said, pickle.dumps(message))


class Carried:
    """The worker behind one pipe."""

    def __init__(
        self,
        pipe: Connection,
        place: Callable[[], tuple[Any, NodeFacts, NodeFiles]],
        ray: Any,
    ) -> None:
        """Nothing is started before the kernel says so.

        Args:
            pipe: To the kernel.
            place: Starts an actor, and waits for it.
            ray: The module, connected.
        """
        self._pipe = pipe
        self._place = place
        self._ray = ray
        self._actor: Actor | None = None
        self._sending = threading.Lock()
        self._hearing: list[threading.Thread] = []
        """Of actors; that of the newest one is the last."""
        self._exports: dict[int, tuple[str, Path]] = {}
        """Folders of models that are being written on the node, and where the user wants them; by
        errand."""
        self._heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        """What the kernel said; None when it is over."""

    def serve(self) -> None:
        """Carry until the kernel closes the pipe."""
        # The kernel never waits for the cluster.
        threading.Thread(target=self._hear_kernel, daemon=True).start()
        while (said := self._heard.get()) is not None:
            try:
                self._pass(said)
            except self._ray.exceptions.RayError as error:
                self._lose(self._actor, _lost(error))
            except BaseException:  # noqa: BLE001 - whatever it is, the kernel is told, and starts anew
                _give_up()
        actor, self._actor = self._actor, None
        self._end(actor)
        for thread in self._hearing:  # one that was told of a Gone ends its actor
            thread.join()

    def _hear_kernel(self) -> None:
        try:
            while True:
                self._heard.put(self._pipe.recv())
        except (EOFError, OSError):
            self._heard.put(None)

    # ---- to the worker

    def _pass(self, said: Any) -> None:
        if isinstance(said, OpenExperiment):
            self._open(said)
            return
        actor = self._actor
        if actor is None:
            if isinstance(said, Close):
                self._tell(Gone(reason="it was closed"))
            return
        if isinstance(said, Begin | Ask):
            try:
                for words in actor.files.send(folders_in(said), actor.call):
                    self._tell(LogLine(level=logging.WARNING, text=words))
            except StorageFull as error:  # or it does not answer
                self._tell(
                    TurnFailed(turn=said.turn.turn, error=error)
                    if isinstance(said, Begin)
                    else Answer(errand=said.errand, error=error)
                )
                return
        if isinstance(said, Ask) and isinstance(said.what, WriteModel):
            refusal = self._redirect(said.errand, said.what)
            if refusal is not None:
                self._tell(refusal)
                return
            relative = self._exports[said.errand][0]
            said = replace(said, what=replace(said.what, path=f"{actor.facts.folder}/{relative}"))
        actor.say(said)

    def _open(self, opening: OpenExperiment) -> None:
        errors = self._ray.exceptions
        self._end(self._actor)
        self._actor = None
        try:
            handle, facts, files = self._place()
        except (ConfigError, errors.RayTaskError, errors.RayActorError) as error:
            self._tell(_lost(error))
            return
        except errors.RayError:  # not a worker, but the cluster is gone
            _give_up()
        actor = Actor(handle, call_of(self._ray, handle), facts, files)
        self._actor = actor
        self._tell(Placed(host=facts.host))
        try:
            files.send_data(actor.call)
            actor.say(opening)
        except self._ray.exceptions.RayError as error:
            self._lose(actor, _lost(error))
            return
        thread = threading.Thread(target=self._hear_worker, args=(actor,), daemon=True)
        self._hearing = [*(one for one in self._hearing if one.is_alive()), thread]
        thread.start()

    def _redirect(self, errand: int, what: WriteModel) -> Answer | None:
        """Have a model written where it can be brought from; the answer when it cannot."""
        target = Path(what.path)
        if target.exists() and any(target.iterdir()):
            return Answer(
                errand=errand,
                error=ConfigError(f"{target} is not empty; export to a new folder."),
            )
        self._exports[errand] = (f"exports/{errand}", target)
        return None

    # ---- from the worker

    def _hear_worker(self, actor: Actor) -> None:
        after = 0
        while self._actor is actor:
            try:
                for number, message in actor.call("hear", after, _HEAR_SECONDS):
                    after = number
                    said = self._with_files(actor, pickle.loads(message))
                    if isinstance(said, Gone):
                        self._lose(actor, said)
                        return
                    if self._actor is actor:
                        self._tell(said)
            except self._ray.exceptions.RayError as error:
                self._lose(actor, _lost(error))
                return
            except CheckpointDamaged as error:
                self._lose(actor, Gone(reason=str(error), was_killed=True))
                return
            except BaseException:  # noqa: BLE001 - as in ``serve``
                if self._actor is actor:
                    _give_up()
                return

    def _with_files(self, actor: Actor, said: Any) -> Any:
        """A message, once the folders that it names are here; what it says when they cannot be."""
        try:
            actor.files.fetch(folders_in(said), actor.call)
            if isinstance(said, Answer) and said.errand in self._exports:
                relative, target = self._exports.pop(said.errand)
                if said.error is None:
                    actor.files.fetch_export(relative, target, actor.call)
        except CheckpointDamaged:  # on the way: the node is not to be trusted
            raise
        except OSError as error:
            match said:
                case TurnOver():
                    return TurnFailed(turn=said.turn, error=error)
                case Saved():
                    return replace(said, checkpoint=None, error=error)
                case Answer():
                    return replace(said, value=None, error=error)
            raise
        if isinstance(said, TurnOver):
            actor.files.forget_deleted(actor.call)
        return said

    # ---- ends

    def _lose(self, actor: Actor | None, gone: Gone) -> None:
        """Tell the kernel once that an actor or its worker is gone."""
        with self._sending:
            if actor is None or self._actor is not actor:
                return
            self._actor = None
            self._send(gone)
        self._end(actor)

    def _end(self, actor: Actor | None) -> None:
        if actor is None:
            return
        within = partial(self._ray.get, timeout=_CLOSE_SECONDS)
        gone = self._ray.exceptions.RayError, ConnectionError
        with contextlib.suppress(*gone):
            actor.files.forget_stored(
                lambda method, *arguments: within(getattr(actor.handle, method).remote(*arguments))
            )
        with contextlib.suppress(*gone):
            within(actor.handle.close.remote())
        with contextlib.suppress(*gone):
            self._ray.kill(actor.handle)

    def _tell(self, message: object) -> None:
        with self._sending:
            self._send(message)

    def _send(self, message: object) -> None:
        try:
            self._pipe.send(message)
        except OSError:
            self._heard.put(None)  # the kernel is gone


def call_of(ray: Any, handle: Any) -> Call:
    """Calls a method of an actor; see ``called``."""
    return partial(called, ray, handle)


def called(ray: Any, handle: Any, method: str, *arguments: Any) -> Any:
    """What a method of an actor answers; one that is out of reach for a while is asked again.

    Raises:
        RayError: when it is gone.
    """
    until = time.monotonic() + _AWAY_SECONDS
    while True:
        try:
            return ray.get(getattr(handle, method).remote(*arguments))
        except ray.exceptions.ActorUnavailableError:
            if time.monotonic() > until:
                raise
            time.sleep(_PAUSE_SECONDS)


def _give_up() -> NoReturn:
    """End the bridge for what nobody expected, with its traceback: the kernel starts another one."""
    traceback.print_exc()
    os._exit(1)


def _lost(error: BaseException) -> Gone:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    words = lines[0] if lines else type(error).__name__
    return Gone(reason=f"the cluster lost it: {words.rstrip('.')[:300]}", was_killed=True)
