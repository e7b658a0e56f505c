"""MLflow shows what the log holds, late if need be, never twice, and never in the way."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time

import pytest

from rf_notebook.core.events import (
    ChunkTrained,
    Labelled,
    Recorded,
    RunAdded,
    RunFailed,
    StateChanged,
    WarmStarted,
)
from rf_notebook.core.labels import Label
from rf_notebook.core.run import (
    Failure,
    MetricPoint,
    Progress,
    RunConfig,
    RunState,
    StoredFolder,
    WarmStartReport,
)
from rf_notebook.tracking.mlflow_mirror import MlflowMirror

CONFIG = RunConfig(
    method="SFT",
    model={"model_name": "m", "model_kwargs": {"token": {"$secret": "token"}}},
    peft={"r": 8, "target_modules": ["q", "v"]},
    training={"learning_rate": 1e-3, "hub_token": {"$secret": "hub_token"}},
    extras={"formatting_func": {"$object": "format_row@abc"}},
)


def chunk(run_id, steps, *, total=8, first=1):
    points = tuple(
        MetricPoint(
            step=s, samples=2 * s, epoch=s / 8, chunk=1, metrics={"loss": 1.0 / s, "odd/name!": 2.0}
        )
        for s in range(first, steps + 1)
    )
    progress = Progress(
        steps=steps,
        samples=2 * steps,
        chunks=1,
        total_steps=total,
        total_samples=16,
        total_chunks=2,
    )
    folder = StoredFolder(
        path=f"runs/{run_id}/{steps}", sha256="0", steps=steps, samples=2 * steps, bytes=1
    )
    return ChunkTrained(
        run_id=run_id,
        progress=progress,
        points=points,
        checkpoint=folder,
        train_seconds=1.0,
        overhead_seconds=0.1,
    )


EVENTS = [
    RunAdded(run_id=1, config=CONFIG),
    RunAdded(
        run_id=2,
        config=CONFIG,
        parent_id=1,
        warm_start=StoredFolder(path="a", sha256="b", steps=1, samples=1, bytes=1),
    ),
    chunk(1, 4),
    WarmStarted(run_id=2, report=WarmStartReport(copied=("x",))),
    RunFailed(run_id=2, failure=Failure(message="bad row", traceback="...")),
    chunk(1, 8, first=5),
    StateChanged(run_id=1, state=RunState.COMPLETED),
]
RECORDED = [Recorded(seq=i, at=1000.0 + i, event=event) for i, event in enumerate(EVENTS, start=1)]
LOG = logging.Logger("test")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    files = tmp_path / "runs" / "1" / "8"
    files.mkdir(parents=True)
    (files / "adapter_model.safetensors").write_bytes(b"weights")
    (files / "adapter_config.json").write_text("{}")
    return tmp_path


def mirror(folder, recorded, *, identity="one", **kwargs):
    made = MlflowMirror(folder, "exp", identity, log=LOG, **kwargs)
    made.start(recorded)
    return made


def runs_of(uri):
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("exp")
    found = client.search_runs([experiment.experiment_id], order_by=["attribute.start_time ASC"])
    return client, {int(run.data.tags["rf_notebook.run_id"]): run for run in found}


def own(folder):
    return f"sqlite:///{folder / 'mlflow.db'}"


def test_one_run_a_run_with_params_metrics_tags_status_and_adapter(folder):
    assert mirror(folder, RECORDED).close(60)
    client, runs = runs_of(own(folder))
    first, second = runs[1], runs[2]
    assert first.info.status == "FINISHED"
    assert first.info.end_time == 1007_000
    assert first.data.params["peft_config.r"] == "8"
    assert first.data.params["training_args.learning_rate"] == "0.001"
    assert first.data.params["formatting_func"] == "format_row@abc"
    assert first.data.params["training_args.hub_token"] == "[redacted]"
    history = client.get_metric_history(first.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(s, 1.0 / s) for s in range(1, 9)]
    assert first.data.metrics["odd/name_"] == 2.0
    assert second.info.status == "FAILED"
    assert second.data.tags["parent"] == "1"
    assert second.data.tags["warm_start"] == "true"
    assert second.data.tags["warm_start_report"] == "warm start: 1 copied"
    assert second.data.tags["error"] == "bad row"
    artifacts = [a.path for a in client.list_artifacts(first.info.run_id, "adapter")]
    assert artifacts == ["adapter/adapter_config.json", "adapter/adapter_model.safetensors"]


def test_the_next_kernel_writes_what_a_kill_left_out_and_nothing_twice(folder):
    assert mirror(folder, RECORDED[:3]).close(60)
    _, runs = runs_of(own(folder))
    assert runs[1].info.status == "RUNNING"
    assert runs[2].info.status == "SCHEDULED"
    assert mirror(folder, RECORDED).close(60)
    assert mirror(folder, RECORDED).close(60)
    client, runs = runs_of(own(folder))
    assert len(client.get_metric_history(runs[1].info.run_id, "loss")) == 8
    assert runs[1].info.status == "FINISHED"


def test_steps_that_are_trained_again_are_not_written_again(folder):
    again = [
        *RECORDED[:3],
        *(
            Recorded(seq=s, at=2000.0 + s, event=e)
            for s, e in ((4, chunk(1, 4)), (5, chunk(1, 8, first=5)))
        ),
    ]
    assert mirror(folder, again).close(60)
    client, runs = runs_of(own(folder))
    assert [m.step for m in client.get_metric_history(runs[1].info.run_id, "loss")] == list(
        range(1, 9)
    )


def test_a_database_whose_creation_was_cut_off_is_made_anew(folder):
    with sqlite3.connect(folder / ".mlflow.db.unfinished") as connection:
        connection.execute("CREATE TABLE datasets (a)")
    connection.close()
    assert mirror(folder, RECORDED).close(60)
    assert runs_of(own(folder))[1][1].info.status == "FINISHED"


def test_experiments_of_one_name_on_one_server_keep_their_runs_apart(folder):
    uri = own(folder)
    assert mirror(folder, RECORDED, identity="one").close(60)
    assert mirror(folder, RECORDED[:3], identity="two", tracking_uri=uri).close(60)
    client, _ = runs_of(uri)
    experiment = client.get_experiment_by_name("exp")
    assert len(client.search_runs([experiment.experiment_id])) == 4


def test_a_locked_database_delays_and_fails_nothing(folder):
    assert mirror(folder, RECORDED[:2]).close(60)
    lock = sqlite3.connect(folder / "mlflow.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    late = mirror(folder, RECORDED[:2])
    started = time.perf_counter()
    late.notify(RECORDED[2:])
    assert time.perf_counter() - started < 0.05
    assert late.close(0.5) is False
    lock.execute("ROLLBACK")
    lock.close()
    assert mirror(folder, RECORDED).close(60)
    assert runs_of(own(folder))[1][1].info.status == "FINISHED"


def test_a_server_that_is_not_there_is_no_error(folder):
    (folder / "file").write_text("a database cannot be made below a file, not even by root")
    away = mirror(folder, RECORDED, tracking_uri=f"sqlite:///{folder / 'file' / 'mlflow.db'}")
    assert away.close(1.0) is False


def test_without_mlflow_nothing_is_written_and_nothing_fails(folder, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "mlflow", None)
    missing = mirror(folder, RECORDED)
    assert missing.has_ended(10)
    missing.notify(RECORDED)
    missing.close(0.1)


def test_importing_mlflow_starts_no_usage_reports():
    import subprocess
    import sys

    code = """
