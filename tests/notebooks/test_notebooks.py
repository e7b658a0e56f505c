"""Notebooks run in a real kernel.

The tutorials as committed, and one in the style of the field's reference.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from rf_notebook.testing.tiny import create_tiny
from rf_notebook.views.saved import PANEL_MIME
from tests import warm
from tests.notebooks import reference_style

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STYLES = ("SFT", "DPO", "GRPO", "OPTUNA", "TEXTS", "MESSAGES", "FORMATTER", "PROMPTS", "MASKING")


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
    assert "anywidget" not in modules, (
        "nobody looks on, so no panel was made that would fill the notebook"
    )
    return notebook


def tiny_gpt2(layers: int, words: int):
    from transformers import GPT2Config, GPT2LMHeadModel

    size = {"n_positions": 512, "n_embd": 64, "n_layer": layers, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(vocab_size=words, bos_token_id=0, eos_token_id=0, **size))


@pytest.mark.parametrize(
    "cells",
    [getattr(reference_style, name) for name in STYLES],
    ids=STYLES,
)
def test_a_notebook_of_the_reference_runs_with_only_the_import_changed(tmp_path, cells):
    from rf_notebook import demo
    from rf_notebook.demo.text import preference_rows, support_rows

    def write(name, rows):
        (tmp_path / name).write_text("\n".join(json.dumps(row) for row in rows))

    demo_model, words = demo.create_model({})
    for name, (model, tokenizer) in {
        "base": (demo_model, words),
        "other": create_tiny({"model_kwargs": {"hidden": 128}}),
        "gpt2": (tiny_gpt2(2, len(words)), words),
        "distilgpt2": (tiny_gpt2(1, len(words)), words),
    }.items():
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    support = support_rows(80, 5)
    write("support.json", support)
    security = [
        {
            "instruction": row["instruction"],
            "input": None if i % 2 else "Shortly.",
            "output": row["response"],
        }
        for i, row in enumerate(support)
    ]
    write("security.json", security[:32])
    write("security-eval.json", security[32:38])
    write(
        "masking.json",
        [{"source_text": row["instruction"], "masked_text": row["response"]} for row in support],
    )
    pairs = [
        {"prompt": row["instruction"], "chosen": row["chosen"], "rejected": row["rejected"]}
        for row in preference_rows(60, 5)
    ]
    write("pairs.json", pairs)
    write(
        "questions.json",
        [{"question": row["instruction"][:60], "answer": "yes"} for row in support_rows(20, 5)],
    )
    execute(
        nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source.strip()) for source in cells]
        ),
        tmp_path,
    )


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda p: p.name)
def test_a_tutorial_runs_as_committed(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), (
        "tutorials are committed without outputs"
    )
    execute(notebook, tmp_path)
    assert "widgets" not in notebook.metadata
    if path.name.startswith("101"):
        streams = [o for c in notebook.cells for o in c.get("outputs", []) if "text" in o]
        lines = [
            line
            for o in streams
            if o["name"] == "stderr"
            for line in re.split(r"[\r\n]+", o["text"])
            if line and "Loading weights" not in line  # transformers' progress bar, outside a page
        ]
        assert not lines, "the quickstart shows no warnings"
    bundles = [
        o["data"]
        for c in notebook.cells
        for o in c.get("outputs", [])
        if PANEL_MIME in o.get("data", {})
    ]
    if path.name.startswith("104"):
        return  # trains nothing where there is no network
    assert {"text/html", "image/png", "text/plain"} <= set(bundles[-1])
    states = {run["state"] for run in bundles[-1][PANEL_MIME]["runs"]}
    allowed = (
        {"completed", "stopped"} if path.name.startswith("4") else {"completed"}
    )  # policies stop runs
    assert "completed" in states, "the saved notebook shows the end"
    assert states <= allowed
    printed = "".join(
        output.get("text", "") or output.get("data", {}).get("text/plain", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )
    if path.name.startswith("101"):
        before, after = map(int, re.findall(r"(\d+) of 40 answered as", printed))
        assert before < 5, "the base does not know what answers what"
        assert after >= 30, "and the winner does"
    if path.name.startswith("201"):
        assert printed.count("It is settled") >= 4, "SFT, DPO and KTO runs answer what was asked"
    if path.name.startswith("204"):
        chosen, rejected = map(float, re.findall(r"^([+-]\d+\.\d\d)  ", printed, re.MULTILINE))
        assert chosen > rejected + 1, "an unseen answer scores higher than the brush-off"
    if path.name.startswith("202"):
        (rewards,) = [c for c in bundles[-1][PANEL_MIME]["curves"] if c["metric"] == "reward"]
        assert len(rewards["runs"]) == 9
        for run in rewards["runs"]:
            first, last = run["values"][:3], run["values"][-3:]
            assert sum(last) > 1.3 * sum(first), f"the reward of run {run['id']} does not rise"


def test_there_are_tutorials():
    assert TUTORIALS
