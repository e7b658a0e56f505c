"""How does a recorded experiment stand?

A glance at its record, read only, without its points and configs.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from rf_notebook.core.ports import Holder
from rf_notebook.core.run import READY, RunState
from rf_notebook.store.lease import is_alive


class Recorded(StrEnum):
    """How a record stands."""

    FINISHED = "finished"
    """No run wants a turn any more."""
    INTERRUPTED = "interrupted"
    """Some would continue if its cell were run again."""
    ELSEWHERE = "elsewhere"
    """A living process trains it."""
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """What is seen."""

    standing: Recorded
    runs: int = 0
    """Those that were not deleted."""


def glance(path: Path) -> Glance:
    """A glance at a record; never raises for what the file holds."""
    try:
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)
        ) as connection:
            return _glance(connection)
    except sqlite3.OperationalError:
        # Killed within a commit: the journal is rolled back when somebody opens the record to write.
        return Glance(standing=Recorded.INTERRUPTED)
    except (sqlite3.Error, ValueError, TypeError, KeyError):
        return Glance(standing=Recorded.UNREADABLE)


def _glance(connection: sqlite3.Connection) -> Glance:
    query = "SELECT kind, json_extract(payload, '$.run_id'), json_extract(payload, '$.state') FROM events WHERE kind IN (?, ?, ?)"
    states: dict[int, RunState] = {}
    for kind, run_id, state in connection.execute(
        query + " ORDER BY seq", ("RunAdded", "StateChanged", "RunFailed")
    ):
        match kind:
            case "RunAdded":
                states[int(run_id)] = RunState.QUEUED
            case "StateChanged":
                states[int(run_id)] = RunState(state)
            case _:
                states[int(run_id)] = RunState.FAILED
    lease = connection.execute(
        "SELECT held, host, pid, process_started, renewed_at FROM lease"
    ).fetchone()
    alive = [state for state in states.values() if state is not RunState.DELETED]
    if lease is not None and lease[0]:
        holder = Holder(host=lease[1], pid=lease[2], process_started=lease[3])
        if is_alive(holder, renewed_at=lease[4], now=time.time()):
            return Glance(standing=Recorded.ELSEWHERE, runs=len(alive))
    unfinished = any(state in READY for state in alive)
    return Glance(
        standing=Recorded.INTERRUPTED if unfinished else Recorded.FINISHED, runs=len(alive)
    )
