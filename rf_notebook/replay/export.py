"""An experiment for somebody else.

A notebook, a page, or a folder or zip of both with the record and the versions.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import ConfigError
from rf_notebook.record.files import NOTEBOOK, RECORD, record_text
from rf_notebook.record.record import RECORD_MIME
from rf_notebook.store.plain_files import write_whole

if TYPE_CHECKING:
    from rf_notebook.core.values import Json
    from rf_notebook.record.record import Record

_PAGE = "report.html"
_REQUIREMENTS = "requirements.txt"
#: The oldest that rf_notebook runs on.
_PYTHON = ">=3.11"


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What is written."""

    name: str
    """Of the experiment."""
    record: Record
    shown: Mapping[str, Any]
    """The bundle that shows it without a kernel."""
    metadata: Json
    """For ``metadata.rf_notebook``: its identity and digests."""
    best: Mapping[str, Json] | None
    """Where the best run's adapter lies, and its digest."""
    page: Callable[[], str]
    """Gives the report as HTML that needs nothing else."""


def write_export(path: Path, made: Export) -> Path:
    """Write a notebook (.ipynb), a page (.html), a zip (.zip), or a folder.

    Raises:
        ConfigError: when it is there already, or cannot be written.
    """
    if path.exists():
        raise ConfigError(f"{path} is there already; give another name.")
    if path.suffix not in (".ipynb", ".html", ".zip", ""):
        raise ConfigError(
            f"{path} ends in {path.suffix}; export writes .ipynb, .html, .zip, or a folder."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".ipynb":
            write_whole(path, notebook_of(made, path.name).encode())
        elif path.suffix == ".html":
            write_whole(path, made.page().encode())
        elif path.suffix == ".zip":
            write_whole(path, _zip(_parts(made)))
        else:
            path.mkdir()
            for name, text in _parts(made).items():
                write_whole(path / name, text.encode())
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}.") from error
    return path


def notebook_of(made: Export, file_name: str) -> str:
    """The notebook as text.

    Args:
        made: What is in it.
        file_name: Its own, for the cell that replays it.
    """
    import nbformat  # takes a second, which whoever exports nothing need not wait

    spec = made.record.spec
    cells = [nbformat.v4.new_code_cell(script_metadata(spec.versions))]
    cells.append(nbformat.v4.new_markdown_cell(_introduction(made)))
    code = [nbformat.v4.new_code_cell(cell) for cell in spec.cells]
    if not code:
        code = [
            nbformat.v4.new_code_cell(
                "# The experiment was made by a script, whose code is not recorded.\n"
            )
        ]
    code[-1]["outputs"] = [
        nbformat.v4.new_output(
            "display_data", data={**made.shown, RECORD_MIME: made.record.as_json()}
        )
    ]
    cells += code
    cells.append(nbformat.v4.new_markdown_cell(_operations(made)))
    cells.append(nbformat.v4.new_markdown_cell(_REPLAY))
    cells.append(
        nbformat.v4.new_code_cell(
            f"%load_ext rf_notebook\n%rapidfire replay {json.dumps(file_name)}"
        )
    )
    notebook = nbformat.v4.new_notebook(
        cells=cells,
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "rf_notebook": made.metadata,
        },
    )
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"rapidfire-{number}"
    nbformat.validate(notebook)
    written: str = nbformat.writes(notebook)
    return written


def requirements(versions: Mapping[str, str]) -> list[str]:
    """The packages that figures depend on, pinned.

    Without the part of a version that names a build (+cu128).
    """
    known = {
        name: version.partition("+")[0]
        for name, version in versions.items()
        if version != "unknown"
    }
    return [f"{name}=={version}" for name, version in known.items()]


def script_metadata(versions: Mapping[str, str]) -> str:
    """The same as inline script metadata (PEP 723), which runners of notebooks and scripts read."""
    listed = "".join(f"#     {json.dumps(one)},\n" for one in requirements(versions))
    return f'# /// script\n# requires-python = "{_PYTHON}"\n# dependencies = [\n{listed}# ]\n# ///'


def _parts(made: Export) -> dict[str, str]:
    return {
        NOTEBOOK: notebook_of(made, NOTEBOOK),
        RECORD: record_text(made.record.as_json()),
        _PAGE: made.page(),
        _REQUIREMENTS: "\n".join(requirements(made.record.spec.versions)) + "\n",
    }


def _zip(parts: Mapping[str, str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


_REPLAY = (
    "## Replay it\n\nThe cell below says what would be run and what differs here; nothing is executed before you agree. "
    "Then everything is trained again, what was done meanwhile included, and compared chunk by chunk."
)


def _introduction(made: Export) -> str:
    spec = made.record.spec
    versions = "\n".join(
        f"- {_plain(package)} {_plain(version)}" for package, version in spec.versions.items()
    )
    device = _plain(str(spec.environment.get("device", "unknown")))
    return (
        f"# Experiment {_plain(made.name)}\n\nThe cells below made it; its curves are under the last of them. Running them "
        f"trains it again, without what was done to it meanwhile. It was made on {device} with\n\n{versions}"
    )


def _operations(made: Export) -> str:
    lines = [f"- {_plain(line)}" for line in operation_lines(made.record)]
    body = "\n".join(lines) if lines else "Nothing was done to it while it trained."
    best = ""
    if made.best is not None:
        best = (
            f"\n\nThe best run is {made.best['run']}; its weights are not in this file. They lie in "
            f"`{made.best['path']}` of the experiment's folder ({made.best['bytes']} bytes, sha256 of their manifest "
            f"`{made.best['sha256']}`)."
        )
    return f"## What was done while it trained\n\n{body}{best}"


def operation_lines(record: Record) -> list[str]:
    """What was done to an experiment, a line an operation."""
    lines = []
    child = len(record.spec.configs)
    for one in record.operations:
        line = f"{one.what} run {one.run} at its step {one.steps}"
        if one.what == "clone":
            child += 1
            edits = ", ".join(f"{key}={value}" for key, value in one.edits.items())
            line += f" as run {child}{' with ' + edits if edits else ''}{', warm' if one.warm_start else ''}"
        lines.append(f"{line}, by {one.origin}: {one.reason}" if one.reason else line)
    return lines


def _plain(text: str) -> str:
    """Text that Markdown shows as it stands, on one line."""
    line = " ".join(text.split())[:300]
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]()<>#+-.!|~$&" else sign for sign in line)
