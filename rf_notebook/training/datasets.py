"""What data do the runs train on, and how is it prepared once for all runs with equal settings?"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.redaction import redact
from rf_notebook.training.named_data import is_named, load_named, revision_of
from rf_notebook.training.quiet import no_progress_bars

if TYPE_CHECKING:
    from rf_notebook.core.values import Json

#: Up to this many rows every row goes into a data set's digest; beyond, the ends and an even
#: sample.
_DIGEST_ALL_ROWS = 50_000
_DIGEST_SAMPLE_ROWS = 10_000
_BLOCKS = 64
#: Up to this many rows a formatting function is tried on before anything is loaded.
_TRIED_ROWS = 100


@dataclass(frozen=True)
class ExperimentData:
    """The data that all runs of an experiment share, as the user handed it in."""

    train: Any
    evaluation: Any | None

    @property
    def is_streaming(self) -> bool:
        """Whether the training data has no length."""
        return not isinstance(self.train, datasets.Dataset)

    @cached_property
    def first_row(self) -> dict[str, Any]:
        """The first row of the training data, by which its columns are known."""
        return dict(next(iter(self.train)))

    @property
    def examples(self) -> int | None:
        """Rows of the training data; None for a stream."""
        return None if self.is_streaming else len(self.train)

    def fingerprint(self) -> dict[str, Json]:
        """What tells this data from other data, as JSON."""
        return {"train": _fingerprint(self.train), "eval": _fingerprint(self.evaluation)}

    def origin(self) -> dict[str, Json]:
        """Where this data is from, as far as it says so, as JSON."""
        return {"train": _origin(self.train), "eval": _origin(self.evaluation)}


def opener_of(dataset: Any, folder: Path, place: Path, copy: Path) -> Callable[[Path], Any]:
    """What gives the data in other processes, for the experiment's folder as it is there.

    It is written here, once, and mapped there: none of them writes a copy that another one reads.

    Args:
        dataset: A Dataset, an IterableDataset, or None.
        folder: The experiment's.
        place: A folder for data that lies in memory, which is not there yet.
        copy: Where FormattedData keeps a copy of data that lies in files.
    """
    if not isinstance(dataset, datasets.Dataset):
        return lambda _folder: dataset
    if dataset.cache_files:
        _in_experiment_folder(dataset, copy)
        return partial(_opened, copy.relative_to(folder).as_posix())
    with no_progress_bars():
        dataset.save_to_disk(str(place))
    return partial(_opened, place.relative_to(folder).as_posix())


def _opened(relative: str, folder: Path) -> Any:
    return datasets.load_from_disk(str(folder / relative))


def as_dataset(given: Any, argument: str) -> Any:
    """A datasets.Dataset or IterableDataset from whatever a user has.

    Args:
        given: A Dataset, IterableDataset, DatasetDict, pandas frame, list of dicts, or a name.
        argument: The name of run_fit's argument, for messages.

    Raises:
        ConfigError: naming the argument and what would do.
    """
    if is_named(given):
        given = load_named(given, argument)
    if isinstance(given, datasets.DatasetDict | datasets.IterableDatasetDict):
        given = _only_split(given, argument)
    elif isinstance(given, Sequence) and not isinstance(given, str | bytes):
        wrong = next((i for i, row in enumerate(given) if not isinstance(row, Mapping)), None)
        if wrong is not None:
            raise ConfigError(
                f"{argument}[{wrong}] is a {type(given[wrong]).__name__}; a list must hold one dict a row."
            )
        given = _from_rows([dict(row) for row in given])
    elif type(given).__module__.startswith("pandas"):
        given = _from_frame(given)
    elif isinstance(given, Mapping):
        raise ConfigError(
            f"{argument} is a dict of {len(given)} data sets ({', '.join(map(str, given))}); every run is evaluated on one. "
            "Give one of them, or datasets.concatenate_datasets(list(...)) of all."
            if argument == "eval_dataset" and given
            else f"{argument} is a dict; give datasets.Dataset.from_dict(...) of it, or a list of dicts."
        )
    if not isinstance(given, datasets.Dataset | datasets.IterableDataset):
        raise ConfigError(
            f"{argument} is a {type(given).__name__}; give a datasets.Dataset, a list of dicts or a pandas frame."
        )
    if isinstance(given, datasets.Dataset) and len(given) == 0:
        raise ConfigError(f"{argument} has no rows; give at least one.")
    return given


def _from_rows(rows: list[dict[str, Any]]) -> Any:
    """Rows as they are: dicts keep their keys, and a column that a row lacks is None there.

    Source: trl 1.16 documents ``on_mixed_types="use_json"`` for tool calls.
    """
    columns = dict.fromkeys(name for row in rows for name in row)
    values = {name: [row.get(name) for row in rows] for name in columns}
    return datasets.Dataset.from_dict(values, on_mixed_types="use_json")


def _from_frame(frame: Any) -> Any:
    """A pandas frame.

    Where cells hold dicts, row by row, for Arrow would give all of them the same keys.
    """
    holds_dicts = any(
        isinstance(cell, Mapping)
        or (isinstance(cell, list) and any(isinstance(one, Mapping) for one in cell))
        for name in frame.columns
        if frame[name].dtype == object
        for cell in frame[name]
    )
    if not holds_dicts:
        return datasets.Dataset.from_pandas(frame, preserve_index=False)
    plain = frame.astype(object).where(frame.notna(), None)
    return _from_rows(plain.to_dict("records"))


def check_rows(dataset: Any, columns: Sequence[str], argument: str) -> None:
    """Refuse rows without what a method trains on.

    Args:
        dataset: A Dataset; of a stream nothing is known.
        columns: That every row must have.
        argument: The name of run_fit's argument, for messages.

    Raises:
        ConfigError: naming the first row.
    """
    if not isinstance(dataset, datasets.Dataset):
        return
    for name in columns:
        if name not in dataset.column_names or not dataset.data.column(name).null_count:
            continue
        empty = [row for row, value in enumerate(dataset.with_format(None)[name]) if value is None]
        if not empty:
            continue
        more = f", and {len(empty) - 1} more rows" if len(empty) > 1 else ""
        raise ConfigError(
            f"{argument}[{empty[0]}] has {name}=None{more}; fill it, or leave such rows out with "
            f"dataset.filter(lambda row: row[{name!r}] is not None)."
        )


def _only_split(splits: Any, argument: str) -> Any:
    wanted = ("train",) if argument == "train_dataset" else ("validation", "eval", "test")
    found = [name for name in wanted if name in splits]
    if found:
        return splits[found[0]]
    if len(splits) == 1:
        return next(iter(splits.values()))
    raise ConfigError(
        f"{argument} is a DatasetDict with the splits {', '.join(splits)}; choose one, as in dataset[{next(iter(splits))!r}]."
    )


def _origin(dataset: Any | None) -> Json:
    info = getattr(dataset, "info", None)
    if info is None:
        return None
    split = getattr(dataset, "split", None)
    revision = revision_of(dataset)
    return {
        "name": info.dataset_name,
        "config": info.config_name,
        "split": None if split is None else str(split),
        **({} if revision is None else {"revision": revision}),
    }


def _fingerprint(dataset: Any | None) -> Json:
    if dataset is None:
        return None
    if not isinstance(dataset, datasets.Dataset):
        return {"stream": True, "columns": list(dataset.column_names or ())}
    rows = len(dataset)
    sha = hashlib.sha256(json.dumps([rows, dataset.column_names]).encode())
    plain = dataset.with_format(None)
    if rows <= _DIGEST_ALL_ROWS:
        batches: Iterable[Any] = plain.iter(batch_size=1000)
    else:
        step = rows // _DIGEST_SAMPLE_ROWS
        indices = sorted({*range(1000), *range(rows - 1000, rows), *range(0, rows, step)})
        batches = plain.select(indices).iter(batch_size=1000)
    for batch in batches:
        sha.update(json.dumps(batch, sort_keys=True, default=_stable_text).encode())
    found: dict[str, Json] = {
        "rows": rows,
        "columns": list(dataset.column_names),
        "sha256": sha.hexdigest(),
    }
    if rows <= _DIGEST_ALL_ROWS:
        found["blocks"] = _blocks(plain, rows)
    return found


def _blocks(dataset: Any, rows: int) -> list[str]:
    """Short digests of up to 64 blocks of rows, which tell where two data sets differ."""
    batches = dataset.iter(batch_size=-(-rows // _BLOCKS))
    texts = (json.dumps(batch, sort_keys=True, default=_stable_text) for batch in batches)
    return [hashlib.sha256(text.encode()).hexdigest()[:8] for text in texts]


def _stable_text(value: object) -> str:
    """For values that JSON lacks (dates, bytes, images).

    Their bytes or their text, never an address.
    """
    to_bytes = getattr(value, "tobytes", None)
    if to_bytes is not None:
        return hashlib.sha256(to_bytes()).hexdigest()
    return repr(value) if not hasattr(value, "__dict__") else type(value).__name__


class FormattedData:
    """Applies each formatting function to the data once."""

    def __init__(self, data: ExperimentData, folder: Path) -> None:
        """Prepare nothing yet.

        Args:
            data: As handed in.
            folder: Where copies of data that lies in files go, so that the libraries' caches lie
                there too.
        """
        self._data = data
        self._folder = folder
        self._done: dict[int, tuple[Any, Any, Any]] = {}
        self._local: tuple[Any, Any] | None = None

    def get(
        self, formatting_func: Callable[[dict[str, Any]], Any] | None
    ) -> tuple[Any, Any | None]:
        """Training and evaluation data with the function applied to each row."""
        if self._local is None:
            self._local = (
                _in_experiment_folder(self._data.train, self._folder / "train"),
                _in_experiment_folder(self._data.evaluation, self._folder / "eval"),
            )
        train, evaluation = self._local
        if formatting_func is None:
            return train, evaluation
        key = id(formatting_func)
        if key not in self._done:
            self._done[key] = (
                formatting_func,  # kept, so that its id stays its own
                _formatted(train, formatting_func, "train_dataset"),
                None
                if evaluation is None
                else _formatted(evaluation, formatting_func, "eval_dataset"),
            )
        _, train, evaluation = self._done[key]
        return train, evaluation


def _in_experiment_folder(dataset: Any | None, folder: Path) -> Any | None:
    """Data that lies in cache files is copied, for ``map`` writes its results next to them."""
    if not isinstance(dataset, datasets.Dataset) or not dataset.cache_files:
        return dataset
    if all(folder.parent in Path(one["filename"]).parents for one in dataset.cache_files):
        return dataset  # as the kernel handed it to this process
    with no_progress_bars():
        if not (folder / "state.json").exists():
            dataset.save_to_disk(folder)
        return datasets.load_from_disk(folder)


def check_formatting(
    formatting_func: Callable[[dict[str, Any]], Any], dataset: Any, needs: str, argument: str
) -> str | dict[str, Any]:
    """What the function makes of the first row; the rows after it are tried, too, up to a hundred.

    Args:
        formatting_func: The user's.
        dataset: Training or evaluation data.
        needs: The columns that the method trains on, in words.
        argument: The name of run_fit's argument, for messages.

    Raises:
        ConfigError: naming the row for which it raises, or gives something that trl cannot train
            on.
    """
    made = [
        _made_of(formatting_func, row, number, argument, needs)
        for number, row in enumerate(itertools.islice(dataset, _TRIED_ROWS))
    ]
    return made[0]


def _made_of(
    formatting_func: Callable[[dict[str, Any]], Any],
    row: Mapping[str, Any],
    number: int,
    argument: str,
    needs: str,
) -> str | dict[str, Any]:
    name = getattr(formatting_func, "__name__", type(formatting_func).__name__)
    try:
        made = formatting_func(dict(row))
    except Exception as error:
        raise ConfigError(
            f"formatting_func {name!r} raised {type(error).__name__} on {argument}[{number}]: {redact(str(error))}. "
            f"The row's columns are {', '.join(row)}."
        ) from error
    if not isinstance(made, str | Mapping) or not made:
        what = repr(made) if made is None or isinstance(made, str) else f"a {type(made).__name__}"
        raise ConfigError(
            f"formatting_func {name!r} returned {what} for {argument}[{number}]; "
            f"return a dict of trl's columns{f' ({needs})' if needs else ''} or a string."
        )
    return made if isinstance(made, str) else dict(made)


def formatted_row(
    formatting_func: Callable[[dict[str, Any]], Any],
    row: Mapping[str, Any],
    number: int,
    argument: str,
) -> dict[str, Any]:
    """What a run trains on instead of a row.

    Args:
        formatting_func: The user's.
        row: The data's row.
        number: The row's number, for messages.
        argument: The name of run_fit's argument, for messages.

    Raises:
        ConfigError: when the function raises, or gives neither a dict nor a text.
    """
    made = _made_of(formatting_func, row, number, argument, "")
    return {"text": made} if isinstance(made, str) else made


def _formatted(
    dataset: Any, formatting_func: Callable[[dict[str, Any]], Any], argument: str
) -> Any:
    first: dict[str, Any] = {}

    def format_row(row: dict[str, Any], number: int) -> dict[str, Any]:
        made = formatted_row(formatting_func, row, number, argument)
        first.setdefault("columns", list(made))
        missing = [name for name in first["columns"] if name not in made]
        if missing or len(made) > len(first["columns"]):
            wrong = missing or [name for name in made if name not in first["columns"]]
            name = getattr(formatting_func, "__name__", type(formatting_func).__name__)
            raise ConfigError(
                f"formatting_func {name!r} gives {argument}[{number}] {'no' if missing else 'also a'} {wrong[0]!r}, unlike "
                "the rows before it; give every row the same columns."
            )
        return made

    given = list(dataset.column_names or next(iter(dataset)))
    with no_progress_bars():
        return dataset.map(format_row, with_indices=True, remove_columns=given)


class PreparedDatasets:
    """What trl's trainers made of the data (tokenised, packed), shared by runs with equal settings."""

    def __init__(self) -> None:
        self._prepared: dict[str, tuple[Any, Any]] = {}

    def get(self, dataset: Any, settings: Json, make: Callable[[], Any]) -> Any:
        """The prepared form of a data set under these settings; made by the first who asks."""
        key = f"{id(dataset)}:{json.dumps(settings, sort_keys=True)}"
        if key not in self._prepared:
            self._prepared[key] = (
                dataset,
                make(),
            )  # the data set is kept, so that its id stays its own
        return self._prepared[key][1]