import os, threading
for name in ("CI", "MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"): os.environ.pop(name, None)
from rf_notebook.core.telemetry import without_telemetry
before = dict(os.environ)
with without_telemetry():
    import mlflow
from mlflow.telemetry import get_telemetry_client
assert get_telemetry_client() is None
assert dict(os.environ) == before
assert threading.active_count() == 1
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


def test_the_mirrors_thread_has_a_name_and_ends(folder):
    made = mirror(folder, RECORDED)
    assert "rf-mlflow-exp" in [thread.name for thread in threading.enumerate()]
    assert made.close(60)
    assert made.has_ended(5)


def test_a_kill_between_a_runs_creation_and_its_parameters_loses_nothing(folder, monkeypatch):
    import mlflow

    def killed(*args, **kwargs):
        raise SystemExit  # as good as a kill: nothing of the mirror's runs after it

    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "log_batch", killed)
        first = mirror(folder, RECORDED[:1])
        until = time.monotonic() + 30
        while not first.refusals and time.monotonic() < until:
            time.sleep(0.01)
        first.close(0.1)
    assert runs_of(own(folder))[1][1].data.params == {}
    assert mirror(folder, RECORDED).close(60)
    _, runs = runs_of(own(folder))
    assert len(runs) == 2
    assert runs[1].data.params["peft_config.r"] == "8"
    assert runs[1].info.status == "FINISHED"


