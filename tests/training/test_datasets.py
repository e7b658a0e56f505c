"""Data comes in as users have it, is told apart by content, and is prepared once."""

from pathlib import Path

import datasets
import pandas as pd
import pytest

from rf_notebook.core.errors import ConfigError
from rf_notebook.training.datasets import (
    ExperimentData,
    FormattedData,
    PreparedDatasets,
    as_dataset,
    check_formatting,
    opener_of,
)

ROWS = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]


@pytest.mark.parametrize(
    "given",
    [
        ROWS,
        tuple(ROWS),
        pd.DataFrame(ROWS),
        datasets.Dataset.from_list(ROWS),
        datasets.DatasetDict(
            {
                "train": datasets.Dataset.from_list(ROWS),
                "test": datasets.Dataset.from_list(ROWS[:1]),
            }
        ),
        datasets.DatasetDict({"odd": datasets.Dataset.from_list(ROWS)}),
    ],
    ids=["list", "tuple", "pandas", "dataset", "splits", "one split"],
)
def test_what_users_have_becomes_a_dataset_of_the_same_content(given):
    made = as_dataset(given, "train_dataset")
    assert list(made) == ROWS
    same = ExperimentData(as_dataset(ROWS, "train_dataset"), None).fingerprint()
    assert ExperimentData(made, None).fingerprint() == same


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("rows.json", "train_dataset='rows.json' cannot be loaded"),
        ([], "train_dataset has no rows"),
        ([{"a": 1}, "x"], r"train_dataset\[1\] is a str"),
        (5, "train_dataset is a int"),
        (
            datasets.DatasetDict(
                {"a": datasets.Dataset.from_list(ROWS), "b": datasets.Dataset.from_list(ROWS)}
            ),
            "choose one",
        ),
    ],
)
def test_what_is_no_data_is_refused(given, sentence):
    with pytest.raises(ConfigError, match=sentence):
        as_dataset(given, "train_dataset")


def test_other_content_has_another_fingerprint():
    def of(rows):
        return ExperimentData(as_dataset(rows, "train_dataset"), None).fingerprint()["train"][
            "sha256"
        ]

    assert (
        len({of(ROWS), of(ROWS[::-1]), of(ROWS[:1]), of([{"a": 1, "b": "x"}, {"a": 2, "b": "z"}])})
        == 4
    )


def test_large_data_is_told_apart_by_its_ends_and_a_sample():
    rows = 60_000
    one = datasets.Dataset.from_dict({"a": list(range(rows))})
    other = datasets.Dataset.from_dict({"a": [*range(rows - 1), 0]})
    assert ExperimentData(one, None).fingerprint() == ExperimentData(one, None).fingerprint()
    assert ExperimentData(one, None).fingerprint() != ExperimentData(other, None).fingerprint()


def test_a_formatting_func_is_applied_once_and_its_columns_are_all_that_is_left(tmp_path):
    calls = []

    def format_row(row):
        calls.append(row["a"])
        return {"text": row["b"] * row["a"]}

    data = FormattedData(
        ExperimentData(as_dataset(ROWS, "train_dataset"), as_dataset(ROWS, "eval_dataset")),
        tmp_path,
    )
    train, evaluation = data.get(format_row)
    assert list(train) == list(evaluation) == [{"text": "x"}, {"text": "yy"}]
    assert data.get(format_row)[0] is train
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda row: row["missing"], "raised KeyError on train_dataset.0..*columns are a, b"),
        (lambda row: None, "returned None"),
        (lambda row: 5, "returned a int"),
        (lambda row: {}, "returned a dict"),
    ],
)
def test_a_formatting_func_that_cannot_work_is_refused(function, sentence):
    with pytest.raises(ConfigError, match=sentence):
        check_formatting(function, ROWS, "prompt and completion", "train_dataset")


def test_preparation_is_shared_by_equal_settings_only():
    prepared, made = PreparedDatasets(), []
    dataset = as_dataset(ROWS, "train_dataset")

    def make():
        made.append(1)
        return object()

    first = prepared.get(dataset, {"max_length": 8}, make)
    assert prepared.get(dataset, {"max_length": 8}, make) is first
    assert prepared.get(dataset, {"max_length": 9}, make) is not first
    assert prepared.get(as_dataset(ROWS, "train_dataset"), {"max_length": 8}, make) is not first
    assert len(made) == 3


def test_data_in_files_is_prepared_in_the_experiments_folder_only(tmp_path):
    source, folder = tmp_path / "source", tmp_path / "experiment"
    datasets.Dataset.from_list(ROWS).save_to_disk(source)
    before = {p: p.stat().st_mtime_ns for p in source.rglob("*")}
    data = ExperimentData(datasets.load_from_disk(source), None)
    train, _ = FormattedData(data, folder).get(lambda row: {"text": row["b"]})
    assert list(train) == [{"text": "x"}, {"text": "y"}]
    assert {p: p.stat().st_mtime_ns for p in source.rglob("*")} == before


@pytest.mark.parametrize("is_in_memory", [True, False])
def test_workers_read_one_copy_and_none_of_them_writes_another(tmp_path, is_in_memory):
    """Two that wrote the same folder at once would read each other's halves."""
    rows = datasets.Dataset.from_dict({"text": ["a", "b", "c"]})
    if not is_in_memory:
        rows.save_to_disk(tmp_path / "of the user")
        rows = datasets.load_from_disk(tmp_path / "of the user")
    folder = tmp_path / "experiment" / "data"
    opened = opener_of(rows, folder, folder / "worker" / "train", folder / "train")(folder)
    before = sorted(path for path in folder.rglob("*"))
    train, _ = FormattedData(ExperimentData(opened, None), folder).get(None)
    assert train["text"][:] == ["a", "b", "c"]
    assert sorted(path for path in folder.rglob("*")) == before
    for one in train.cache_files:
        assert Path(one["filename"]).is_relative_to(folder)
