"""One suite for every EventStore."""

import math
import sqlite3
import subprocess
import sys

import pytest

from rf_notebook.core.errors import LeaseLost, ReadOnlyExperiment, StorageFull, StoreError
from rf_notebook.core.events import (
    BaseModelLoaded,
    CheckpointsRemoved,
    ChunkTrained,
    ExperimentEnded,
    FunctionsRecorded,
    Labelled,
    LaunchRecorded,
    Noted,
    OperationObeyed,
    PolicyChanged,
    RunAdded,
    RunFailed,
    RunPinned,
    RunRolledBack,
    SamplesWritten,
    StateChanged,
    WarmStarted,
)
from rf_notebook.core.labels import Label
from rf_notebook.core.operations import CloneRun, StopRun
from rf_notebook.core.ports import Holder
from rf_notebook.core.run import (
    Failure,
    Generation,
    LoadedModel,
    MetricPoint,
    Progress,
    RunConfig,
    RunState,
    StoredFolder,
    WarmStartReport,
)
from rf_notebook.store.chain import insert
from rf_notebook.store.lease import this_process
from rf_notebook.store.memory import MemoryStore
from rf_notebook.store.sqlite import SqliteStore

CONFIG = RunConfig(
    method="SFT", model={"model_name": "x"}, peft={"r": 8}, training={"learning_rate": 1e-300}
)
FOLDER = StoredFolder(path="runs/1/4", sha256="0" * 64, steps=4, samples=8, bytes=10)
POINT = MetricPoint(step=4, samples=8, epoch=0.1, chunk=1, metrics={"loss": 0.1, "best": -1e308})
EVENTS = [
    LaunchRecorded(
        cells=("a = 1\n", "run()"),
        search=[{"trainer_type": "SFT", "lr": {"$list": [0.1, 1e-5]}}],
        options={"fail_on_nan": False},
        data={"train": None},
        environment={"threads": 2},
    ),
    FunctionsRecorded(functions={"f@0123": "def f(row):\n    return row\n"}),
    BaseModelLoaded(model=LoadedModel(chosen_by={"model_name": "x"}, facts={"parameters": 3})),
    RunAdded(run_id=1, config=CONFIG),
    RunAdded(run_id=2, config=CONFIG, parent_id=1, edits={"peft_config.r": 4}, warm_start=FOLDER),
    SamplesWritten(
        run_id=2, steps=4, samples=8, generations=(Generation(prompt="p", text="t\u202e<b>"),)
    ),
    WarmStarted(run_id=2, report=WarmStartReport(copied=("a",), shrunk={"b": 0.25})),
    ChunkTrained(
        run_id=1,
        progress=Progress(
            steps=4, samples=8, epoch=0.1, chunks=1, total_steps=8, total_samples=16, total_chunks=2
        ),
        points=(POINT,),
        checkpoint=FOLDER,
        train_seconds=1.5,
        overhead_seconds=0.1,
        own_bytes=7,
    ),
    RunRolledBack(run_id=1, damaged="runs/1/4", progress=Progress(), reason="flipped"),
    StateChanged(run_id=1, state=RunState.STOPPED),
    RunFailed(
        run_id=2,
        failure=Failure(
            message="bad row", traceback="Traceback\n  ...", out_of_memory=True, peak_bytes=3
        ),
    ),
    CheckpointsRemoved(run_id=1, paths=("runs/1/2",), reason="newer"),
    OperationObeyed(operation=StopRun(run_id=1), steps=4, samples=8, origin="python"),
    OperationObeyed(
        operation=CloneRun(run_id=1, config=CONFIG, edits={}), steps=4, samples=8, origin="button"
    ),
    OperationObeyed(
        operation=StopRun(run_id=2), steps=4, samples=8, origin="halving", reason="the last of 8."
    ),
    PolicyChanged(name="halving"),
    PolicyChanged(name=None),
    RunPinned(run_id=1, pinned=True),
    Labelled(run_id=1, label=Label(name="small rate", tags=("keep", "paper"), note="two\nlines")),
    Labelled(run_id=None, label=Label(tags=("paper",))),
    Noted(text="<script>alert(1)</script> \u202e", run_id=1),
    ExperimentEnded(cancelled=True),
]


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
def store(request, tmp_path, clock):
    made = (
        MemoryStore(clock=clock)
        if request.param == "memory"
        else SqliteStore(tmp_path / "e.sqlite", clock=clock)
    )
    yield made
    made.close()


def elsewhere(pid=1):
    return Holder(host="another-host", pid=pid, process_started=1.0)


def test_events_come_back_as_they_were_and_in_order(store):
    fence = store.acquire(this_process())
    assert [r.seq for r in store.append(EVENTS[:5], fence)] == [1, 2, 3, 4, 5]
    store.append(EVENTS[5:], fence)
    assert [recorded.event for recorded in store.read()] == EVENTS
    assert [recorded.seq for recorded in store.read(after=9)] == list(range(10, len(EVENTS) + 1))
    assert {recorded.at for recorded in store.read()} == {1000.0}


