"""Reward models through the public API: the hub's loader, refusals, exports, other methods beside them."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import (
    AutoModelForSequenceClassification,
    LlamaForSequenceClassification,
    set_seed,
)
from trl import RewardConfig, RewardTrainer

from rf_notebook import ConfigError
from rf_notebook.automl import (
    RFGridSearch,
    RFLoraConfig,
    RFModelConfig,
    RFRewardConfig,
    RFSFTConfig,
)
from rf_notebook.testing.tiny import preference_rows, prompt_rows, tiny_model, tiny_tokenizer
from rf_notebook.training import per_thread
from rf_notebook.training.methods import METHODS
from tests.exactness.models import create
from tests.experiment_world import LORA, curve

REWARD = {"max_length": 64, "max_steps": 6, "logging_steps": 1, "use_cpu": True, "bf16": False}


def reward(*, fields=None, **training):
    return RFModelConfig(
        **{"model_name": "tiny", "peft_config": RFLoraConfig(**LORA)} | (fields or {}),
        training_args=RFRewardConfig(**REWARD | training),
    )


def fit(experiment, *configs, create_model=create, **options):
    experiment.run_fit(
        RFGridSearch(list(configs)),
        create_model,
        preference_rows(20, 1),
        preference_rows(6, 2),
        num_chunks=2,
        display=False,
        **options,
    )
    return experiment


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal model in a folder, as the hub gives one."""
    folder = tmp_path_factory.mktemp("base")
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_the_hubs_loader_gives_the_head_that_trl_gives_with_its_usual_seed(new, saved, tmp_path):
    experiment = fit(new(), reward(fields={"model_name": str(saved)}), create_model=None)
    experiment.wait()
    assert str(experiment.runs[0].state) == "completed", experiment.runs[0].traceback
    set_seed(42)  # as trl does before it loads a model by its name
    trainer = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(saved, num_labels=1),
        args=RewardConfig(
            output_dir=str(tmp_path / "plain"), report_to="none", save_strategy="no", **REWARD
        ),
        train_dataset=preference_rows(20, 1),
        eval_dataset=preference_rows(6, 2),
        processing_class=tiny_tokenizer(),
        peft_config=LoraConfig(**LORA, task_type="SEQ_CLS"),
    )
    trainer.train()
    plain = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert [one["loss"] for _, one in curve(experiment, 1) if "loss" in one] == plain
    experiment.end()


@pytest.mark.filterwarnings("ignore:Could not find a config file")  # of the tiny model
def test_its_figures_and_its_model(new, tmp_path):
    experiment = fit(new(), reward(), reward(learning_rate=1e-2), sample_prompts=["hello"])
    experiment.wait()
    assert [str(run.state) for run in experiment.runs] == ["completed"] * 2
    assert {"accuracy", "margin", "mean_reward", "eval_accuracy"} <= set(experiment.runs[0].metrics)
    best = experiment.best()
    scores = {run.id: run.metrics["eval_accuracy"] for run in experiment.runs}
    assert scores[best.id] == max(scores.values())
    with pytest.raises(ConfigError, match="run 1 is a reward model, which scores texts"):
        experiment.generate(1, "hello")
    experiment.end()
    tokens = torch.tensor([[223, 322, 342], [223, 322, 0]])
    model = experiment.load(1, create)
    with torch.no_grad():
        expected = model(input_ids=tokens).logits
    assert expected.shape == (2, 1)
    experiment.export(1, tmp_path / "adapter", create_model_fn=create)
    base = create({"model_type": "sequence_classification"})[0]
    base.config.pad_token_id = 0
    again = PeftModel.from_pretrained(base, str(tmp_path / "adapter"))
    with torch.no_grad():
        assert torch.equal(again(input_ids=tokens).logits, expected)
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert "AutoModelForSequenceClassification" in card
    assert "text-classification" in card
    experiment.export(1, tmp_path / "merged", merge=True, create_model_fn=create)
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    assert isinstance(merged, LlamaForSequenceClassification)
    with torch.no_grad():
        torch.testing.assert_close(merged(input_ids=tokens).logits, expected)


def test_in_joint_steps_it_trains_alone_and_says_why(new):
    exact = fit(new("exact"), reward())
    exact.end()
    fused = fit(new("fused"), reward(), reward(learning_rate=1e-2), execution="fused")
    fused.end()
    info = fused.get_runs_info().set_index("run_id")
    assert "scores whole texts" in info.alone_because[1]
    assert curve(fused, 1) == curve(exact, 1)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            reward(fields={"generation_config": {"max_new_tokens": 3}, "compute_metrics": len}),
            "writes no texts",
        ),
        (reward(fields={"reward_funcs": len}), "belongs to trainer_type='GRPO' or 'RLOO'"),
        (
            reward(fields={"num_gpus": 2}),
            "spreads causal models, and Reward trains one with a head",
        ),
        (
            RFModelConfig(
                model_name="tiny",
                model_type="sequence_classification",
                peft_config=RFLoraConfig(**LORA),
                training_args=RFSFTConfig(**REWARD),
            ),
            "SFT trains causal models",
        ),
    ],
)
def test_what_cannot_be_is_refused(new, config, sentence):
    with pytest.raises(ConfigError, match=sentence):
        fit(new(), config)


def test_rows_without_pairs_and_rows_that_are_all_too_long_are_refused_or_fail_in_a_sentence(new):
    experiment = new()
    with pytest.raises(ConfigError, match="Reward needs rows with chosen and rejected"):
        experiment.run_fit(RFGridSearch(reward()), create, prompt_rows(4, 1), num_chunks=2)
    fit(experiment, reward(max_length=2))
    experiment.wait()
    assert "no row of the train data is left" in experiment.runs[0].error
    experiment.end()


def test_every_trainer_that_seeds_seeds_its_own_thread():
    """Else a run that is built seeds what another cell draws from."""
    covered = {module.__name__ for module in per_thread.SEEDING}
    for method in METHODS.values():
        made = inspect.getmodule(type(method))
        for name in dir(made):
            cls = getattr(made, name)
            module = getattr(cls, "__module__", "")
            is_trainer = isinstance(cls, type) and name.endswith("Trainer")
            if is_trainer and module.startswith("trl.trainer."):
                seeds = hasattr(importlib.import_module(module), "set_seed")
                assert module in covered or not seeds, module
