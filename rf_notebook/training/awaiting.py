"""Where are async functions of the user's awaited?

In one event loop of the thread, for all its runs and batches: a client or a semaphore in a user's
cell belongs to the loop that used it first. The loop runs only while somebody looks at it, in
whoever's course that is, so every piece of a coroutine draws from the streams of its own run.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import types
from collections.abc import Collection, Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from rf_notebook.training.process_state import RandomState


class _Thread(threading.local):
    """Of the thread that asks."""

    loop: asyncio.AbstractEventLoop | None = None


class RunStreams:
    """The random streams of a run while its coroutines are awaited."""

    def __init__(self) -> None:
        """Those that are in now."""
        self._state = RandomState.capture()

    def take(self) -> None:
        """The run has drawn in between: begin where it is now."""
        self._state = RandomState.capture()

    def give(self) -> None:
        """The run continues where its coroutines are."""
        self._state.install()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """While a piece of a coroutine runs, in whoever's course."""
        others = RandomState.capture()
        self._state.install()
        try:
            yield
        finally:
            self._state = RandomState.capture()
            others.install()


_thread = _Thread()
_streams: contextvars.ContextVar[RunStreams | None] = contextvars.ContextVar(
    "_streams", default=None
)


def begin(coroutine: Coroutine[Any, Any, Any], streams: RunStreams) -> asyncio.Task[Any]:
    """Start to await something; so far nothing of it has run.

    What it starts itself draws from the same streams.
    """
    context = contextvars.copy_context()
    context.run(_streams.set, streams)
    task = _loop().create_task(_drawing_from(streams, coroutine), context=context)
    return _started(task, coroutine)


def look(task: asyncio.Task[Any], seconds: float | None) -> None:
    """Let everything that is awaited in this thread continue.

    Args:
        task: When it is done, this returns at once.
        seconds: To wait at most; None: until it is done.
    """
    loop = _loop()

    def stop(_task: object) -> None:
        loop.stop()

    task.add_done_callback(stop)
    handle = None if seconds is None else loop.call_later(seconds, loop.stop)
    try:
        loop.run_forever()
    finally:
        task.remove_done_callback(stop)
        if handle is not None:
            handle.cancel()


def result_of(awaitable: Any) -> Any:
    """What something gives that is awaited by itself; it draws from the streams that are in."""

    async def awaited() -> Any:
        return await awaitable

    streams = RunStreams()
    task = begin(awaited(), streams)
    while not task.done():
        look(task, None)
    streams.give()
    return task.result()


def cancel(tasks: list[asyncio.Task[Any]]) -> None:
    """End what nobody waits for any more."""
    if tasks:
        _loop().run_until_complete(_ended(tasks))


def close() -> None:
    """End the thread's loop, if there is one, and whatever is still awaited in it."""
    loop, _thread.loop = _thread.loop, None
    if loop is None:
        return
    try:
        loop.run_until_complete(_ended(asyncio.all_tasks(loop)))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


async def _ended(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel them, and wait until they are over.

    Inside the loop: outside one, a gather of nothing asks for the thread's current loop, which is
    somebody else's, or none.
    """
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _loop() -> asyncio.AbstractEventLoop:
    if _thread.loop is None:
        _thread.loop = asyncio.new_event_loop()
        _thread.loop.set_task_factory(_task)
    return _thread.loop


def _task(loop: asyncio.AbstractEventLoop, coroutine: Any, **given: Any) -> asyncio.Task[Any]:
    """Tasks that a run's coroutine starts are the run's, too."""
    streams = _streams.get()
    if streams is None:
        return asyncio.Task(coroutine, loop=loop, **given)
    return _started(asyncio.Task(_drawing_from(streams, coroutine), loop=loop, **given), coroutine)


def _started(task: asyncio.Task[Any], coroutine: Any) -> asyncio.Task[Any]:
    """Where the task is cancelled before it begins, nobody else closes its coroutine."""
    task.add_done_callback(lambda _task: coroutine.close())
    return task


async def _drawing_from(streams: RunStreams, coroutine: Any) -> Any:
    return await _driven(streams, coroutine)


@types.coroutine
def _driven(streams: RunStreams, coroutine: Any) -> Generator[Any, Any, Any]:
    advance, given = coroutine.send, None
    while True:
        with streams.inside():
            try:
                waits_for = advance(given)
            except StopIteration as done:
                return done.value
        try:
            given = yield waits_for
            advance = coroutine.send
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the coroutine's
            advance, given = coroutine.throw, error