def test_an_experiment_that_was_deleted_in_mlflow_is_restored_and_catches_up(folder):
    assert mirror(folder, RECORDED[:3]).close(60)
    client, _ = runs_of(own(folder))
    client.delete_experiment(client.get_experiment_by_name("exp").experiment_id)
    assert mirror(folder, RECORDED).close(60)
    assert runs_of(own(folder))[1][1].info.status == "FINISHED"


def test_an_experiment_that_is_deleted_while_it_trains_is_restored(folder):
    made = mirror(folder, RECORDED[:3])
    while made.is_behind:
        time.sleep(0.01)
    client, _ = runs_of(own(folder))
    client.delete_experiment(client.get_experiment_by_name("exp").experiment_id)
    made.notify(RECORDED[3:])
    assert made.close(60)
    assert runs_of(own(folder))[1][1].info.status == "FINISHED"


def test_a_run_that_was_deleted_in_mlflow_is_left_alone_and_holds_nothing_up(folder):
    assert mirror(folder, RECORDED[:3]).close(60)
    client, runs = runs_of(own(folder))
    client.delete_run(runs[2].info.run_id)
    assert mirror(folder, RECORDED).close(60)
    _, left = runs_of(own(folder))
    assert left.keys() == {1}
    assert left[1].info.status == "FINISHED"


@pytest.mark.parametrize("name", ["half%20done", "why?", "100%", "a#b;c&d=e ä"])
def test_any_folder_will_do_and_nothing_is_made_beside_it(tmp_path, monkeypatch, name):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    folder = tmp_path / name
    folder.mkdir()
    assert mirror(folder, RECORDED[:3]).close(60)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with sqlite3.connect(folder / "mlflow.db") as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (2,)
    connection.close()


def test_the_end_does_not_wait_for_what_refuses_everything(folder):
    (folder / "file").write_text("not a folder")
    away = mirror(folder, RECORDED, tracking_uri=f"sqlite:///{folder / 'file' / 'mlflow.db'}")
    away.refusals = 3
    started = time.monotonic()
    assert away.close(60) is False
    assert time.monotonic() - started < 30


def test_labels_are_the_name_the_tags_and_the_description(folder):
    def labelled(run_id, seq, **label):
        return Recorded(seq=seq, at=3000.0, event=Labelled(run_id=run_id, label=Label(**label)))

    events = [
        *RECORDED,
        labelled(1, 20, name="small rate", tags=("keep", "paper"), note="token hf_" + "a" * 34),
        labelled(2, 21, name="gone"),
        labelled(None, 22, tags=("first",), note="rates"),
        labelled(2, 23),
    ]
    assert mirror(folder, events).close(60)
    client, runs = runs_of(own(folder))
    assert runs[1].info.run_name == "small rate"
    assert runs[1].data.tags["tags"] == "keep, paper"
    assert runs[1].data.tags["mlflow.note.content"] == "token [redacted]"
    assert runs[1].info.status == "FINISHED"
    assert (runs[2].info.run_name, runs[2].data.tags["tags"]) == ("run 2", "")
    tags = client.get_experiment_by_name("exp").tags
    assert (tags["tags"], tags["mlflow.note.content"]) == ("first", "rates")
