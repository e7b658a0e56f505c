"""Is code of the user's at work in this process, next to the runs that train in the background?

In a kernel that is while a cell runs, in a script always; but not while it does nothing than wait
for an experiment.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Every thread of ours has a name that begins so.
THREAD_PREFIX = "rf-"
_lock = threading.Lock()
_turn = threading.Lock()
"""Held by what no code of the user's may run beside, and for a moment by a cell that begins."""
_counts = {"cells": 0, "waiting": 0}
_watched: set[int] = set()
"""Ids of the shells whose cells are counted."""


def watch_cells() -> None:
    """Count the cells of this kernel's shell from now on; called by a cell.

    Does nothing in a script.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or id(shell) in _watched:
        return
    _watched.add(id(shell))
    _counts["cells"] = 1
    shell.events.register("pre_run_cell", _cell_began)
    shell.events.register("post_run_cell", _cell_ended)


def counts_cells() -> bool:
    """Whether this is a kernel whose cells are counted."""
    return bool(_watched)


def is_cell_at_work() -> bool:
    """Whether there may be code of the user's that runs at this moment."""
    with _lock:
        return _counts["waiting"] == 0 and (not _watched or _counts["cells"] > 0)


@contextmanager
def only_waiting() -> Iterator[None]:
    """While it lasts, the cell or script does nothing else."""
    _count("waiting", 1)
    try:
        yield
    finally:
        with _turn:
            _count("waiting", -1)


@contextmanager
def undisturbed() -> Iterator[bool]:
    """Let no cell begin, for a second at most: one that is sent meanwhile starts afterwards.

    Gives whether none is at work, nor a thread that one has started; where one is, nothing is held
    up.
    """
    with _turn:
        is_quiet = not is_cell_at_work() and not _has_thread_at_work()
        if is_quiet:
            yield True
    if not is_quiet:
        yield False


def _has_thread_at_work() -> bool:
    """Whether there are threads that the process would wait for at its end, and not ours."""
    known = (threading.main_thread(), threading.current_thread())
    return any(
        not (thread.daemon or thread in known or thread.name.startswith(THREAD_PREFIX))
        for thread in threading.enumerate()
    )


def _cell_began(*_info: object) -> None:
    with _turn:
        _count("cells", 1)


def _cell_ended(*_result: object) -> None:
    _count("cells", -1)


def _count(what: str, change: int) -> None:
    with _lock:
        _counts[what] = max(_counts[what] + change, 0)
