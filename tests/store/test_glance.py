"""A glance at records: what the sidebar says of experiments on disk."""

from __future__ import annotations

import sqlite3

import pytest

from rf_notebook.core.events import Noted, RunAdded, RunFailed, StateChanged
from rf_notebook.core.run import Failure, RunState
from rf_notebook.store.chain import insert, next_number
from rf_notebook.store.glance import Glance, Recorded, glance
from rf_notebook.store.lease import this_process
from rf_notebook.store.sqlite import SqliteStore
from rf_notebook.testing.fake_session import config, started


@pytest.fixture
def path(tmp_path):
    return tmp_path / "experiment.sqlite"


def record(path, *events, hold=False):
    store = SqliteStore(path)
    fence = store.acquire(this_process())
    store.append(
        [started(), *(RunAdded(run_id=i, config=config()) for i in (1, 2, 3)), *events], fence
    )
    if not hold:
        store.release(fence)
    store.close()


def state(run_id, to):
    return StateChanged(run_id=run_id, state=to)


def test_runs_that_would_go_on_make_it_interrupted(path):
    record(
        path, state(1, RunState.COMPLETED), state(2, RunState.STOPPED), state(2, RunState.RUNNING)
    )
    assert glance(path) == Glance(standing=Recorded.INTERRUPTED, runs=3)


def test_runs_that_are_over_stopped_or_failed_make_it_finished_and_deleted_ones_do_not_count(path):
    failed = RunFailed(run_id=2, failure=Failure(message="no", traceback=""))
    record(path, state(1, RunState.STOPPED), failed, state(3, RunState.DELETED))
    assert glance(path) == Glance(standing=Recorded.FINISHED, runs=2)


def test_a_living_process_trains_it(path):
    record(path, hold=True)
    assert glance(path) == Glance(standing=Recorded.ELSEWHERE, runs=3)


def test_looking_changes_nothing(path):
    record(path)
    before = path.read_bytes()
    glance(path)
    assert path.read_bytes() == before
    assert sorted(file.name for file in path.parent.iterdir()) == ["experiment.sqlite"]


def test_what_is_no_record_is_unreadable(path):
    path.write_bytes(b"not a database, but long enough to be looked at" * 100)
    assert glance(path).standing is Recorded.UNREADABLE


@pytest.mark.parametrize("payload", ["no json", '{"run_id": null}', '{"run_id": "x"}', "[]"])
def test_payloads_that_are_no_events_are_unreadable(path, payload):
    record(path)
    with sqlite3.connect(path) as connection:
        insert(connection, [(next_number(connection), 0.0, "RunAdded", 1, payload)])
    connection.close()
    assert glance(path).standing is Recorded.UNREADABLE


def test_a_damaged_one_is_unreadable_also_where_the_glance_does_not_look(path):
    record(path, Noted(text="loss 6.24"))
    path.write_bytes(path.read_bytes().replace(b"loss 6.24", b"loss 2.24"))
    assert glance(path) == Glance(standing=Recorded.UNREADABLE)


def test_one_without_a_chain_can_be_looked_at(path):
    record(path, state(1, RunState.COMPLETED))
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE events DROP COLUMN digest")
        connection.execute("DROP TABLE head")
    connection.close()
    assert glance(path) == Glance(standing=Recorded.INTERRUPTED, runs=3)


def test_a_file_that_is_not_there(path):
    assert glance(path).standing is Recorded.INTERRUPTED
    assert not path.exists()
