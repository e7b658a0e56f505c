"""Trains one experiment on whatever GPUs are visible, and prints what it gave.

FOLDER EXECUTION [CHUNKS].

With CHUNKS it ends after so many, so that another process, which may see other GPUs, continues it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from rf_notebook import Experiment
from rf_notebook.automl import (
    List,
    RFDPOConfig,
    RFGRPOConfig,
    RFLoraConfig,
    RFModelConfig,
    RFSFTConfig,
)
from rf_notebook.results.metrics import points_of
from rf_notebook.testing.tiny import preference_rows, tiny_model, tiny_tokenizer

TRAINING: dict[str, Any] = {
    "learning_rate": 1e-3,
    "per_device_train_batch_size": 4,
    "num_train_epochs": 2,
    "logging_steps": 1,
    "bf16": False,
    "gradient_checkpointing": False,
}


def create_model(config: dict[str, Any]) -> tuple[Any, Any]:
    """As users write it: accelerate chooses where the model lies."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name = config["model_name"]
    return AutoModelForCausalLM.from_pretrained(
        name, **config["model_kwargs"]
    ), AutoTokenizer.from_pretrained(name)


def length(completions: list[str], **kwargs: Any) -> list[float]:
    return [float(len(text)) for text in completions]


def configs(base: str) -> list[RFModelConfig]:
    adapter = RFLoraConfig(r=List([4, 8]), lora_dropout=0.1, target_modules=["q_proj", "v_proj"])
    grpo = {"num_generations": 4, "max_completion_length": 8}
    methods = [
        (RFSFTConfig(max_length=64, **TRAINING), {}),
        (RFDPOConfig(max_length=64, **TRAINING), {}),
        (RFGRPOConfig(**TRAINING, **grpo), {"reward_funcs": length}),
    ]
    return [
        RFModelConfig(
            model_name=base,
            model_kwargs={"device_map": "auto"},
            peft_config=adapter,
            training_args=arguments,
            **more,
        )
        for arguments, more in methods
    ]


def main() -> None:
    folder, execution = Path(sys.argv[1]), sys.argv[2]
    base = folder / "base"
    if not base.exists():
        tiny_model(layers=4).save_pretrained(base)
        tiny_tokenizer().save_pretrained(base)
    experiment = Experiment("devices", experiment_path=folder)
    rows = preference_rows(16, 1)
    experiment.run_fit(
        configs(str(base)),
        create_model,
        rows,
        rows.select(range(4)),
        num_chunks=2,
        execution=execution,
        display=False,
    )
    if len(sys.argv) > 3:
        while min(run._record.progress.chunks for run in experiment.runs) < int(sys.argv[3]):  # noqa: SLF001 - a run's whole record
            experiment.wait(timeout=0.05)
        experiment.end(cancel=True)
    else:
        experiment.wait()
        experiment.end()
    found = {
        run.id: [
            str(run.state),
            run.error,
            [[p.step, dict(p.metrics)] for p in points_of(experiment.session.state, run.id)],
        ]
        for run in experiment.runs
    }
    print(json.dumps({"gpus": torch.cuda.device_count(), "runs": found}))


if __name__ == "__main__":
    main()
