"""The event log on SQLite: rollback journal, synchronous=FULL, one writer.

A rollback journal rather than WAL, because SQLite 3.7.0 to 3.51.2 can lose committed pages of a WAL
that is reset while another connection reads; Python often links such a version
(https://sqlite.org/wal.html, "WAL-reset bug").
"""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from rf_notebook.core.errors import (
    LeaseLost,
    ReadOnlyExperiment,
    RecordDamaged,
    StorageFull,
    StoreError,
)
from rf_notebook.core.events import Event, Recorded
from rf_notebook.core.ports import CommitObserver, CommitPoint, Holder, unobserved
from rf_notebook.store.chain import (
    UNREADABLE,
    Break,
    Row,
    begin,
    chain_up,
    checked,
    insert,
    is_chained,
    next_number,
)
from rf_notebook.store.codec import VERSION, decode, encode
from rf_notebook.store.lease import LEASE_LOST, is_alive, read_only_sentence

_BUSY_SECONDS = 30.0
#: Of one entry; a larger one was not written by this package.
_MOST_BYTES = 256 << 20
#: Of a database that has anything in it: SQLite takes a shorter file for an empty one.
_SMALLEST_BYTES = 512
#: After a lease that cannot be read: above any that it can have had.
_FENCE_AFTER_DAMAGE = 1 << 30


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
            StoreError: when the file is not such a record, or its folder cannot be made.
        """
        self._path = path
        self._clock = clock
        self._observer = observer
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{path.parent} cannot be made: {error.strerror or error}. Give Experiment an experiment_path that can be "
                "written."
            ) from error
        self.connection = self._connected(path)

    def append(self, events: Sequence[Event], fence: int) -> list[Recorded]:
        """See EventStore."""
        encoded = [encode(event) for event in events]
        with self._transaction() as connection:
            self._check(connection, fence)
            first, now = next_number(connection), self._clock()
            insert(
                connection,
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
        sure: list[Recorded] = []
        try:
            with self._transaction("DEFERRED") as connection:
                for seq, at, kind, version, body in checked(connection, after):
                    sure.append(Recorded(seq=seq, at=at, event=decode(kind, version, body)))
        except RecordDamaged as error:
            raise RecordDamaged(str(error), sure) from error
        return sure

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
            if is_chained(connection):
                for _ in checked(connection):
                    pass
            else:
                chain_up(connection)
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

    def repair(self, last: int) -> Path:
        """Set a damaged file aside, and continue with its first entries.

        Args:
            last: The number of the last entry to keep.

        Returns:
            Where the damaged file is now: in the same folder.

        Raises:
            StoreError: when there is no room for both; then nothing has changed.
        """
        beside = self._path.with_name(f"{self._path.name}.repairing")
        journal = self._path.with_name(f"{self._path.name}-journal")
        with self._reading() as connection:
            rows: list[Row] = []
            with suppress(Break):
                rows.extend(row for row in checked(connection) if row[0] <= last)
            fence = _FENCE_AFTER_DAMAGE
            with suppress(*UNREADABLE):
                lease = self._lease_row(connection)
                fence = lease[0] if lease is not None else 0
            try:
                beside.unlink(missing_ok=True)
                with closing(self._connected(beside)) as new, _all_or_nothing(new):
                    insert(new, rows)
                    new.execute("INSERT INTO lease VALUES (1, ?, 0, '', 0, 0, 0)", (fence,))
                aside = _free(self._path)
                shutil.copy2(self._path, aside, follow_symlinks=False)
                connection.close()
                journal.unlink(missing_ok=True)
                beside.replace(self._path)
            except OSError as error:
                raise StoreError(f"{self._path} could not be repaired: {error}.") from error
            finally:
                beside.unlink(missing_ok=True)
                self.connection.close()
                self.connection = self._connected(self._path)
        return aside

    def close(self) -> None:
        """See EventStore."""
        with self._lock:
            self.connection.close()

    def _connected(self, path: Path) -> sqlite3.Connection:
        """A connection to a record, which is begun where there is none."""
        with self._told():
            connection = connect(path, isolation_level=None, check_same_thread=False)
            try:
                connection.execute("PRAGMA journal_mode=DELETE")
                connection.execute("PRAGMA synchronous=FULL")
                if is_chained(connection) is None:
                    with _all_or_nothing(connection):
                        if is_chained(connection) is None:
                            begin(connection)
            except BaseException:
                connection.close()
                raise
        return connection

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
        with self._lock, self._told():
            yield self.connection

    @contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        """All or nothing, and alone: two processes that race for the lease see each other's row."""
        with self._reading() as connection, _all_or_nothing(connection, kind):
            yield connection

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong inside is told in a sentence that names the file."""
        try:
            yield
        except Break as error:
            sure = (
                f"entries 1 to {error.seq - 1} are sure" if error.seq > 1 else "nothing before it"
            )
            raise RecordDamaged(f"{self._path} is damaged: {error}; {sure}.") from error
        except UNREADABLE as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise StorageFull(
                    f"no room to write {self._path.name}: {error}. Free some disk space; training continues by itself."
                ) from error
            if not self._path.exists():
                raise StoreError(
                    f"{self._path} is gone: its folder was moved or removed. Put it back, and training continues by itself."
                ) from error
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise StoreError(
                    f"{self._path} has been written by another process for {_BUSY_SECONDS:g} s, which may be stopped in the "
                    "middle of it: let it continue, or end it, then try again."
                ) from error
            raise StoreError(
                f"{self._path} cannot be used as an experiment's record: {error}."
            ) from error


def connect(path: Path, *, uri: str | None = None, **options: Any) -> sqlite3.Connection:
    """A connection to a file that may be anybody's.

    Args:
        path: The file; it need not exist.
        uri: With which SQLite opens it, if not by its path.
        options: Of ``sqlite3.connect``.

    Raises:
        StoreError: when there is something else than a file.
        sqlite3.Error: when it cannot be opened.
    """
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise StoreError(
                f"{path} cannot be used as an experiment's record: it is no plain file."
            )
        if 0 < found.st_size < _SMALLEST_BYTES:
            raise StoreError(
                f"{path} cannot be used as an experiment's record: it is cut after {found.st_size} bytes."
            )
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StoreError(f"{path} cannot be used as an experiment's record: {error}.") from error
    connection: sqlite3.Connection = sqlite3.connect(
        uri or path, uri=uri is not None, **{"timeout": _BUSY_SECONDS, **options}
    )
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES)
    connection.execute("PRAGMA trusted_schema=OFF")
    return connection


@contextmanager
def _all_or_nothing(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _free(path: Path) -> Path:
    """A name beside a damaged record that nothing has."""
    numbered = (path.with_name(f"{path.stem}.damaged-{n}{path.suffix}") for n in itertools.count(1))
    return next(one for one in numbered if not os.path.lexists(one))
