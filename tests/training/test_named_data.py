"""Data by its name: loaded, refused in a sentence, and recorded with its revision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from rf_notebook import ConfigError
from rf_notebook.automl import RFGridSearch
from rf_notebook.automl.yaml_grid import parse_grid
from rf_notebook.testing.tiny import create_tiny, text_rows
from rf_notebook.training.datasets import ExperimentData, as_dataset
from rf_notebook.training.named_data import revision_of
from tests.experiment_world import model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data = tmp_path / "my data"
    data.mkdir()
    for split, rows in (("train", 12), ("test", 4)):
        lines = [json.dumps({"text": row["text"]}) for row in text_rows(rows, rows)]
        (data / f"{split}.jsonl").write_text("\n".join(lines))
    return data


def test_a_run_trains_on_data_by_its_name(new: Any, folder: Path) -> None:
    experiment = new()
    experiment.run_fit(
        RFGridSearch(model(max_steps=4), "SFT"),
        create_tiny,
        str(folder),
        {"path": str(folder), "split": "test"},
        num_chunks=2,
        display=False,
    )
    experiment.wait()
    assert str(experiment.runs[0].state) == "completed", experiment.runs[0].traceback
    data = experiment.session.state.started.data
    assert (data["train"]["rows"], data["eval"]["rows"]) == (12, 4)
    experiment.end()


def test_a_file_is_read_by_its_ending(folder: Path) -> None:
    assert len(as_dataset(str(folder / "test.jsonl"), "eval_dataset")) == 4
    assert len(as_dataset(str(folder / "test.jsonl"), "train_dataset")) == 4


@pytest.mark.parametrize(
    ("given", "argument", "sentence"),
    [
        ("no/such-data", "train_dataset", "train_dataset='no/such-data' cannot be loaded"),
        ({"path": "x", "splitt": "train"}, "train_dataset", "did you mean 'split'"),
        (
            {"path": "FOLDER"},
            "eval_dataset",
            "has the splits 'train', 'test'; say which one, as in",
        ),
        ({"path": "FOLDER", "split": "dev"}, "eval_dataset", "cannot be loaded"),
    ],
)
def test_what_cannot_be_loaded_is_refused(
    folder: Path, given: Any, argument: str, sentence: str
) -> None:
    if isinstance(given, dict) and given["path"] == "FOLDER":
        given = given | {"path": str(folder)}
    with pytest.raises(ConfigError, match=sentence):
        as_dataset(given, argument)


def test_yaml_names_data_by_a_mapping_and_variables_by_their_name(folder: Path) -> None:
    text = f"""
model_name: tiny
training_args: {{max_steps: 2}}
train_dataset: {{path: '{folder}', split: train}}
eval_dataset: rows
track: [tensorboard]
"""
    rows = text_rows(3, 1)
    grid = parse_grid(text, {"rows": rows})
    assert grid.run_arguments["train_dataset"] == {"path": str(folder), "split": "train"}
    assert grid.run_arguments["eval_dataset"] is rows
    assert grid.run_arguments["track"] == ["tensorboard"]


def test_the_revision_is_recorded_where_the_files_say_it() -> None:
    commit = "a1b2c3d4" * 5
    rows = text_rows(3, 1)
    assert revision_of(rows) is None
    rows.info.download_checksums = {
        f"hf://datasets/org/name@{commit}/data/{part}.parquet": {} for part in range(3)
    }
    assert revision_of(rows) == commit
    train = ExperimentData(rows, None).origin()["train"]
    assert isinstance(train, dict)
    assert train["revision"] == commit
    rows.info.download_checksums = {
        f"hf://datasets/a/b@{commit}/x": {},
        "hf://datasets/a/b@" + "0" * 40 + "/y": {},
    }
    assert revision_of(rows) is None
