"""The cells of the experiment in ``before_the_house.tar.gz``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rf_notebook import Experiment
from rf_notebook.automl import List, RFGridSearch, RFLoraConfig, RFModelConfig, RFSFTConfig
from rf_notebook.testing.tiny import create_tiny, prompt_rows


def search() -> RFGridSearch:
    """Two rates, with dropout, so that the random streams count."""
    config = RFModelConfig(
        model_name="tiny",
        model_kwargs={"hidden": 32, "layers": 1},
        peft_config=RFLoraConfig(r=2, lora_dropout=0.1, target_modules=["q_proj"]),
        training_args=RFSFTConfig(
            learning_rate=List([1e-3, 3e-3]),
            per_device_train_batch_size=2,
            num_train_epochs=2,
            logging_steps=1,
            max_length=64,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
        ),
    )
    return RFGridSearch(config, "SFT")


def launch(folder: Path, name: str = "recorded", **options: Any) -> Experiment:
    """The launching cell."""
    experiment = Experiment(name, experiment_path=folder)
    experiment.run_fit(
        search(),
        create_tiny,
        prompt_rows(16, 1),
        prompt_rows(4, 2),
        num_chunks=3,
        display=False,
        **options,
    )
    return experiment
