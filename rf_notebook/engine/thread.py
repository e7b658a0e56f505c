"""The engine's thread, its lease-keeper, and how both end with the process."""

from __future__ import annotations

import atexit
import contextlib
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from rf_notebook.core.errors import IllegalOperation, LeaseLost, RFNotebookError
from rf_notebook.engine.journal import Closing
from rf_notebook.engine.turns import Idle, Paused
from rf_notebook.store.lease import RENEW_EVERY_SECONDS

if TYPE_CHECKING:
    from rf_notebook.core.ports import EventStore
    from rf_notebook.engine.loop import Engine

#: Seconds that the end of the process waits for the step in progress.
EXIT_SECONDS = 4.0
_ROOM_POLL_SECONDS = 3.0
#: Turns that fail one after another, for a reason that is not a run's, before the engine gives up.
_MOST_FAILED_TURNS = 5
_RETRY_SECONDS = 0.5


class EngineThread:
    """Turns an engine until it is told to end.

    The thread is a daemon, so that it never keeps a process alive; an exit handler asks it to give
    up first, so that no thread of it runs native code while the interpreter goes down.
    """

    def __init__(
        self,
        make_engine: Callable[[Callable[[], bool]], Engine],
        store: EventStore,
        *,
        fence: int,
        name: str,
        surroundings: Callable[[], AbstractContextManager[None]] = nullcontext,
        log: logging.Logger,
    ) -> None:
        """Nothing runs before ``start``.

        Args:
            make_engine: Gets what the engine calls while the disk is full.
            store: The engine's store; its lease is renewed here.
            fence: The lease's fence.
            name: The experiment's name, for the thread's name.
            surroundings: Entered by the thread for as long as it runs.
            log: The experiment's.
        """
        self._store = store
        self._fence = fence
        self._surroundings = surroundings
        self._log = log
        self._ending = threading.Event()
        self._abandoned = False
        self.error: BaseException | None = None
        """Why the thread ended, when it was not asked to."""
        self.engine = make_engine(self._wait_for_room)
        self._thread = threading.Thread(target=self._main, name=f"rf-engine-{name}", daemon=True)
        self._keeper = threading.Thread(
            target=self._keep_lease, name=f"rf-lease-{name}", daemon=True
        )

    def start(self) -> None:
        """Begin to take turns."""
        atexit.register(self._at_exit)
        self._thread.start()
        self._keeper.start()

    @property
    def is_alive(self) -> bool:
        """Whether operations will be obeyed."""
        return self._thread.is_alive()

    def end(self, timeout: float | None = None, *, abandon: bool = False) -> bool:
        """Ask for the end and wait for it.

        Args:
            timeout: Seconds to wait.
            abandon: Give up inside the step in progress instead of finishing it.

        Returns:
            Whether the thread has ended.
        """
        self._abandoned = self._abandoned or abandon
        self._ending.set()
        self.engine.mailbox.wake()
        self.engine.interrupt()
        if abandon:
            self.engine.fleet.abandon()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        atexit.unregister(self._at_exit)
        return not self._thread.is_alive()

    # ---- the thread

    def _main(self) -> None:
        with self._surroundings():
            try:
                self._turns()
                if not self._abandoned:
                    self.engine.settle()
            except Closing:
                pass
            except LeaseLost as error:
                self.error = error
                self._log.warning("%s", error)
            except BaseException as error:  # noqa: BLE001 - shown to those who wait; a dead thread must not be silent
                self.error = error
                self._log.error("the engine ended: %s", traceback.format_exc())
            finally:
                self._close()

    def _turns(self) -> None:
        failed = 0
        while not self._ending.is_set():
            try:
                turn = self.engine.turn()
            except (Closing, LeaseLost):
                raise
            except BaseException:
                # What can be blamed on one run, a letter or a policy never comes here. What does
                # may pass.
                failed += 1
                if self._abandoned or failed == _MOST_FAILED_TURNS:
                    raise
                self._log.error("a turn failed, and is tried again: %s", traceback.format_exc())
                self._ending.wait(failed * _RETRY_SECONDS)
                continue
            failed = 0
            if isinstance(turn, Idle):
                self.engine.mailbox.settle()
            if isinstance(turn, Idle | Paused):
                self._rest()

    def _rest(self) -> None:
        mailbox = self.engine.mailbox
        self.engine.publisher.changed()
        if not self._ending.is_set():
            mailbox.wait(RENEW_EVERY_SECONDS)

    def _close(self) -> None:
        self._ending.set()  # also of the thread that keeps the lease
        reason: Exception
        if isinstance(self.error, RFNotebookError):
            reason = self.error
        elif self.error is not None:
            reason = IllegalOperation(
                f"the engine ended with {type(self.error).__name__}: {self.error}"
            )
        else:
            reason = IllegalOperation(
                "the experiment has ended; call run_fit again to continue its runs."
            )
        self.engine.mailbox.close(reason)
        try:
            if not self._abandoned:
                self.engine.fleet.close()
        except BaseException:  # noqa: BLE001 - the log is committed; what is left is only memory
            self._log.error("closing: %s", traceback.format_exc())
        self.engine.publisher.changed()

    def _wait_for_room(self) -> bool:
        return not self._ending.wait(_ROOM_POLL_SECONDS)

    def _keep_lease(self) -> None:
        while not self._ending.wait(RENEW_EVERY_SECONDS):
            try:
                self._store.renew(self._fence)
            except LeaseLost:
                self._ending.set()
                self.error = self.error or LeaseLost("another kernel took this experiment over.")
                self.engine.interrupt()
                return
            except Exception as error:  # noqa: BLE001 - a disk that takes nothing now may later
                self._log.warning("the lease could not be renewed: %s", error)

    def _at_exit(self) -> None:
        self.end(EXIT_SECONDS, abandon=True)
        _exit_as_interrupted()


def _exit_as_interrupted() -> None:
    """Keep the exit status of a process that ends by an unhandled KeyboardInterrupt.

    CPython (3.11 to 3.14) notes such an end in a flag that any thread's ``exec`` of a string
    clears; while this exit handler waits, a thread that imports a module with dataclasses does
    that. Raising it the same way sets it again.
    """
    if getattr(sys, "last_type", None) is KeyboardInterrupt:
        with contextlib.suppress(KeyboardInterrupt):
            exec("raise KeyboardInterrupt")
