"""Notebooks run in a real kernel: the tutorials as committed, and one in the style of the field's reference."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from rf_notebook.widgets.static_output import PANEL_MIME

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "notebooks").glob("*.ipynb"))

#: A notebook as RapidFire AI's users write it, with only the package's name changed in the imports. The data and the
#: base model are local, for tests reach no hub; everything else is the usual shape.
REFERENCE_STYLE = [
    """
from rf_notebook import Experiment
from rf_notebook.automl import List, RFGridSearch, RFModelConfig, RFLoraConfig, RFSFTConfig
""",
    """
from datasets import load_dataset
dataset = load_dataset("json", data_files="support.json")
train_dataset = dataset["train"].select(range(64)).shuffle(seed=42)
eval_dataset = dataset["train"].select(range(64, 76)).shuffle(seed=42)
""",
    '''
def sample_formatting_function(row):
    """Function to preprocess each example from dataset"""
    return {
        "prompt": [
            {"role": "system", "content": "You are a helpful support assistant."},
            {"role": "user", "content": row["instruction"]},
        ],
        "completion": [{"role": "assistant", "content": row["response"]}],
    }
''',
    """
experiment = Experiment(experiment_name="exp1-chatqa-lite", mode="fit")
""",
    '''
def sample_compute_metrics(eval_preds):
    """Optional function to compute eval metrics based on predictions and labels"""
    predictions, labels = eval_preds
    same = [len(set(p.split()) & set(l.split())) / max(len(set(l.split())), 1) for p, l in zip(predictions, labels)]
    return {"overlap": round(sum(same) / len(same), 4), "rows": len(predictions)}
''',
    """
peft_configs_lite = List([
    RFLoraConfig(r=8, lora_alpha=16, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], bias="none"),
    RFLoraConfig(r=32, lora_alpha=64, lora_dropout=0.1,
                 target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], bias="none"),
])
config_set_lite = List([
    RFModelConfig(
        model_name="base",
        peft_config=peft_configs_lite,
        training_args=RFSFTConfig(
            learning_rate=rate,
            lr_scheduler_type="linear",
            per_device_train_batch_size=4,
            per_device_eval_batch_size=4,
            max_steps=16,
            gradient_accumulation_steps=1,
            logging_steps=2,
            eval_strategy="steps",
            eval_steps=4,
            fp16=False,
            bf16=False,
        ),
        model_type="causal_lm",
        model_kwargs={"device_map": "auto", "torch_dtype": "auto", "use_cache": False},
        formatting_func=sample_formatting_function,
        compute_metrics=sample_compute_metrics,
        generation_config={"max_new_tokens": 8, "temperature": 0.8, "top_p": 0.9, "top_k": 30,
                           "repetition_penalty": 1.05},
    )
    for rate in (1e-3, 1e-4)
])
""",
    '''
def sample_create_model(model_config):
    """Function to create model object for any given config; must return tuple of (model, tokenizer)"""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model_name = model_config["model_name"]
    model_type = model_config["model_type"]
    model_kwargs = model_config["model_kwargs"]
    if model_type == "causal_lm":
        model = AutoModelForCausalLM.from_pretrained(model_name, **model_kwargs)
    tokenizer = AutoTokenizer.from_pretrained(model_name)
    return (model, tokenizer)
''',
    """
config_group = RFGridSearch(configs=config_set_lite, trainer_type="SFT")
""",
    """
experiment.run_fit(config_group, sample_create_model, train_dataset, eval_dataset, num_chunks=4, seed=42)
""",
    """
experiment.end()
""",
    """
results = experiment.get_results()
assert [str(run.state) for run in experiment.runs] == ["completed"] * 4, [run.traceback for run in experiment.runs]
assert set(results.run_id) == {1, 2, 3, 4}
assert (results.groupby("run_id").overlap.count() == 4).all(), results
assert (results.groupby("run_id").eval_loss.count() == 4).all()
assert (results.rows.dropna() == 12).all()
""",
]


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


def test_a_notebook_of_the_reference_runs_with_only_the_import_changed(tmp_path):
    from rf_notebook import demo
    from rf_notebook.demo.text import support_rows

    model, tokenizer = demo.create_model({})
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    import json

    (tmp_path / "support.json").write_text("\n".join(json.dumps(row) for row in support_rows(80, 5)))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source.strip()) for source in REFERENCE_STYLE])
    execute(notebook, tmp_path)


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
    assert states == {"completed"}, "the saved notebook shows the end"


def test_there_are_tutorials():
    assert TUTORIALS
