"""A record whose bytes changed is told; what is sure of it can be read and continued."""

from __future__ import annotations

import os
import random
import sqlite3
from contextlib import closing

import pytest

from rf_notebook.core.errors import RecordDamaged, StoreError
from rf_notebook.core.events import Noted
from rf_notebook.store.lease import this_process
from rf_notebook.store.sqlite import SqliteStore

NOTES = [
    Noted(text=f"eval_loss 6.{n:02}: " + "a figure that somebody believes " * (n % 7))
    for n in range(60)
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "experiment.sqlite"


@pytest.fixture
def recorded(path):
    """The bytes of a record of 60 entries, written a few at a time."""
    with closing(SqliteStore(path)) as store:
        fence = store.acquire(this_process())
        for first in range(0, len(NOTES), 5):
            store.append(NOTES[first : first + 5], fence)
        store.release(fence)
    return path.read_bytes()


def read(path):
    with closing(SqliteStore(path)) as store:
        return [one.event for one in store.read()]


def unchained(path):
    """The record as version 0.1.0 began to write them."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("ALTER TABLE events DROP COLUMN digest")
        connection.execute("DROP TABLE head")


def is_told_or_equal(path):
    """Whether a damaged file is refused, or gives entries that were written, or all of them."""
    try:
        return read(path) == NOTES
    except RecordDamaged as error:
        sure = [one.event for one in error.sure]
        return sure == NOTES[: len(sure)] and "damaged" in str(error)
    except StoreError:
        return True


@pytest.mark.parametrize("seed", range(3))
def test_no_flipped_bit_is_silent(path, recorded, seed):
    draw = random.Random(seed)
    for _ in range(60):
        place, bit = draw.randrange(len(recorded)), draw.randrange(8)
        data = bytearray(recorded)
        data[place] ^= 1 << bit
        path.write_bytes(data)
        assert is_told_or_equal(path), f"bit {bit} of byte {place}"


def test_no_cut_is_silent(path, recorded):
    for length in [*range(1, len(recorded), 401), len(recorded) - 1]:
        path.write_bytes(recorded[:length])
        assert is_told_or_equal(path), f"cut after {length} bytes"


def test_the_first_damaged_entry_is_named_and_those_before_are_sure(path, recorded):
    path.write_bytes(recorded.replace(b"eval_loss 6.24", b"eval_loss 2.24"))
    with closing(SqliteStore(path)) as store:
        with pytest.raises(
            RecordDamaged, match=r"entry 25 is not what was written; entries 1 to 24 are sure"
        ) as told:
            store.read()
        assert [one.event for one in told.value.sure] == NOTES[:24]
        with pytest.raises(RecordDamaged, match="entry 25"):
            store.acquire(this_process())
        assert store.holder() is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("DELETE FROM events WHERE seq = 31", "entry 31 is gone; entries 1 to 30"),
        ("DELETE FROM events WHERE seq > 55", "entry 56 is gone; entries 1 to 55"),
        ("DELETE FROM events", "entry 1 is gone; nothing before it"),
        ("DELETE FROM head", "not what was written last"),
        ("UPDATE events SET at = at + 1 WHERE seq = 7", "entry 7 is not what was written"),
        ("UPDATE events SET kind = 'Other' WHERE seq = 7", "entry 7 is not what was written"),
        (
            "UPDATE events SET payload = CAST(payload AS BLOB) WHERE seq = 7",
            "entry 7 is not what was written",
        ),
        ("UPDATE events SET digest = NULL", "entry 1 is not what was written"),
        (
            "INSERT INTO events SELECT 61, at, kind, version, payload, digest FROM events WHERE seq = 60",
            "entry 61",
        ),
        ("UPDATE head SET seq = 70", "entry 61 is gone"),
    ],
)
def test_what_is_lost_added_or_changed_is_told(path, recorded, change, sentence):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(change)
    with pytest.raises(RecordDamaged, match=sentence):
        read(path)


def test_later_entries_are_checked_against_those_that_were_read(path, recorded):
    with closing(SqliteStore(path)) as store:
        assert [one.seq for one in store.read(after=50)] == list(range(51, 61))
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("DELETE FROM events WHERE seq = 60")
        with pytest.raises(RecordDamaged, match="entry 60 is gone"):
            store.read(after=58)
        with pytest.raises(RecordDamaged, match="entry 60 is gone"):
            store.read(after=59)


def test_nothing_is_written_behind_a_damaged_end(path, recorded):
    with closing(SqliteStore(path)) as store:
        fence = store.acquire(this_process())
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE events SET digest = 'x' WHERE seq = 60")
        with pytest.raises(RecordDamaged, match="entry 60"):
            store.append([NOTES[0]], fence)


def test_a_record_without_a_chain_is_read_and_chained_when_it_is_written_next(path, recorded):
    unchained(path)
    assert read(path) == NOTES
    path.write_bytes(path.read_bytes().replace(b"eval_loss 6.24", b"eval_loss 2.24"))
    assert read(path) != NOTES, "nothing tells it"
    with closing(SqliteStore(path)) as store:
        fence = store.acquire(this_process())
        store.append([NOTES[0]], fence)
        store.release(fence)
    assert len(read(path)) == 61
    path.write_bytes(path.read_bytes().replace(b"eval_loss 2.24", b"eval_loss 1.24"))
    with pytest.raises(RecordDamaged, match="entry 25"):
        read(path)


@pytest.mark.parametrize(
    "hostile",
    [
        "CREATE TRIGGER more AFTER INSERT ON events BEGIN DELETE FROM events; END",
        "CREATE VIEW endless AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
        "CREATE TABLE more (x)",
        "ALTER TABLE events RENAME TO evants",
        "ALTER TABLE events ADD COLUMN more GENERATED ALWAYS AS (zeroblob(1000000000))",
    ],
)
def test_tables_that_are_not_a_record_s_are_refused(path, recorded, hostile):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(hostile)
    with pytest.raises(StoreError, match="its tables are not a record's"):
        SqliteStore(path)


@pytest.mark.timeout(20)
def test_an_endless_view_in_place_of_the_entries_is_refused(path):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE VIEW events AS WITH RECURSIVE n(seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM n) "
            "SELECT seq, 0.0 AS at, 'Noted' AS kind, 1 AS version, '' AS payload FROM n"
        )
        connection.execute("CREATE TABLE lease (id)")
    with pytest.raises(StoreError, match="its tables are not a record's"):
        SqliteStore(path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", ["mkfifo", "mkdir", "symlink"])
def test_what_is_no_file_is_not_opened(path, recorded, make):
    elsewhere = path.with_name("elsewhere.sqlite")
    path.rename(elsewhere)
    if make == "symlink":
        path.symlink_to(elsewhere)
    else:
        getattr(os, make)(path)
    with pytest.raises(StoreError, match="no plain file"):
        SqliteStore(path)
    assert elsewhere.read_bytes() == recorded


def test_repair_keeps_the_damaged_file_and_goes_on_from_what_is_sure(path, recorded):
    damaged = recorded.replace(b"eval_loss 6.24", b"eval_loss 2.24")
    path.write_bytes(damaged)
    with closing(SqliteStore(path)) as store:
        aside = store.repair(24)
        assert aside.read_bytes() == damaged
        assert [one.event for one in store.read()] == NOTES[:24]
        assert store.acquire(this_process()) == 2, "fences go on"
        store.append(NOTES[24:26], 2)
    assert read(path) == NOTES[:26]
    assert sorted(one.name for one in path.parent.iterdir()) == [
        "experiment.damaged-1.sqlite",
        "experiment.sqlite",
    ]


def test_a_second_repair_keeps_both_damaged_files(path, recorded):
    for n in (1, 2):
        with closing(SqliteStore(path)) as store:
            assert store.repair(10).name == f"experiment.damaged-{n}.sqlite"
    assert read(path) == NOTES[:10]


def test_a_repair_without_room_changes_nothing(path, recorded, monkeypatch):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copy2", full)
    with closing(SqliteStore(path)) as store:
        with pytest.raises(StoreError, match="could not be repaired"):
            store.repair(10)
        assert len(store.read()) == 60
    assert path.read_bytes() == recorded
    assert [one.name for one in path.parent.iterdir()] == ["experiment.sqlite"]
