"""Notebooks run in a real kernel: the tutorials as committed, and one in the style of the field's reference."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from rf_notebook.testing.tiny import create_tiny
from rf_notebook.widgets.static_output import PANEL_MIME
from tests import warm
from tests.notebooks import reference_style

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(autouse=True)
def _warm_kernels(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("JUPYTER_PATH", str(warm.kernel_spec(tmp_path_factory.mktemp("jupyter"))))


def execute(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=False,
    )
    client.execute(env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)})
    modules = {state.get("_model_module") for state in client.widget_state.values()}
    assert "anywidget" not in modules, "nobody looks on, so no panel was made that would fill the notebook"
    return notebook


@pytest.mark.parametrize(
    "cells",
    [reference_style.SFT, reference_style.DPO, reference_style.GRPO, reference_style.OPTUNA],
    ids=["SFT", "DPO", "GRPO", "OPTUNA"],
)
def test_a_notebook_of_the_reference_runs_with_only_the_import_changed(tmp_path, cells):
    from rf_notebook import demo
    from rf_notebook.demo.text import preference_rows, support_rows

    def write(name, rows):
        (tmp_path / name).write_text("\n".join(json.dumps(row) for row in rows))

    for name, (model, tokenizer) in {
        "base": demo.create_model({}),
        "other": create_tiny({"model_kwargs": {"hidden": 128}}),
    }.items():
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    write("support.json", support_rows(80, 5))
    pairs = [
        {"prompt": row["instruction"], "chosen": row["chosen"], "rejected": row["rejected"]}
        for row in preference_rows(60, 5)
    ]
    write("pairs.json", pairs)
    write("questions.json", [{"question": row["instruction"][:60], "answer": "yes"} for row in support_rows(20, 5)])
    execute(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source.strip()) for source in cells]), tmp_path)


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda p: p.name)
def test_a_tutorial_runs_as_committed(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "tutorials are committed without outputs"
    execute(notebook, tmp_path)
    assert "widgets" not in notebook.metadata
    bundles = [o["data"] for c in notebook.cells for o in c.get("outputs", []) if PANEL_MIME in o.get("data", {})]
    if path.name.startswith("104"):
        return  # trains nothing where there is no network
    assert {"text/html", "image/png", "text/plain"} <= set(bundles[-1])
    states = {run["state"] for run in bundles[-1][PANEL_MIME]["runs"]}
    allowed = {"completed", "stopped"} if path.name.startswith("4") else {"completed"}  # policies stop runs
    assert "completed" in states, "the saved notebook shows the end"
    assert states <= allowed


def test_there_are_tutorials():
    assert TUTORIALS
