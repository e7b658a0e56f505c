"""Reading what somebody else wrote: a notebook, a folder or a zip with an experiment's record.

And writing a record.

Nothing is executed, unpacked, fetched or followed. Everything is read into memory within limits,
and whatever is wrong is one sentence.
"""

from __future__ import annotations

import io
import json
import os
import stat
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.values import Json, canonical_json
from rf_notebook.record.record import FORMAT, RECORD_MIME, Record, parse_record
from rf_notebook.store.plain_files import NotAPlainFileError, path_given, read_plain, write_whole

#: Names inside an exported folder or zip.
NOTEBOOK = "experiment.ipynb"
RECORD = "record.json"
#: A notebook of more bytes, or of more JSON values, is not read.
_MOST_BYTES = 16 * 2**20
_MOST_VALUES = 1_000_000
_MOST_CELLS = 5_000
_MOST_ENTRIES = 100


@dataclass(frozen=True, slots=True)
class Shared:
    """An experiment from a file."""

    path: Path
    record: Record
    cells: tuple[str, ...] | None
    """The code of the notebook's cells down to the launching one; None for a record without a
    notebook."""
    remarks: tuple[str, ...]
    """What does not fit together in the file."""

    @property
    def code(self) -> tuple[str, ...]:
        """What a replay would run.

        The notebook's cells, or, without a notebook, those of the record.
        """
        return tuple(self.record.spec.cells) if self.cells is None else self.cells


def read_shared(path: str | Path) -> Shared:
    """The experiment in a notebook, a record.json, a folder or a zip.

    Raises:
        ConfigError: when there is none, or when it cannot be trusted to be one.
    """
    path = path_given("SharedExperiment(path)", path)
    try:
        mode = path.lstat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{_shown(path)} cannot be read: {reason}.") from None
    if stat.S_ISDIR(mode):
        return _from_folder(path)
    data = _bytes_of(path)
    if path.suffix == ".zip":
        return _from_zip(path, data)
    return _from_json(path, data)


def _from_folder(path: Path) -> Shared:
    found = {
        name: _bytes_of(path / name) for name in (NOTEBOOK, RECORD) if os.path.lexists(path / name)
    }
    return _from_parts(path, found)


def _from_zip(path: Path, data: bytes) -> Shared:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if len(entries) > _MOST_ENTRIES:
                raise ConfigError(
                    f"{_shown(path)} has {len(entries)} entries; an exported experiment has a handful."
                )
            found = {}
            for entry in entries:
                if entry.filename in (NOTEBOOK, RECORD) and entry.filename not in found:
                    with archive.open(entry) as stream:
                        found[entry.filename] = stream.read(_MOST_BYTES + 1)
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - zipfile raises many kinds on damaged archives
        raise ConfigError(
            f"{_shown(path)} is not a zip that can be read: {str(error)[:100]}."
        ) from None
    return _from_parts(path, found)


def _from_parts(path: Path, found: dict[str, bytes]) -> Shared:
    """A notebook, a record, or both, which then have to be about the same."""
    if NOTEBOOK not in found:
        if RECORD not in found:
            raise ConfigError(
                f"{_shown(path)} has neither {NOTEBOOK} nor {RECORD}; it is not an exported experiment."
            )
        return Shared(path, parse_record(_json(path, found[RECORD])), None, ())
    shared = _from_json(path, found[NOTEBOOK])
    if RECORD not in found:
        return shared
    record = parse_record(_json(path, found[RECORD]))
    same = canonical_json(record.as_json()) == canonical_json(shared.record.as_json())
    remarks = () if same else (f"{RECORD} and the record in {NOTEBOOK} are not the same",)
    return Shared(path, shared.record, shared.cells, (*shared.remarks, *remarks))


def _from_json(path: Path, data: bytes) -> Shared:
    given = _json(path, data)
    if isinstance(given, dict) and given.get("format") == FORMAT:
        return Shared(path, parse_record(given), None, ())
    if not isinstance(given, dict) or not isinstance(given.get("cells"), list):
        raise ConfigError(f"{_shown(path)} is neither a notebook nor an experiment's record.")
    return _from_notebook(path, given["cells"])


def _from_notebook(path: Path, cells: Sequence[Any]) -> Shared:
    if len(cells) > _MOST_CELLS:
        raise ConfigError(f"{_shown(path)} has {len(cells)} cells; at most {_MOST_CELLS} are read.")
    code: list[str] = []
    found: tuple[Record, tuple[str, ...]] | None = None
    for cell in cells:
        if not isinstance(cell, dict) or cell.get("cell_type") != "code":
            continue
        source = _text(cell.get("source"))
        if _does_something(source):
            code.append(source)
        for content in _records(cell.get("outputs")):
            found = (parse_record(content), tuple(code))  # the last one counts: cells are run again
    if found is None:
        raise ConfigError(
            f"{_shown(path)} holds no record of an experiment: no cell's output has one. Run its cells with rf_notebook, "
            "save it, and try again."
        )
    return Shared(path, found[0], found[1], ())


def _records(outputs: Any) -> list[Json]:
    if not isinstance(outputs, list):
        return []
    data = [output.get("data") for output in outputs if isinstance(output, dict)]
    return [
        content[RECORD_MIME]
        for content in data
        if isinstance(content, dict) and RECORD_MIME in content
    ]


def _does_something(source: str) -> bool:
    """Whether a cell has more than comments."""
    return any(line.strip() and not line.strip().startswith("#") for line in source.splitlines())


def _text(source: Any) -> str:
    if isinstance(source, str):
        return source
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        return "".join(source)
    return ""


def _bytes_of(path: Path) -> bytes:
    """The content of a plain file; links are not followed."""
    try:
        return read_plain(path, _MOST_BYTES + 1)
    except NotAPlainFileError:
        raise ConfigError(f"{_shown(path)} is not a plain file.") from None
    except (OSError, ValueError) as error:
        reason = (
            "it is a link" if path.is_symlink() else getattr(error, "strerror", None) or str(error)
        )
        raise ConfigError(f"{_shown(path)} cannot be read: {reason}.") from None


def _json(path: Path, data: bytes) -> Json:
    if len(data) > _MOST_BYTES:
        raise ConfigError(
            f"{_shown(path)} is larger than {_MOST_BYTES // 2**20} MiB; clear outputs that are not needed."
        )
    if sum(data.count(sign) for sign in (b",", b"[", b"{")) > _MOST_VALUES:
        raise ConfigError(
            f"{_shown(path)} holds more than {_MOST_VALUES} values; it is not an exported experiment."
        )
    try:
        parsed: Json = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{_shown(path)} is not JSON that can be read: {str(error)[:100]}."
        ) from None
    return parsed


def _shown(path: Path) -> str:
    return repr(path.name[:80])


def write_record(folder: Path, record: Mapping[str, Json]) -> None:
    """Write an experiment's record, or write it again.

    Raises:
        OSError: when it cannot be written; what was there stays.
    """
    write_whole(folder / RECORD, record_text(record).encode())


def record_text(record: Mapping[str, Json]) -> str:
    """A record as the text of ``record.json``."""
    return json.dumps(record, indent=1, sort_keys=True) + "\n"
