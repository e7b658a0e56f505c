"""Small experiments of every method, for the tests of the public API."""

from __future__ import annotations

import torch
from peft import PeftModel

from rf_notebook.automl import (
    RFDPOConfig,
    RFGRPOConfig,
    RFLoraConfig,
    RFModelConfig,
)
from rf_notebook.testing.tiny import create_tiny, preference_rows, tiny_model, tiny_tokenizer
from tests.experiment_world import LORA, TRAINING

DPO = {**TRAINING, "learning_rate": 1e-3}
GRPO = {
    **{name: value for name, value in TRAINING.items() if name != "max_length"},
    "per_device_train_batch_size": 4,
    "per_device_eval_batch_size": 4,
    "num_generations": 4,
    "max_completion_length": 8,
}


def length(completions, **kwargs):
    return [float(len(text)) for text in completions]


def dpo(*, lora=None, fields=None, **training):
    return RFModelConfig(
        model_name="tiny",
        peft_config=RFLoraConfig(**{**LORA, **(lora or {})}),
        training_args=RFDPOConfig(**{**DPO, **training}),
        **(fields or {}),
    )


def grpo(rewards=length, *, fields=None, **training):
    return RFModelConfig(
        model_name="tiny",
        peft_config=RFLoraConfig(**LORA),
        training_args=RFGRPOConfig(**{**GRPO, **training}),
        reward_funcs=rewards,
        **(fields or {}),
    )


def fit(experiment, configs, *, rows=24, evaluates=False, **kwargs):
    evaluation = preference_rows(4, 2) if evaluates else None
    experiment.run_fit(
        configs,
        create_tiny,
        preference_rows(rows, 1),
        evaluation,
        **{"num_chunks": 3, "seed": 1, **kwargs},
    )
    return experiment


def plain_losses(trainer_class, config_class, training, adapter, folder, **more):
    """What plain trl logs of a run that starts from an adapter, which is its reference, too."""
    torch.manual_seed(0)
    trainer = trainer_class(
        model=PeftModel.from_pretrained(tiny_model(), str(adapter), is_trainable=True),
        args=config_class(
            output_dir=str(folder),
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            seed=1,
            **training,
        ),
        train_dataset=preference_rows(24, 1),
        processing_class=tiny_tokenizer(),
        **more,
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


# ---- mixed experiments
