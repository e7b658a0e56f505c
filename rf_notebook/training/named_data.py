"""Data that a user names instead of loading it: on the hub, or files in a folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import HfApi, is_offline_mode

from rf_notebook.automl.validation import did_you_mean
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.redaction import private
from rf_notebook.training.quiet import no_progress_bars

#: Arguments of ``datasets.load_dataset``.
_FIELDS = ("path", "name", "split", "revision", "data_files", "data_dir")
#: datasets' name for what reads files of an ending.
_BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
_HUB_SECONDS = 10.0
#: In the addresses of files on the hub: the commit that they are of.
_REVISION = re.compile(r"^hf://[^@]+@([0-9a-f]{40})/")


def is_named(given: Any) -> bool:
    """Whether this names data: a text, or a dict with a path."""
    return isinstance(given, str) or (
        isinstance(given, Mapping) and isinstance(given.get("path"), str)
    )


def load_named(given: str | Mapping[str, Any], argument: str) -> Any:
    """The data set of a name.

    Args:
        given: "user/name", a file, or a dict of ``load_dataset``'s path, name, split, revision, data_files
            and data_dir.
        argument: The name of run_fit's argument, for messages.

    Raises:
        ConfigError: for what cannot be loaded, and for several splits of which none is named.
    """
    fields = _of_text(given) if isinstance(given, str) else dict(given)
    for name in fields:
        if name not in _FIELDS:
            raise ConfigError(
                f"{argument} names data by {name!r}, which does not exist; {did_you_mean(str(name), _FIELDS)}"
            )
    is_file = isinstance(given, str) and "data_files" in fields
    if fields.get("split") is None and (argument == "train_dataset" or is_file):
        fields["split"] = "train"
    shown = fields.get("data_files") or fields["path"]
    try:
        _ask_hub(fields)
        with no_progress_bars():
            found = datasets.load_dataset(**fields)
    except Exception as error:
        told = private(" ".join(str(error).split()))[:300]
        raise ConfigError(
            f"{argument}={shown!r:.120} cannot be loaded ({type(error).__name__}: {told}); check the name, the "
            "split and the connection."
        ) from error
    if isinstance(found, datasets.DatasetDict | datasets.IterableDatasetDict):
        splits = ", ".join(map(repr, found))
        raise ConfigError(
            f"{argument}={fields['path']!r:.120} has the splits {splits}; say which one, as in "
            f"{argument}={{'path': {fields['path']!r:.120}, 'split': {next(iter(found))!r}}}."
        )
    return found


def _ask_hub(fields: Mapping[str, Any]) -> None:
    """Ask once whether the hub has data of this name, where this machine has none.

    The library asks for file after file, with growing pauses. Raises what the hub's library raises.
    """
    path = str(fields["path"])
    cached = Path(datasets.config.HF_DATASETS_CACHE) / path.replace("/", "___")
    if path in _BUILDERS.values() or Path(path).exists() or cached.exists() or is_offline_mode():
        return
    HfApi().dataset_info(path, revision=fields.get("revision"), timeout=_HUB_SECONDS)


def _of_text(given: str) -> dict[str, Any]:
    """A file by its ending, everything else by its name."""
    builder = _BUILDERS.get(Path(given).suffix.lower())
    return {"path": given} if builder is None else {"path": builder, "data_files": given}


def revision_of(dataset: Any) -> str | None:
    """The commit on the hub that a data set's files are of; None where they do not say so."""
    checksums = getattr(getattr(dataset, "info", None), "download_checksums", None) or {}
    found = {match[1] for name in checksums if (match := _REVISION.match(str(name)))}
    return found.pop() if len(found) == 1 else None
