"""How does a cell wait for an experiment, and how does one end?"""

from __future__ import annotations

import asyncio
import atexit
import sys
import time
import weakref
from contextlib import nullcontext
from typing import TYPE_CHECKING

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.foreground import only_waiting
from rf_notebook.core.redaction import brief
from rf_notebook.record.files import RECORD, write_record
from rf_notebook.session.registry import closed

if TYPE_CHECKING:
    from rf_notebook.session.session import Session

_LOOK_SECONDS = 0.5
_ASYNC_LOOK_SECONDS = 0.05


def wait(session: Session, timeout: float | None = None) -> bool:
    """Wait until no run wants to train, and show the progress meanwhile.

    Args:
        session: The experiment.
        timeout: Seconds; forever when omitted.

    Returns:
        Whether no run wants to train any more.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, int | float | None):
        raise ConfigError(f"wait(timeout={brief(timeout)}): give seconds.")
    thread = session.thread
    if thread is None:
        return True
    until = None if timeout is None else time.monotonic() + timeout
    engine, display = thread.engine, session.display
    quiet = display is not None and display.is_shown
    # Whoever looks in now and then does something else in between.
    at_rest = only_waiting() if timeout is None else nullcontext()
    with at_rest, session.progress.shown(None if quiet else sys.stdout) as show:
        seen = -1
        while not engine.mailbox.idle.is_set():
            left = _LOOK_SECONDS if until is None else min(_LOOK_SECONDS, until - time.monotonic())
            if left <= 0:
                return False
            now = session.wait_for_change(seen, left)
            if now != seen:
                show(engine.held_up or ("paused" if engine.paused else None))
                seen = now
            if display is not None:
                display.refresh_while_waiting()
    return True


async def wait_async(session: Session) -> None:
    """Like ``wait``, for ``await``: other coroutines run meanwhile."""
    thread = session.thread
    while thread is not None and not thread.engine.mailbox.idle.is_set():
        await asyncio.sleep(_ASYNC_LOOK_SECONDS)


def end(session: Session, *, cancel: bool) -> None:
    """Wait for the runs unless it is cancelled, then close.

    The record is written into the experiment's folder.

    Raises:
        BaseException: what the engine's thread died of, if it did.
    """
    if session.thread is None:
        return
    if not cancel:
        wait(session)
    error = session.end_training(cancelled=cancel)
    closed(session)
    if session.state.started is not None:
        write_record_file(session)
    session.log.close()
    if error is not None:
        raise error
    refresh_display(session)


def tell_at_exit(session: Session) -> None:
    """When the process ends while runs train, say so on stderr: a script that forgot to wait."""
    atexit.register(_tell_unfinished, session.name, weakref.ref(session))


def _tell_unfinished(name: str, reference: weakref.ref[Session]) -> None:
    session = reference()
    if session is None or session.thread is None or not session.thread.is_alive:
        return
    left = len(session.state.ready())
    if left:
        print(  # noqa: T201 - the last that can be said
            f"experiment {name!r} ends with its process while {left} of {len(session.state.runs)} runs train. What they "
            "have finished is recorded: run it again to continue, and call experiment.wait() to wait for the end.",
            file=sys.stderr,
            flush=True,
        )


def write_record_file(session: Session) -> None:
    """Write the record into the experiment's folder; that it cannot be is told in the log."""
    from rf_notebook.record.recording import record_of

    try:
        write_record(session.folder, record_of(session.state))
    except OSError as refusal:
        session.log.logger.warning("%s was not written: %s", RECORD, refusal)


def refresh_display(session: Session) -> None:
    """Bring what the saved notebook shows up to date."""
    if session.display is not None:
        session.display.refresh()
