"""The demo's experiment: four configs on the small base."""

from __future__ import annotations

from pathlib import Path

from rf_notebook import demo
from rf_notebook.automl import List, RFGridSearch, RFLoraConfig, RFModelConfig, RFSFTConfig
from rf_notebook.experiment import Experiment


def start(name: str, folder: Path | None = None) -> Experiment:
    """Start it and return at once.

    Args:
        name: The experiment's name.
        folder: Of experiments; "rf_experiments" when omitted.
    """
    configs = RFModelConfig(
        model_name=demo.MODEL_NAME,
        formatting_func=demo.format_row,
        peft_config=RFLoraConfig(r=List([4, 16]), lora_alpha=16, target_modules="all-linear"),
        training_args=RFSFTConfig(
            learning_rate=List([5e-4, 5e-3]),
            per_device_train_batch_size=8,
            per_device_eval_batch_size=32,
            num_train_epochs=1,
            max_length=128,
            logging_steps=5,
            lr_scheduler_type="cosine",
            gradient_checkpointing=False,
            bf16=False,
        ),
    )
    experiment = Experiment(name, experiment_path=folder)
    experiment.run_fit(
        RFGridSearch(configs, trainer_type="SFT"),
        demo.create_model,
        demo.train_dataset(800),
        demo.eval_dataset(64),
        num_chunks=4,
    )
    return experiment
