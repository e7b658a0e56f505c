"""Which threads write checkpoints while the device does something else?"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import psutil

from rf_notebook.core.foreground import THREAD_PREFIX

if TYPE_CHECKING:
    from rf_notebook.core.run import StoredFolder

_THREADS = 4
#: The share of the host's free memory that copies which are not written yet may take.
_SHARE = 0.25


class Writers:
    """Of one runner. Threads start with the first checkpoint that is given to them."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._taken = threading.Condition()
        self._bytes = 0
        """Of copies that are not written yet."""

    def wait_for_room(self, size: int) -> None:
        """Wait until a further copy of so many bytes may be made; one always may."""
        with self._taken:
            while self._bytes and self._bytes + size > _SHARE * psutil.virtual_memory().available:
                self._taken.wait(1.0)

    def submit(self, write: Callable[[], StoredFolder], size: int) -> Future[StoredFolder]:
        """Write a copy of so many bytes in one of the threads."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS, f"{THREAD_PREFIX}writer")
        with self._taken:
            self._bytes += size
        writing = self._pool.submit(write)
        writing.add_done_callback(lambda _: self._written(size))
        return writing

    def close(self) -> None:
        """Wait until all is written."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _written(self, size: int) -> None:
        with self._taken:
            self._bytes -= size
            self._taken.notify_all()
