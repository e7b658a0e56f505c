"""Whatever another cell does beside eight runs, their figures are those of a quiet notebook.

And the cell gets what it would get alone.

A quiet experiment equals plain TRL: tests/exactness.
"""

from __future__ import annotations

import concurrent.futures
import random
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from rf_notebook import Experiment
from rf_notebook.automl import List, RFGridSearch, RFLoraConfig, RFModelConfig, RFSFTConfig
from rf_notebook.testing.tiny import prompt_rows, text_rows, tiny_model, tiny_tokenizer
from rf_notebook.training.base_models import BaseModels
from tests.cells_at_work import CELLS, SHARED

MODES = ("exact", "fused")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Loaded from a folder, as a user's is.

    A model made of random numbers would be made of the cell's.
    """
    folder = tmp_path_factory.mktemp("base")
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    tiny_model(hidden=128, layers=12).to(torch.bfloat16).save_pretrained(folder / "other")
    return folder


def train(folder, base, execution, cell):
    """Losses of eight runs whose steps draw nothing, and what the cell gave each time."""
    experiment = Experiment("cells", experiment_path=folder)
    config = RFModelConfig(
        model_name=str(base),
        peft_config=RFLoraConfig(r=List([1, 2, 3, 4, 6, 8, 12, 16]), target_modules="all-linear"),
        training_args=RFSFTConfig(max_steps=6, **SHARED),
    )
    experiment.run_fit(
        RFGridSearch(config, "SFT"),
        None,
        text_rows(64, 1),
        text_rows(4, 2),
        num_chunks=4,
        display=False,
        execution=execution,
    )
    given = []
    try:
        while not experiment.wait(timeout=0.01):
            given.append(cell())
    finally:
        rows = experiment.get_results()
        states = [str(run.error or run.state) for run in experiment.runs]
        experiment.end(cancel=True)
    assert states == ["completed"] * 8
    return {
        n: rows[rows.run_id == n][["loss", "eval_loss"]].to_numpy().tolist() for n in range(1, 9)
    }, given


@pytest.fixture(scope="module")
def quiet(tmp_path_factory, base):
    """As text, in which NaN equals NaN."""
    found = {
        mode: train(tmp_path_factory.mktemp(mode), base, mode, lambda: time.sleep(0.1))[0]
        for mode in MODES
    }
    return {mode: {n: repr(losses) for n, losses in runs.items()} for mode, runs in found.items()}


@pytest.mark.parametrize(
    ("cell", "execution"),
    [
        pytest.param(
            cell,
            mode,
            id=f"{cell.__name__}-{mode}",
            marks=[] if number % 2 == place else [pytest.mark.thorough],
        )
        for number, cell in enumerate(CELLS)
        for place, mode in enumerate(MODES)
    ],
)
def test_runs_and_the_cell_beside_them_are_as_each_is_alone(cell, execution, quiet, base, tmp_path):
    torch.manual_seed(3)
    code = cell(base, tmp_path)
    alone = code()
    beside, given = train(tmp_path / "experiment", base, execution, code)
    assert {n: repr(beside[n]) for n in beside} == quiet[execution]
    assert given
    wrong = [one for one in given if one != alone]
    assert not wrong, (alone, wrong)


def written(predictions):
    return {"length": sum(map(len, predictions[0]))}


@pytest.mark.parametrize(("execution", "loader"), [("exact", "own"), ("fused", "hub")])
def test_a_cell_that_seeds_and_draws_gets_its_numbers_beside_runs_that_draw_none(
    tmp_path, base, execution, loader
):
    """From the first moment on.

    While the model is loaded, runs are built, evaluated, let generate, cloned and exported.
    """

    def create(config):
        model = transformers.AutoModelForCausalLM.from_pretrained(base)
        return model, transformers.AutoTokenizer.from_pretrained(base)

    experiment = Experiment("cells", experiment_path=tmp_path)
    config = RFModelConfig(
        model_name=str(base),
        peft_config=RFLoraConfig(r=List([2, 4, 8]), target_modules=["q_proj"]),
        training_args=RFSFTConfig(max_steps=8, **SHARED),
        compute_metrics=written,
        generation_config={"max_new_tokens": 4, "temperature": 0.9},
    )
    experiment.run_fit(
        RFGridSearch(config, "SFT"),
        create if loader == "own" else None,
        prompt_rows(64, 1),
        prompt_rows(4, 2),
        num_chunks=4,
        display=False,
        execution=execution,
        sample_prompts=1,
    )
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    expected = [torch.Generator().manual_seed(5), random.Random(5), np.random.RandomState(5)]
    asked = []
    try:
        while not experiment.wait(timeout=0.001):
            if not asked and experiment.run(1).checkpoint is not None:
                asked.append(experiment.clone(1, {"learning_rate": 1e-4}, warm_start=True))
            assert torch.equal(torch.rand(3), torch.rand(3, generator=expected[0]))
            assert random.random() == expected[1].random()
            assert np.random.rand() == expected[2].rand()
    finally:
        experiment.end(cancel=True)
    assert [str(run.state) for run in experiment.runs] == ["completed"] * 4, [
        run.traceback for run in experiment.runs
    ]
    assert all("length" in run.metrics for run in experiment.runs)


def test_generated_texts_are_those_of_a_quiet_notebook_beside_a_cell_that_draws(tmp_path, base):
    def lengths(folder, cell):
        experiment = Experiment("cells", experiment_path=folder)
        config = RFModelConfig(
            model_name=str(base),
            peft_config=RFLoraConfig(r=2, target_modules=["q_proj"]),
            training_args=RFSFTConfig(max_steps=8, **SHARED),
            compute_metrics=written,
            generation_config={"max_new_tokens": 8, "temperature": 1.5},
        )
        experiment.run_fit(
            RFGridSearch(config),
            None,
            prompt_rows(64, 1),
            prompt_rows(8, 2),
            num_chunks=8,
            display=False,
        )
        while not experiment.wait(timeout=0.001):
            cell()
        experiment.end()
        return experiment.get_results().length.dropna().tolist()

    quiet = lengths(tmp_path / "quiet", lambda: time.sleep(0.01))
    assert len(set(quiet)) > 1
    assert lengths(tmp_path / "loud", lambda: (torch.manual_seed(1), torch.rand(3))) == quiet


ARCHITECTURES = {
    "llama": {"num_key_value_heads": 2, "intermediate_size": 64},
    "qwen3": {
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "head_dim": 16,
        "tie_word_embeddings": True,
    },
    "gemma2": {"num_key_value_heads": 2, "intermediate_size": 64, "head_dim": 16},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "gpt_neox": {"intermediate_size": 64},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "bloom": {"n_layer": 2, "n_head": 2},
    "phi": {"intermediate_size": 64},
    "mamba": {},
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_base_model_is_what_transformers_alone_loads_whatever_the_process_has(
    tmp_path, kind, dtype
):
    config = transformers.AutoConfig.for_model(
        kind,
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        **ARCHITECTURES[kind],
    )
    transformers.AutoModelForCausalLM.from_config(
        config, dtype=getattr(torch, dtype)
    ).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    models = BaseModels(None)
    chosen = {
        "model_name": str(tmp_path),
        "model_type": "causal_lm",
        "model_kwargs": {},
        "tokenizer": None,
    }
    over = threading.Event()

    def disturb():
        while not over.wait(0.0002):
            torch.set_default_dtype(random.choice([torch.float64, torch.bfloat16, torch.float32]))

    other = threading.Thread(target=disturb)
    other.start()
    try:
        model = models.get(chosen | {"tokenizer_kwargs": {}}, use_cpu=True).model
    finally:
        over.set()
        other.join()
        torch.set_default_dtype(torch.float32)
    for mine, theirs in (
        (model.state_dict(), plain.state_dict()),
        (dict(model.named_buffers()), dict(plain.named_buffers())),
    ):
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert mine[name].dtype is theirs[name].dtype, name
            assert torch.equal(mine[name], theirs[name]), name
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tied == (plain.get_input_embeddings().weight is plain.get_output_embeddings().weight)


def test_models_of_a_cell_are_loaded_whole_beside_base_models(tmp_path, base):
    """Tied, and of their own dtype, however the loads overlap."""
    config = transformers.AutoConfig.for_model(
        "qwen3", vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        intermediate_size=64, head_dim=16, tie_word_embeddings=True,
    )  # fmt: skip
    transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(
        tmp_path
    )
    over = threading.Event()

    def load_bases():
        chosen = {
            "model_name": str(base),
            "model_type": "causal_lm",
            "model_kwargs": {},
            "tokenizer": None,
        }
        while not over.is_set():
            found = BaseModels(None).get(chosen | {"tokenizer_kwargs": {}}, use_cpu=True).model
            assert {p.dtype for p in found.parameters()} == {torch.float32}

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load_bases)
        try:
            for _ in range(40):
                model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
                assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
                assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
                assert torch.get_default_dtype() is torch.float32
        finally:
            over.set()
        loading.result()


def test_relative_paths_are_seen_from_where_the_experiment_was_made(tmp_path, base, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("model").symlink_to(base)
    experiment = Experiment("x", experiment_path="mine")
    monkeypatch.chdir(tmp_path)
    assert experiment.folder == tmp_path / "here" / "mine" / "x"
    monkeypatch.chdir(tmp_path / "here")
    config = RFModelConfig(
        model_name="model",
        peft_config=RFLoraConfig(r=4),
        training_args=RFSFTConfig(max_steps=4, **SHARED),
    )
    experiment.run_fit(
        RFGridSearch(config, "SFT"), None, text_rows(16, 1), num_chunks=2, display=False
    )
    monkeypatch.chdir("/")
    experiment.wait()
    assert [run.error for run in experiment.runs] == [None]
    assert experiment.export(1, tmp_path / "exported").exists()
    experiment.end()
    assert {path.name for path in tmp_path.iterdir()} == {"here", "exported"}


def test_autolog_logs_no_run_of_ours(tmp_path, base, monkeypatch):
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/user.db")
    mlflow.set_experiment("mine")
    mlflow.transformers.autolog()
    try:
        train(tmp_path / "e", base, "exact", lambda: time.sleep(0.1))
        client = mlflow.MlflowClient()
        assert not client.search_runs([client.get_experiment_by_name("mine").experiment_id])
        assert len(client.search_runs([client.get_experiment_by_name("cells").experiment_id])) == 8
    finally:
        mlflow.transformers.autolog(disable=True)
        mlflow.set_tracking_uri(None)


def test_a_reward_that_turns_gradients_off_reaches_no_other_run(tmp_path, base):
    from rf_notebook.automl import RFGRPOConfig
    from rf_notebook.testing.tiny import preference_rows

    def reward(completions, **columns):
        torch.set_grad_enabled(False)
        torch.set_default_device("meta")
        torch.set_num_threads(7)
        return [float(n) for n in range(len(completions))]

    lora = RFLoraConfig(r=4, target_modules=["q_proj"])
    training = {
        "per_device_train_batch_size": 4,
        "max_steps": 4,
        "logging_steps": 1,
        "bf16": False,
        "use_cpu": True,
    }
    sft = RFModelConfig(
        model_name=str(base), peft_config=lora, training_args=RFSFTConfig(**training)
    )
    grpo = RFModelConfig(
        model_name=str(base),
        peft_config=lora,
        reward_funcs=reward,
        training_args=RFGRPOConfig(**training, num_generations=2, max_completion_length=4),
    )
    found = []
    for number, configs in enumerate(([sft], [sft, grpo, sft])):
        experiment = Experiment(f"e{number}", experiment_path=tmp_path)
        experiment.run_fit(configs, None, preference_rows(16, 1), num_chunks=4, display=False)
        experiment.wait()
        found.append([(str(run.state), run.metrics.get("train_loss")) for run in experiment.runs])
        experiment.end()
    assert found[1][0] == found[1][2] == found[0][0]
    assert found[0][0][0] == "completed"
