"""Recorded notebooks, replayed by a process that has nothing but the file.

And notebooks in which one thing was altered.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest

from rf_notebook import ConfigError
from rf_notebook.record.record import RECORD_MIME, part_digests, record_digest
from rf_notebook.shared import SharedExperiment
from tests import warm
from tests.replay.notebooks import NOTEBOOKS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]


def python(module, *arguments, cwd=ROOT, check=True):
    command = [*warm.python(), "-W", "ignore", "-m", module, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=500
    )
    assert not check or done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    return done


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A folder with the twelve exported notebooks, and the experiments behind them."""
    folder = tmp_path_factory.mktemp("recorded")
    killed = python("tests.replay.recorder", folder, "killed", check=False)
    assert killed.returncode == -9, killed.stderr[-2000:]
    python("tests.replay.recorder", folder, *NOTEBOOKS)
    return folder


@pytest.fixture
def alone(recorded, tmp_path, monkeypatch):
    """Takes one notebook to a folder where there is nothing else, and lets the test alter it."""
    monkeypatch.chdir(tmp_path)

    def take(name, alter=lambda notebook: None):
        notebook = nbformat.read(recorded / f"{name}.ipynb", as_version=4)
        alter(notebook)
        nbformat.write(notebook, tmp_path / "received.ipynb")
        return SharedExperiment("received.ipynb")

    return take


def record_in(notebook):
    return next(
        o["data"][RECORD_MIME]
        for cell in notebook.cells
        for o in cell.get("outputs", ())
        if "data" in o
    )


def replace_in_cells(old, new):
    def alter(notebook):
        cells = [cell for cell in notebook.cells if cell.cell_type == "code" and old in cell.source]
        assert cells
        for cell in cells:
            cell.source = cell.source.replace(old, new)

    return alter


def test_twelve_notebooks_replay_to_the_same_log_and_the_same_digests(recorded, tmp_path):
    names = list(NOTEBOOKS)
    assert len(names) == 12
    for name in names:
        shutil.copy(recorded / f"{name}.ipynb", tmp_path)
    done = python("tests.replay.replayer", *(f"{name}.ipynb" for name in names), cwd=tmp_path)
    replays = json.loads(done.stdout.splitlines()[-1])
    kinds = set()
    for name in names:
        replay = replays[f"{name}.ipynb"]
        assert "error" not in replay, replay
        record = record_in(nbformat.read(recorded / f"{name}.ipynb", as_version=4))
        told = [message for message in replay["messages"] if message.startswith("the replay of")]
        chunks = sum(len(result["chunks"]) for result in record["results"])
        assert told == [
            f"the replay of {name!r} is equal: {len(record['results'])} runs, {chunks} chunks, "
            f"{len(record['operations'])} operations, bit for bit."
        ]
        assert replay["equal"]
        assert replay["log"] == [
            [one["what"], one["run"], one["steps"], one["samples"], one["run_state"]]
            for one in record["operations"]
        ]
        for before, now in zip(record["results"], replay["results"], strict=True):
            assert now["chunks"] == before["chunks"]
            assert [chunk["weights"] for chunk in now["chunks"]].count("") == 0
            assert now["metrics"] == before["metrics"]
            assert now["failure"] == before["failure"]
        kinds |= {one["what"] for one in record["operations"]} | {
            result["state"] for result in record["results"]
        }
        kinds |= {config["method"] for config in record["spec"]["configs"]}
    assert kinds >= {
        "stop",
        "resume",
        "clone",
        "delete",
        "failed",
        "stopped",
        "deleted",
        "SFT",
        "DPO",
        "GRPO",
    }


