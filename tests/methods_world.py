"""Small experiments of every method, for the tests of the public API."""

from __future__ import annotations

from rf_notebook.automl import (
    RFDPOConfig,
    RFGRPOConfig,
    RFLoraConfig,
    RFModelConfig,
)
from rf_notebook.testing.tiny import create_tiny, preference_rows
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


# ---- mixed experiments