def test_metric_values_survive_to_the_last_bit(store):
    values = {"tiny": 5e-324, "third": 1 / 3, "infinite": math.inf, "large": 1.7976931348623157e308}
    point = MetricPoint(step=1, samples=1, epoch=0.1, chunk=1, metrics={**values, "not": math.nan})
    event = ChunkTrained(
        run_id=1,
        progress=Progress(),
        points=(point,),
        checkpoint=None,
        train_seconds=0.0,
        overhead_seconds=0.0,
    )
    store.append([event], store.acquire(this_process()))
    (recorded,) = store.read()
    found = dict(recorded.event.points[0].metrics)
    assert math.isnan(found.pop("not"))
    assert found == values


def test_an_older_fence_writes_nothing(store):
    old = store.acquire(elsewhere())
    new = store.acquire(this_process(), take_over=True)
    with pytest.raises(LeaseLost, match="took this experiment over"):
        store.append([EVENTS[0]], old)
    with pytest.raises(LeaseLost):
        store.renew(old)
    store.append([EVENTS[1]], new)
    assert len(store.read()) == 1


def test_a_living_holder_keeps_the_lease_and_the_sentence_names_it(store):
    store.acquire(elsewhere(pid=4711))
    with pytest.raises(ReadOnlyExperiment, match=r"process 4711 on another-host.*take_over=True"):
        store.acquire(this_process())


def test_a_holder_elsewhere_that_is_silent_for_long_is_gone(store, clock):
    fence = store.acquire(elsewhere())
    clock.now += 50
    store.renew(fence)
    clock.now += 50
    with pytest.raises(ReadOnlyExperiment):
        store.acquire(this_process())
    clock.now += 20
    assert store.acquire(this_process()) == fence + 1


def test_a_dead_process_on_this_host_holds_nothing_from_the_moment_it_dies(store):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    import psutil

    mine = this_process()
    theirs = Holder(
        host=mine.host, pid=child.pid, process_started=psutil.Process(child.pid).create_time()
    )
    store.acquire(theirs)
    with pytest.raises(ReadOnlyExperiment):
        store.acquire(mine)
    assert store.living_holder() == theirs
    child.kill()
    child.wait()
    child.stdin.close()
    assert store.living_holder() is None
    store.acquire(mine)
    assert store.holder() == mine


def test_a_released_lease_is_free(store):
    store.release(store.acquire(elsewhere()))
    assert store.holder() is None
    store.acquire(this_process())


def test_a_file_that_is_no_record_is_refused(tmp_path):
    (tmp_path / "e.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match="cannot be used as an experiment's record"):
        SqliteStore(tmp_path / "e.sqlite")


@pytest.mark.parametrize(
    ("kind", "payload", "sentence"),
    [
        ("StateChanged", '{"run_id": 1, "state": "exploded"}', "damaged StateChanged"),
        ("StateChanged", "{", "damaged StateChanged"),
        ("RunAdded", '{"run_id": "__import__"}', "damaged RunAdded"),
        (
            "OperationObeyed",
            '{"operation": {"kind": "os.system"}, "steps": 1}',
            "damaged OperationObeyed",
        ),
        ("Exploit", "{}", "'Exploit' of version 1, which this rf_notebook does not know"),
    ],
)
def test_a_record_from_elsewhere_is_checked(tmp_path, kind, payload, sentence):
    SqliteStore(tmp_path / "e.sqlite").close()
    with sqlite3.connect(tmp_path / "e.sqlite") as connection:
        insert(connection, [(1, 0.0, kind, 1, payload)])
    connection.close()
    store = SqliteStore(tmp_path / "e.sqlite")
    with pytest.raises(StoreError, match=sentence):
        store.read()
    store.close()


def test_a_full_disk_is_told_and_nothing_is_half_written(tmp_path):
    store = SqliteStore(tmp_path / "e.sqlite")
    fence = store.acquire(this_process())
    store.append([EVENTS[0]], fence)
    pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
    store.connection.execute(f"PRAGMA max_page_count = {pages}")
    big = Noted(text="x" * 100_000)
    with pytest.raises(StorageFull, match="Free some disk space"):
        store.append([EVENTS[1], big], fence)
    assert [r.event for r in store.read()] == [EVENTS[0]]
    store.connection.execute("PRAGMA max_page_count = 100000")
    store.append([big], fence)
    assert len(store.read()) == 2
    store.close()


def test_the_journal_is_the_safe_one(tmp_path):
    store = SqliteStore(tmp_path / "e.sqlite")
    assert store.connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert store.connection.execute("PRAGMA synchronous").fetchone() == (2,)
    store.close()
    assert [path.name for path in tmp_path.iterdir()] == ["e.sqlite"]
