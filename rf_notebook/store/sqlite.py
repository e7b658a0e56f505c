"""The event log on SQLite: rollback journal, synchronous=FULL, one writer.

A rollback journal rather than WAL, because SQLite 3.7.0 to 3.51.2 can lose committed pages of a WAL
that is reset while another connection reads; Python often links such a version
(https://sqlite.org/wal.html, "WAL-reset bug").
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rf_notebook.core.errors import LeaseLost, ReadOnlyExperiment, StorageFull, StoreError
from rf_notebook.core.events import Event, Recorded
from rf_notebook.core.ports import CommitObserver, CommitPoint, Holder, unobserved
from rf_notebook.store.codec import VERSION, decode, encode
from rf_notebook.store.lease import LEASE_LOST, is_alive, read_only_sentence

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, version INTEGER NOT NULL, payload TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS lease (
    id INTEGER PRIMARY KEY CHECK (id = 1), fence INTEGER NOT NULL, held INTEGER NOT NULL,
    host TEXT NOT NULL, pid INTEGER NOT NULL, process_started REAL NOT NULL, renewed_at REAL NOT NULL);
"""
_BUSY_SECONDS = 30.0


def sqlite_version() -> str:
    """Of the library that this Python links."""
    return sqlite3.sqlite_version


class SqliteStore:
    """An EventStore in one file; any thread may call it."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        observer: CommitObserver = unobserved,
    ) -> None:
        """Open or create the file.

        Raises:
            StoreError: when the file is not such a record.
        """
        self._path = path
        self._clock = clock
        self._observer = observer
        self._lock = threading.RLock()
        try:
            self.connection = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self.connection.execute("PRAGMA journal_mode=DELETE")
            self.connection.execute("PRAGMA synchronous=FULL")
            self.connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise _translated(error, path) from error

    def append(self, events: Sequence[Event], fence: int) -> list[Recorded]:
        """See EventStore."""
        encoded = [encode(event) for event in events]
        with self._transaction() as connection:
            self._check(connection, fence)
            first = connection.execute("SELECT coalesce(max(seq), 0) + 1 FROM events").fetchone()[0]
            now = self._clock()
            connection.executemany(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?)",
                [
                    (first + i, now, kind, VERSION, payload)
                    for i, (kind, payload) in enumerate(encoded)
                ],
            )
            self._observer(CommitPoint.EVENTS_INSERTED)
        self._observer(CommitPoint.EVENTS_COMMITTED)
        return [Recorded(seq=first + i, at=now, event=event) for i, event in enumerate(events)]

    def read(self, after: int = 0) -> list[Recorded]:
        """See EventStore."""
        query = "SELECT seq, at, kind, version, payload FROM events WHERE seq > ? ORDER BY seq"
        with self._reading() as connection:
            rows = connection.execute(query, (after,)).fetchall()
        return [
            Recorded(seq=seq, at=at, event=decode(kind, version, body))
            for seq, at, kind, version, body in rows
        ]

    def acquire(self, holder: Holder, *, take_over: bool = False) -> int:
        """See EventStore."""
        with self._transaction() as connection:
            row = self._lease_row(connection)
            now = self._clock()
            if row is not None:
                fence, held, other, renewed_at = row
                if held and not take_over and is_alive(other, renewed_at=renewed_at, now=now):
                    raise ReadOnlyExperiment(read_only_sentence(other))
            else:
                fence = 0
            connection.execute(
                "INSERT OR REPLACE INTO lease VALUES (1, ?, 1, ?, ?, ?, ?)",
                (fence + 1, holder.host, holder.pid, holder.process_started, now),
            )
        return fence + 1

    def renew(self, fence: int) -> None:
        """See EventStore."""
        with self._transaction() as connection:
            self._check(connection, fence)
            connection.execute("UPDATE lease SET renewed_at = ?", (self._clock(),))

    def release(self, fence: int) -> None:
        """See EventStore."""
        with self._transaction() as connection:
            connection.execute("UPDATE lease SET held = 0 WHERE fence = ?", (fence,))

    def holder(self) -> Holder | None:
        """See EventStore."""
        with self._reading() as connection:
            row = self._lease_row(connection)
        return row[2] if row is not None and row[1] else None

    def living_holder(self) -> Holder | None:
        """See EventStore."""
        with self._reading() as connection:
            row = self._lease_row(connection)
        if row is None or not row[1] or not is_alive(row[2], renewed_at=row[3], now=self._clock()):
            return None
        return row[2]

    def close(self) -> None:
        """See EventStore."""
        with self._lock:
            self.connection.close()

    @staticmethod
    def _lease_row(connection: sqlite3.Connection) -> tuple[int, bool, Holder, float] | None:
        query = "SELECT fence, held, host, pid, process_started, renewed_at FROM lease"
        row = connection.execute(query).fetchone()
        if row is None:
            return None
        fence, held, host, pid, started, renewed_at = row
        return fence, bool(held), Holder(host=host, pid=pid, process_started=started), renewed_at

    def _check(self, connection: sqlite3.Connection, fence: int) -> None:
        row = self._lease_row(connection)
        if row is None or row[0] != fence or not row[1]:
            raise LeaseLost(LEASE_LOST)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self.connection
            except sqlite3.Error as error:
                raise _translated(error, self._path) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and alone: two processes that race for the lease see each other's row."""
        with self._reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise


def _translated(error: sqlite3.Error, path: Path) -> StoreError:
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return StorageFull(
            f"no room to write {path.name}: {error}. Free some disk space; training continues by itself."
        )
    return StoreError(f"{path} cannot be used as an experiment's record: {error}.")
