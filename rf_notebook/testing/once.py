"""What is done once, by whoever comes first."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Once:
    """A checkpoint that somebody writes, once."""

    def __init__(self, write: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._write: Callable[[], None] | None = write

    def finish(self) -> None:
        """Write it, unless it is written."""
        with self._lock:
            if self._write is not None:
                self._write()
                self._write = None
