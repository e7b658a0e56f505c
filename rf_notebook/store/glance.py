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

from rf_notebook.core.errors import StoreError
from rf_notebook.core.ports import Holder
from rf_notebook.core.run import READY, RunState
from rf_notebook.store.chain import UNREADABLE, Break, checked, is_chained, may_pass
from rf_notebook.store.lease import is_alive
from rf_notebook.store.sqlite import connect


class Recorded(StrEnum):
    """How a record stands."""

    FINISHED = "finished"
    """No run wants a turn any more."""
    INTERRUPTED = "interrupted"
    """Some would continue if its cell were run again."""
    ELSEWHERE = "elsewhere"
    """A living process trains it."""
    UNREADABLE = "unreadable"
    """Damaged, or no record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """What is seen."""

    standing: Recorded
    runs: int = 0
    """Those that were not deleted."""


def glance(path: Path) -> Glance:
    """A glance at a record; never raises for what the file holds."""
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(connect(path, uri=uri, timeout=1.0, isolation_level=None)) as connection:
            connection.execute("BEGIN")
            return _glance(connection)
    except UNREADABLE as error:
        # Killed within a commit: the journal is rolled back when somebody opens the record to write.
        standing = Recorded.INTERRUPTED if may_pass(error) else Recorded.UNREADABLE
        return Glance(standing=standing)
    except (Break, StoreError, ValueError, TypeError, KeyError, RecursionError):
        return Glance(standing=Recorded.UNREADABLE)


def _glance(connection: sqlite3.Connection) -> Glance:
    if is_chained(connection) is None:
        return Glance(standing=Recorded.UNREADABLE)
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
    for _ in checked(connection):  # one that is being written is looked at too often for this
        pass
    unfinished = any(state in READY for state in alive)
    return Glance(
        standing=Recorded.INTERRUPTED if unfinished else Recorded.FINISHED, runs=len(alive)
    )
