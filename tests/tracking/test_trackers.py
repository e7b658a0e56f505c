"""TensorBoard, Weights & Biases and Trackio show what the log holds, read back with their own libraries."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.events import Labelled, OperationObeyed, Recorded, RunRolledBack
from rf_notebook.core.labels import Label
from rf_notebook.core.operations import StopRun
from rf_notebook.core.run import MetricPoint, Progress, RunConfig
from rf_notebook.tracking.tracker_mirror import TrackerMirror
from rf_notebook.tracking.trackers import TRACKERS, track_argument, trackers_of
from tests.tracking.test_mlflow_mirror import CONFIG, EVENTS, chunk

MORE = [
    *EVENTS[:4],
    chunk(2, 2),
    *EVENTS[4:],
    OperationObeyed(
        operation=StopRun(run_id=1),
        steps=8,
        samples=16,
        origin="policy",
        reason="token=hf_" + "x" * 34,
    ),
    Labelled(run_id=1, label=Label(name="<b>best</b>", tags=("a", "b"), note="why")),
]
RECORDED = [Recorded(seq=i, at=1000.0 + i, event=event) for i, event in enumerate(MORE, start=1)]
#: What all of them have to show of run 1.
LOSSES = {step: 1.0 / step for step in range(1, 9)}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("TRACKIO_DIR", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)


def mirror(
    tracker: str, folder: Path, recorded: list[Recorded], log: logging.Logger | None = None
) -> TrackerMirror:
    made = TrackerMirror(tracker, folder, "exp", "0123abcd", log=log or logging.Logger("test"))
    made.start(recorded)
    return made


def tensorboard(folder: Path) -> dict[str, dict[str, Any]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for run in (folder / "tensorboard").iterdir():
        events = EventAccumulator(str(run), size_guidance={"tensors": 0, "scalars": 0})
        events.Reload()
        tags = events.Tags()
        losses = events.Scalars("train/loss") if "train/loss" in tags["scalars"] else []
        texts = [e.tensor_proto.string_val[0].decode() for e in events.Tensors("run/text_summary")]
        hparams = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        found[run.name] = {
            "losses": [(event.step, event.value) for event in losses],
            "told": json.loads("".join(line[4:] for line in texts[-1].splitlines())),
            "config": hparams.decode(errors="replace"),
        }
    return found


def wandb(folder: Path) -> dict[str, dict[str, Any]]:
    """W&B has no reader of its own for these files; the messages in them are read by its library."""
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, dict[str, Any]] = {}
    for file in sorted((folder / "wandb").glob("wandb/offline-run-*/*.wandb")):
        losses, told, config, name = [], {}, "", ""
        for data in leveldb_records(file.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                config += str(record.run.config)
                name, tags, notes = record.run.display_name, list(record.run.tags), record.run.notes
                told |= {"name": name, "tags": ", ".join(tags), "note": notes}
                number = record.run.run_id.rpartition("-")[2]
            for item in record.summary.update:
                told[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
            values = {
                item.key or ".".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            if "train/loss" in values:
                losses.append((values["_step"], values["train/loss"]))
        assert f"run {number}" not in found, "a run was written twice"
        found[f"run {number}"] = {"losses": losses, "told": told, "config": config}
    return found


def leveldb_records(data: bytes) -> list[bytes]:
    """Records of a file in blocks of 32 KiB, in parts: whole, first, middle, last."""
    found, block, place = [], b"", 7
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        block += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            found.append(block)
            block = b""
    return found


def trackio(folder: Path) -> dict[str, dict[str, Any]]:
    """Read in a process of its own: the library looks for its folder when it is imported."""
    code = """
import json, trackio
from trackio.sqlite_storage import SQLiteStorage
found = {}
for run in trackio.Api().runs("exp"):
    logs = SQLiteStorage.get_logs("exp", run.name, run_id=run.id)
    found[run.name] = {
        "losses": [(one["step"], one["train/loss"]) for one in logs if "train/loss" in one],
        "config": json.dumps(run.config), "alerts": [(a["title"], a["text"]) for a in run.alerts()],
    }
