"""How does a process of ours end: with the one that started it, and not without a word?

A pipe tells it of its parent's end, too, but not where a process that the parent forked holds the pipe
open.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

#: Between two looks at whether the parent is there.
_LOOK_SECONDS = 0.3


def end_with_parent() -> None:
    """End this process, whatever it does, when its parent is gone."""
    parent = os.getppid()
    threading.Thread(target=_end_with, args=(parent,), name="rf-end", daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(0)


def heed_notice(tell: Callable[[], object]) -> None:
    """Take SIGTERM as a notice: who sent it ends the process soon, and until then it can save.

    Args:
        tell: Called in a thread for each.
    """
    process = os.getpid()
    reading, writing = os.pipe()

    def handle(number: int, _frame: Any) -> None:
        if os.getpid() == process:
            os.write(writing, b"!")
        else:  # in a process that a library forked, as a data loader does, it is what it always is
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def listen() -> None:
        while os.read(reading, 1):
            tell()

    signal.signal(signal.SIGTERM, handle)
    threading.Thread(target=listen, name="rf-notice", daemon=True).start()