def test_nothing_happens_before_a_yes(alone, tmp_path):
    shared = alone(
        "formatted", replace_in_cells("def shout", "open('touched', 'w').close()\ndef shout")
    )
    planned = shared.replay()
    text = str(planned)
    assert "2 runs (SFT), 48 steps in all, over 24 rows, to be equal bit for bit" in text
    assert "open('touched', 'w').close()" in text
    assert "recorded cell 2 was changed" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["received.ipynb"]


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("plain", "seed=1", "seed=2", ["seed was 1 and is 2", "run 1: training_args.seed was 1 and is 2"]),
        ("plain", "List([1e-3, 3e-3])", "List([1e-3, 4e-3])", ["run 2: training_args.learning_rate was 0.003 and is 0.004"]),
        (
            "plain",
            "rows, held_out = prompt_rows(24, 1)",
            'rows, held_out = [{**row, "completion": " a fox"} if i == 4 else row for i, row in enumerate(prompt_rows(24, 1))]',
            ["train_dataset was changed in row 5."],
        ),
        ("plain", "prompt_rows(6, 2)", "prompt_rows(7, 2)", ["eval_dataset had 6 rows and has 7"]),
        (
            "formatted",
            'row["prompt"].upper()',
            'row["prompt"].lower()',
            ["function shout was changed (", '-    return {"prompt": row["prompt"].upper()', '+    return {"prompt": row["prompt"].lower()'],
        ),
        ("stops", "num_chunks=3", "num_chunks=2", ["num_chunks was 3 and is 2"]),
    ],
)  # fmt: skip
def test_what_the_cells_make_otherwise_is_named_before_anything_is_trained(
    alone, tmp_path, name, old, new, told
):
    shared = alone(name, replace_in_cells(old, new))
    assert not shared.verify()
    with pytest.raises(ConfigError) as refused:
        shared.replay(yes=True)
    message = str(refused.value)
    assert "the cells do not make what was recorded" in message
    for words in told:
        assert words in message
    changes = message.partition("recorded: ")[2].partition(". Replay an unchanged")[0]
    assert changes.count("; ") + 1 <= len(told) + (name == "plain" and "seed" in old)
    assert not (tmp_path / "rf_experiments" / f"{name}-replay" / "runs").exists()


def test_an_altered_operation_is_named(alone):
    def alter(notebook):
        record_in(notebook)["operations"][1]["steps"] += 1

    shared = alone("stops", alter)
    assert [finding.text for finding in shared.verify() if not finding.is_right] == [
        "operation 2 was changed after it was recorded"
    ]
    with pytest.raises(
        ConfigError, match="cannot be replayed: operation 2 was changed after it was recorded"
    ):
        shared.replay(yes=True)


def test_an_altered_operation_with_digests_computed_anew_gives_other_results_and_the_first_is_named(
    alone,
):
    def alter(notebook):
        record = record_in(notebook)
        record["operations"][0]["steps"] += 1
        record["operations"][0]["samples"] += 2
        record["parts"] = part_digests(record)
        record["digest"] = record_digest(record)

    shared = alone("stops", alter)
    assert shared.verify()
    again = shared.replay(yes=True)
    again.wait()
    again.end()
    steps = shared.record.operations[0].steps
    assert f"a chunk ends at step {steps} that ended at step {steps - 1}" in again.messages[-1]
    compared = shared.compare(again)
    assert compared.equal.tolist() == [False, True]


def test_a_replay_until_a_chunk_is_paused_there_and_the_users(alone):
    shared = alone("warm")
    with pytest.raises(ConfigError, match="write RUN@CHUNK"):
        shared.replay(until="soon", yes=True)
    with pytest.raises(ConfigError, match="there is no run 9"):
        shared.plan(until="9@1")
    fork = shared.replay("fork", until="2@1", yes=True)
    try:
        from tests.api.world import until

        until(lambda: any("paused and yours" in message for message in fork.messages))
        assert fork.run(2).steps >= 4
        assert all(run.state != "completed" for run in fork.runs)
        fork.stop(2).result()
        made = fork.clone(1, {"learning_rate": 7e-4}).result()
        fork.resume().result()
        fork.stop([run.id for run in fork.runs if run.id not in (1, 2, made.id)]).result()
        fork.wait()
        assert made.state == "completed"
        assert fork.run(2).state == "stopped"
    finally:
        fork.end(cancel=True)


def test_the_difference_of_two_notebooks_is_told_part_by_part(recorded):
    first, second = (SharedExperiment(recorded / f"{name}.ipynb") for name in ("plain", "stops"))
    frame = first.diff(second)
    assert set(frame.part) == {"code", "operations", "results"}
    told = frame[frame.part == "operations"]
    assert told["first"].tolist() == ["-", "-", "-"]
    assert told["second"].iloc[0].startswith("stop run 1 at step ")
    assert first.diff(first).empty
    others = first.diff(SharedExperiment(recorded / "dpo.ipynb"))
    assert {"configs", "data"} <= set(others.part)


def test_the_experiments_own_folder_holds_its_record_and_can_be_replayed_from_it(
    recorded, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copy(recorded / "rf_experiments" / "clones" / "record.json", tmp_path)
    shared = SharedExperiment("record.json")
    assert shared.verify()
    assert shared.record.as_json() == record_in(
        nbformat.read(recorded / "clones.ipynb", as_version=4)
    )
    again = shared.replay(yes=True)
    again.wait()
    again.end()
    assert shared.compare(again).equal.all()
    assert SharedExperiment(again.folder).diff(shared).part.isin(["operations"]).all()