print(json.dumps(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TRACKIO_DIR": str(folder / "trackio")},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    for run in found.values():
        run["losses"] = [tuple(one) for one in run["losses"]]
    return {name.partition(" (")[0]: run for name, run in found.items()}


READERS = {"tensorboard": tensorboard, "wandb": wandb, "trackio": trackio}


def check_losses(shown: dict[str, dict[str, Any]], run: str = "run 1") -> None:
    """Every step once, in order."""
    losses = shown[run]["losses"]
    assert [step for step, _ in losses] == list(LOSSES)
    assert dict(losses) == pytest.approx(LOSSES, rel=1e-6)


@pytest.mark.parametrize("tracker", TRACKERS)
def test_figures_configs_lineage_labels_and_operations_are_shown(
    tracker: str, tmp_path: Path
) -> None:
    assert mirror(tracker, tmp_path, RECORDED).close(120)
    shown = READERS[tracker](tmp_path)
    check_losses(shown)
    everything = json.dumps(shown)
    assert "learning_rate" in shown["run 1"]["config"]
    assert "warm_start" in everything
    for secret in ("$secret", "hf_xxx"):
        assert secret not in everything
    if tracker == "trackio":
        alerts = dict(shown["run 1"]["alerts"])
        assert alerts["completed"] is None
        assert alerts["labelled"] == "<b>best</b>, a, b, why"
        assert any(title.startswith("stop at step 8 (policy)") for title in alerts)
        return
    told, failed = shown["run 1"]["told"], shown["run 2"]["told"]
    assert (told["name"], told["state"], told["note"]) == ("<b>best</b>", "completed", "why")
    assert told["tags"] == "a, b"
    assert told["operations"][0].startswith("stop at step 8 (policy)")
    assert (failed["state"], failed["error"]) == ("failed", "bad row")


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_killed_process_and_a_kernel_that_starts_again_leave_every_step_once(
    tracker: str, tmp_path: Path
) -> None:
    first = mirror(tracker, tmp_path, RECORDED[:3])
    until = time.monotonic() + 120
    while first.is_behind and time.monotonic() < until:
        time.sleep(0.05)
    link = first._link  # noqa: SLF001 - its process is killed
    assert link is not None
    os.kill(link.pid, signal.SIGKILL)
    first.notify(RECORDED[3:6])
    assert first.close(120)
    again = mirror(tracker, tmp_path, RECORDED)  # the next kernel's
    assert again.close(120)
    check_losses(READERS[tracker](tmp_path))


def test_what_is_trained_again_after_a_damaged_checkpoint_is_shown_once(tmp_path: Path) -> None:
    back = Progress(steps=4, samples=8, chunks=1, total_steps=8, total_samples=16, total_chunks=2)
    rolled = RunRolledBack(run_id=1, damaged="runs/1/8", progress=back, reason="damaged")
    events = [EVENTS[0], chunk(1, 8), rolled, chunk(1, 8, first=5)]
    recorded = [Recorded(seq=i, at=float(i), event=event) for i, event in enumerate(events, 1)]
    assert mirror("tensorboard", tmp_path, recorded).close(120)
    check_losses(tensorboard(tmp_path))


def test_what_a_user_put_beside_the_runs_stays(tmp_path: Path) -> None:
    mine = tmp_path / "tensorboard" / "plain trl" / "events.out.mine"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    for _ in range(2):
        assert mirror("tensorboard", tmp_path, RECORDED).close(120)
    assert mine.read_text() == "mine"
    assert len(list((tmp_path / "tensorboard" / "run 1").iterdir())) == 1


def test_what_a_library_has_to_finish_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, own = [], TrackerMirror.disconnect

    def slowly(self: TrackerMirror) -> None:
        time.sleep(2.0)
        own(self)
        ended.append(True)

    monkeypatch.setattr(TrackerMirror, "disconnect", slowly)
    made = mirror("tensorboard", tmp_path, RECORDED)
    until = time.monotonic() + 120
    while made.is_behind and time.monotonic() < until:
        time.sleep(0.05)
    assert not made.close(0.1)
    assert ended == []
    assert made.has_ended(30)
    made = mirror("tensorboard", tmp_path, RECORDED)
    assert made.close(60)
    assert ended == [True, True]


def test_a_library_that_refuses_ends_its_mirror_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # nobody has logged in there
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    log = logging.getLogger("test of trackers")
    made = mirror("wandb", tmp_path, RECORDED, log)
    assert made.has_ended(120)
    said = [record.getMessage() for record in caplog.records if record.name == log.name]
    assert len(said) == 1
    assert said[0].startswith("Weights & Biases is not written: ")
    assert "Run wandb login, or set WANDB_MODE=offline" in said[0]
    assert not made.close(5)


def test_an_event_that_is_never_taken_is_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = TrackerMirror(
        "tensorboard", tmp_path, "exp", "id", log=logging.getLogger("test of trackers")
    )
    point = MetricPoint(step=1, samples=1, epoch=0.1, chunk=1, metrics={"loss": "low"})  # type: ignore[dict-item]
    broken = Recorded(seq=0, at=1.0, event=replace(chunk(1, 1), points=(point,)))
    made.start([RECORDED[0], broken, *RECORDED[1:]])
    until = time.monotonic() + 240
    while made.is_behind and time.monotonic() < until:
        time.sleep(0.1)
    assert made.close(60)
    said = [record.getMessage() for record in caplog.records]
    assert said[-1] == "TensorBoard does not take a part of the record"
    check_losses(tensorboard(tmp_path))  # of the events that come after it


@pytest.mark.parametrize(
    "link", ["tensorboard", "wandb", "wandb/wandb", "trackio", "trackio/exp.db"]
)
def test_nothing_is_followed_or_removed_through_a_link(link: str, tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "experiment", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.txt").write_text("mine")
    (folder / link).parent.mkdir(parents=True)
    target = elsewhere / "mine.txt" if link.endswith(".db") else elsewhere
    (folder / link).symlink_to(target, target_is_directory=target.is_dir())
    made = mirror(link.partition("/")[0], folder, RECORDED)
    assert made.has_ended(120), "its sentence ends it"
    assert [file.name for file in elsewhere.iterdir()] == ["mine.txt"]
    assert (elsewhere / "mine.txt").read_text() == "mine"


def test_the_process_is_left_alone_and_nothing_listens(tmp_path: Path) -> None:
    code = f"""
import json, logging, os, random, signal, sys, threading
from pathlib import Path
from tests.tracking.test_trackers import RECORDED, mirror
def now():
    return (dict(os.environ), random.getstate(), [signal.getsignal(n) for n in (2, 15)], os.getcwd(),
            [n for n in ("wandb", "trackio", "tensorboard") if n in sys.modules])
before = now()
folder = Path({str(tmp_path)!r})
mirrors = []
for tracker in ("tensorboard", "wandb", "trackio"):
    mirrors.append(mirror(tracker, folder, RECORDED))
for one in mirrors:
    assert one.close(120)
assert now() == before
print(json.dumps([t.name for t in threading.enumerate()]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == ["MainThread"]  # and nothing else was printed
    assert done.stderr == ""
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tensorboard", "trackio", "wandb"]


def config(**training: Any) -> RunConfig:
    return RunConfig(method="SFT", model={}, peft={}, training=training, extras={})


def test_track_names_trackers_and_report_to_does_where_it_is_omitted() -> None:
    assert track_argument(None) is None
    assert track_argument("wandb") == ("wandb",)
    assert track_argument([]) == ()
    assert track_argument(["mlflow", "trackio", "mlflow"]) == ("mlflow", "trackio")
    for given in ("comet", 3, [None], {"wandb": 1}):
        with pytest.raises(ConfigError, match=r"run_fit\(track="):
            track_argument(given)
    assert trackers_of([CONFIG]) == (("mlflow",), [])
    found, told = trackers_of([config(report_to=["wandb", "mlflow"]), config(report_to="trackio")])
    assert (found, told) == (("mlflow", "wandb", "trackio"), [])
    found, told = trackers_of([config(report_to="comet_ml"), config(report_to="all")])
    assert found == ("mlflow",)
    assert [text.partition(" has no effect")[0] for text in told] == [
        "report_to='comet_ml'",
        "report_to='all'",
    ]


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({"RF_TENSORBOARD_ENABLED": "true"}, ("mlflow", "tensorboard")),
        ({"RF_TRACKIO_ENABLED": "True", "RF_MLFLOW_ENABLED": "false"}, ("trackio",)),
        ({"RF_TRACKING_BACKEND": "both"}, ("mlflow", "tensorboard")),
        ({"RF_TRACKING_BACKEND": "mlflow", "RF_TRACKIO_ENABLED": "false"}, ("mlflow",)),
        ({"RF_WANDB_ENABLED": "true", "RF_TENSORBOARD_ENABLED": "maybe"}, ("mlflow",)),
    ],
)
def test_variables_of_the_reference_switch_trackers(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], found: tuple[str, ...]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert trackers_of([config()]) == (found, [])


def test_a_tracker_whose_library_is_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRACKERS, "wandb", ("Weights & Biases", "no_such_package"))
    for ask in (
        lambda: track_argument(["wandb"]),
        lambda: trackers_of([config(report_to="wandb")]),
    ):
        with pytest.raises(ConfigError, match=r"pip install 'rf-notebook\[wandb\]'"):
            ask()
