"""The cells of the experiment in ``version_1.tar.gz``.

rf_notebook 0.1.0 (commit 663322b) recorded it and left it halfway.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from rf_notebook import Experiment
from rf_notebook.automl import List, RFGridSearch, RFGRPOConfig, RFLoraConfig, RFModelConfig
from rf_notebook.testing.tiny import create_tiny, prompt_rows


class Counted:
    """A reward whose state changes with every call."""

    def __init__(self, weight: float) -> None:
        self.weight, self.calls = weight, 0

    def __call__(self, completions: list[str], **columns: Any) -> list[float]:
        self.calls += 1
        return [self.weight * (len(text) % 5) for text in completions]


def length(completions: list[str], **columns: Any) -> list[float]:
    return [len(text) / 100 for text in completions]


def over(words: set[str], weight: float) -> Any:
    def counted(completions: list[str], **columns: Any) -> list[float]:
        return [weight * sum(word in text for word in sorted(words)) for text in completions]

    return counted


def tilted(completions: list[str], weight: float, **columns: Any) -> list[float]:
    return [weight * (len(text) % 3) for text in completions]


def search(first: float = 0.5) -> RFGridSearch:
    """Rewards of all kinds, dicts with numbers as keys, and a secret."""
    lists = [
        [length, Counted(first)],
        [over({"cat"}, 1.0), functools.partial(tilted, weight=2.0)],
        [lambda completions, **columns: [float(len(text) % 7) for text in completions]],
    ]
    config = RFModelConfig(
        model_name="tiny",
        model_kwargs={"hidden": 32, "layers": 1},
        tokenizer_kwargs={"token": "hf_" + "x" * 20, "places": {0: "a", 1: "b"}},
        peft_config=RFLoraConfig(r=2, target_modules=["q_proj"]),
        reward_funcs=List(lists),
        training_args=RFGRPOConfig(
            learning_rate=1e-3,
            per_device_train_batch_size=4,
            num_generations=2,
            max_completion_length=4,
            max_steps=4,
            logging_steps=1,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
        ),
    )
    return RFGridSearch(config, "GRPO")


def launch(folder: Path, **options: Any) -> Experiment:
    """The launching cell."""
    experiment = Experiment("recorded", experiment_path=folder)
    experiment.run_fit(
        search(**options), create_tiny, prompt_rows(8, 1), num_chunks=2, display=False, keep="last"
    )
    return experiment
