"""Is a record still what was written?

Each entry has a digest of itself and of the digest before it, and the head has the newest one: from a changed, lost,
added or moved entry on, the chain is broken. It finds damage; it does not tell who wrote a record. The first records
of version 0.1.0 have no digests: they are read unchecked.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from rf_notebook.core.errors import StoreError

#: Of the events table: seq, at, kind, version, payload.
Row = tuple[int, float, str, int, str]

_UNCHAINED = """CREATE TABLE events (
    seq INTEGER PRIMARY KEY, at REAL NOT NULL, kind TEXT NOT NULL, version INTEGER NOT NULL, payload TEXT NOT NULL)"""
_EVENTS = _UNCHAINED.removesuffix(")") + ", digest TEXT)"
_LEASE = """CREATE TABLE lease (
    id INTEGER PRIMARY KEY CHECK (id = 1), fence INTEGER NOT NULL, held INTEGER NOT NULL,
    host TEXT NOT NULL, pid INTEGER NOT NULL, process_started REAL NOT NULL, renewed_at REAL NOT NULL)"""
_HEAD = "CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL, digest TEXT NOT NULL)"
_SHAPES = {
    None: (),
    True: (_EVENTS, _LEASE, _HEAD),
    False: (_UNCHAINED, _LEASE),
}
_START = (0, "")
"""The head of a record without entries."""
#: SQLite's codes for a disk or a moment that is not right, where the file may be.
_PASSING = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
)


UNREADABLE = (sqlite3.Error, UnicodeDecodeError)
"""What sqlite3 raises of a file; the second where its own message names what lies there."""


class Break(Exception):  # noqa: N818 - a place in a record
    """Where a chain breaks."""

    def __init__(self, seq: int, why: str) -> None:
        """At an entry's number, and why, in words that follow "entry 5 is"."""
        super().__init__(f"entry {seq} is {why}")
        self.seq = seq


def is_chained(connection: sqlite3.Connection) -> bool | None:
    """Whether a record's entries have digests; None where there are no tables yet.

    Raises:
        StoreError: when there is anything but a record's tables, such as a view or a trigger.
        sqlite3.Error: when the file is no database.
    """
    found = {_plain(str(sql)) for (sql,) in connection.execute("SELECT sql FROM sqlite_master")}
    for answer, tables in _SHAPES.items():
        if found == {_plain(sql) for sql in tables}:
            return answer
    raise StoreError("its tables are not a record's")


def may_pass(error: Exception) -> bool:
    """Whether an error is the disk's or the moment's, where the file may be as it was written."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in _PASSING


def begin(connection: sqlite3.Connection, rows: Sequence[Row] = ()) -> None:
    """Make the tables, with entries from 1 on; within a transaction."""
    for sql in (_EVENTS, _LEASE, _HEAD):
        connection.execute(sql)
    connection.execute("INSERT INTO head VALUES (1, ?, ?)", _START)
    insert(connection, rows)


def chain_up(connection: sqlite3.Connection) -> None:
    """Give the entries of an unchecked record digests, within a transaction, so that it is checked from now on.

    Raises:
        Break: when an entry is missing or cannot be read.
    """
    rows = list(checked(connection))
    connection.execute("ALTER TABLE events ADD COLUMN digest TEXT")
    connection.execute(_HEAD)
    digests = list(_digests(rows, _START[1]))
    connection.executemany(
        "UPDATE events SET digest = ? WHERE seq = ?",
        [(one, row[0]) for one, row in zip(digests, rows, strict=True)],
    )
    head = (len(rows), digests[-1]) if rows else _START
    connection.execute("INSERT INTO head VALUES (1, ?, ?)", head)


def next_number(connection: sqlite3.Connection) -> int:
    """Of the entry that is written next.

    Raises:
        Break: when the newest entry is not the one that was written last.
    """
    newest = connection.execute(
        "SELECT seq, digest FROM events ORDER BY seq DESC LIMIT 1"
    ).fetchone()
    head = _head(connection)
    if head != (newest or _START):
        raise Break(head[0], "not what was written last")
    return head[0] + 1


def insert(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Add entries after those that there are, within a transaction."""
    digests = list(_digests(rows, _head(connection)[1]))
    connection.executemany(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)",
        [(*row, one) for row, one in zip(rows, digests, strict=True)],
    )
    if rows:
        connection.execute("UPDATE head SET seq = ?, digest = ?", (rows[-1][0], digests[-1]))


def checked(connection: sqlite3.Connection, after: int = 0) -> Iterator[Row]:
    """Entries above a number, in order, within a transaction; each is what was written.

    Raises:
        Break: at the first that is not.
        StoreError: when the tables are not a record's.
        sqlite3.Error: when the file cannot be read at the moment.
    """
    seq = after
    try:
        chained = is_chained(connection)
        digest = "digest" if chained else "NULL"
        query = f"SELECT seq, at, kind, version, payload, {digest} FROM events WHERE seq"
        known = connection.execute(f"{query} = ?", (after,)).fetchone()
        before = _START[1] if known is None else known[5]
        for *found, written in connection.execute(f"{query} > ? ORDER BY seq", (after,)):
            row: Row = tuple(found)
            seq += 1
            if row[0] != seq:
                raise Break(seq, "gone")
            if chained:
                before = _link(before, row)
                if before != written:
                    raise Break(seq, "not what was written")
            yield row
        if chained:
            last, newest = _head(connection)
            if (last, newest) != (seq, before):
                raise (
                    Break(seq + 1, "gone")
                    if last > seq
                    else Break(seq, "not what was written last")
                )
    except UNREADABLE as error:
        if may_pass(error):
            raise
        raise Break(seq + 1, f"not to be read ({error})") from error


def _head(connection: sqlite3.Connection) -> tuple[int, str]:
    """The number and the digest of the newest entry, as written with it."""
    found: tuple[int, str] | None = connection.execute("SELECT seq, digest FROM head").fetchone()
    return (0, "gone") if found is None else found


def _digests(rows: Iterable[Row], before: str) -> Iterator[str]:
    for row in rows:
        before = _link(before, row)
        yield before


def _link(before: str, row: Row) -> str:
    """The digest of an entry after another one's, as 64 hexadecimal digits."""
    text = json.dumps([before, *row], separators=(",", ":"), default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(sql: str) -> str:
    return "".join(sql.split())
