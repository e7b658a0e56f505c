"""Small real experiments for the tests of the public API."""

from __future__ import annotations

from typing import Any

from rf_notebook import Experiment
from rf_notebook.automl import List, RFGridSearch, RFLoraConfig, RFModelConfig, RFSFTConfig
from rf_notebook.testing.tiny import create_tiny, prompt_rows

TRAINING = {
    "learning_rate": 1e-3,
    "per_device_train_batch_size": 2,
    "num_train_epochs": 1,
    "max_length": 64,
    "logging_steps": 2,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
}
LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": ["q_proj", "v_proj"]}


def model(*, lora: dict[str, Any] | None = None, **training: Any) -> RFModelConfig:
    return RFModelConfig(
        model_name="tiny",
        peft_config=RFLoraConfig(**{**LORA, **(lora or {})}),
        training_args=RFSFTConfig(**{**TRAINING, **training}),
    )


def grid(**training: Any) -> RFGridSearch:
    return RFGridSearch(model(**training), "SFT")


def two(**training: Any) -> RFGridSearch:
    return grid(learning_rate=List([1e-3, 3e-3]), **training)


def fit(experiment: Experiment, search: Any, *, rows: int = 24, **kwargs: Any) -> Experiment:
    options = {"num_chunks": 3, "seed": 1, **kwargs}
    experiment.run_fit(search, create_tiny, prompt_rows(rows, 1), prompt_rows(6, 2), **options)
    return experiment


def curve(experiment: Experiment, run_id: int) -> list[tuple[int, dict[str, float]]]:
    from rf_notebook.results.metrics import points_of

    return [(p.step, dict(p.metrics)) for p in points_of(experiment.session.state, run_id)]
