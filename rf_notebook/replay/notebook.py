"""An experiment as a notebook for somebody else: the cells that made it, what it gave, what was done to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.events import OperationObeyed
from rf_notebook.core.operations import CloneRun, verb
from rf_notebook.core.redaction import redact
from rf_notebook.core.state import ExperimentState
from rf_notebook.core.values import Json


def write_notebook(
    path: Path, name: str, state: ExperimentState, cells: Sequence[str], shown: Mapping[str, Any], metadata: Json
) -> Path:
    """Write the notebook.

    Args:
        path: Of a new file that ends in .ipynb.
        name: Of the experiment.
        state: Of the experiment.
        cells: Texts of the cells up to the one that launched it, in the order in which they were run.
        shown: The bundle that shows it without a kernel.
        metadata: For ``metadata.rf_notebook``: its identity and digests.

    Raises:
        ConfigError: when the file is there or is no notebook.
    """
    if path.suffix != ".ipynb":
        raise ConfigError(f"{path} is no notebook; give a name that ends in .ipynb.")
    if path.exists():
        raise ConfigError(f"{path} is there already; give another name.")
    made = [nbformat.v4.new_markdown_cell(_introduction(name, state))]
    made += [nbformat.v4.new_code_cell(redact(cell)) for cell in cells]
    if cells:
        made[-1]["outputs"] = [nbformat.v4.new_output("display_data", data=dict(shown))]
    made.append(nbformat.v4.new_markdown_cell(_operations(state)))
    notebook = nbformat.v4.new_notebook(
        cells=made,
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "rf_notebook": metadata,
        },
    )
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"rapidfire-{number}"
    nbformat.validate(notebook)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, str(path))
    return path


def _introduction(name: str, state: ExperimentState) -> str:
    started = state.started
    assert started is not None
    versions = "\n".join(f"- {package} {version}" for package, version in started.versions.items())
    return (
        f"# Experiment {_plain(name)}\n\nThe cells below made it; its curves are under the last of them. Running them trains it "
        f"again, exactly where device and versions are these:\n\n{versions}"
    )


def _operations(state: ExperimentState) -> str:
    lines = [_line(recorded.event) for recorded in state.operations if isinstance(recorded.event, OperationObeyed)]
    body = "\n".join(lines) if lines else "Nothing was done to it while it trained."
    return f"## What was done while it trained\n\n{body}"


def _line(event: OperationObeyed) -> str:
    operation = event.operation
    words = f"- {verb(operation)} run {operation.run_id} at its step {event.steps}"
    if isinstance(operation, CloneRun):
        edits = ", ".join(f"{_plain(str(key))}={_plain(redact(str(value)))}" for key, value in operation.edits.items())
        words += f"{' with ' + edits if edits else ''}{', warm' if operation.warm_start else ''}"
    return words


def _plain(text: str) -> str:
    """Text that Markdown shows as it stands, on one line."""
    line = " ".join(text.split())[:300]
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]()<>#+-.!|~$&" else sign for sign in line)
