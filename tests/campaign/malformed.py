"""Odd values for every public argument: refused in a sentence, or taken, and never a raw error."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rf_notebook import automl
from rf_notebook.automl import List, Range, RFGridSearch, RFModelConfig
from rf_notebook.automl.library_configs import TRAINING_CONFIGS
from rf_notebook.core.errors import RFNotebookError
from rf_notebook.core.objects import Objects
from tests.campaign.part import Part


def _nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


_ODD: list[Callable[[], Any]] = [
    lambda: None, lambda: True, lambda: -1, lambda: 0, lambda: 10**400, lambda: -(10**400), lambda: float("nan"),
    lambda: float("inf"), lambda: 1e308, lambda: "", lambda: "\0", lambda: "\ud800", lambda: "x" * 100_000, lambda: "../../etc",
    lambda: b"bytes", lambda: [], lambda: {}, lambda: {1: 2}, lambda: {"a": {"b": [1]}}, lambda: _nested(5), lambda: _nested(2000),
    lambda: set(), lambda: {1, "a"}, lambda: (1, 2), lambda: object(), lambda: int, lambda: print, lambda: (lambda x: x),
    lambda: np.arange(3), lambda: np.float64(0.5), lambda: np.array([]), lambda: pd.Series([1, 2]), lambda: pd.DataFrame({"a": [1]}),
    lambda: List([1, 2]), lambda: List([List([1])]), lambda: Range(1, 2), lambda: 1j, lambda: Path("\0"), lambda: ..., lambda: range(3),
    lambda: iter([1]), lambda: Exception("x"), lambda: float, lambda: "1e-4", lambda: "true", lambda: [None, [None]],
]  # fmt: skip


class Malformed(Part):
    """Of configs, searches and List and Range themselves."""

    def attempt(self, draw: random.Random) -> str:
        """See Part."""
        method = draw.choice(sorted(TRAINING_CONFIGS))
        config_class = getattr(automl, f"RF{method}Config")
        adapter_class = getattr(
            automl,
            draw.choice(
                [
                    name
                    for name in automl.__all__
                    if name.endswith("Config") and name not in ("RFModelConfig",)
                ]
            ),
        )
        training = {
            draw.choice(_fields(config_class)): draw.choice(_ODD)()
            for _ in range(draw.randrange(3))
        }
        adapter = {
            draw.choice(_fields(adapter_class)): draw.choice(_ODD)()
            for _ in range(draw.randrange(3))
        }
        model = {draw.choice(_MODEL_FIELDS): draw.choice(_ODD)() for _ in range(draw.randrange(3))}
        count = draw.choice([None, 1])
        try:
            given = {
                "model_name": "tiny",
                "peft_config": adapter_class(**adapter),
                "training_args": config_class(**training),
            } | model
            search = RFGridSearch(
                RFModelConfig(**given), method if count is None else draw.choice(_ODD)()
            )
            search.run_configs(Objects(), seed=1, data_seed=None)
        except RFNotebookError as error:
            if "\n" in str(error).strip():
                return f"more than a sentence: {error}"
        return ""


_MODEL_FIELDS = (
    "model_name", "model_type", "model_kwargs", "tokenizer", "tokenizer_kwargs", "peft_config", "training_args",
    "reward_funcs", "formatting_func", "compute_metrics", "ref_model_name", "num_gpus", "generation_config", "nothing",
)  # fmt: skip


def _fields(config_class: type) -> list[str]:
    import inspect

    known = list(inspect.signature(config_class).parameters)
    return [*_COMMON, *(name for name in known if name not in ("kwargs", "given"))]


_COMMON = ("r", "lora_alpha", "target_modules", "learning_rate", "num_train_epochs", "max_steps", "seed", "logging_steps",
           "per_device_train_batch_size", "warmup_steps", "lr_scheduler_type", "optim", "report_to", "bf16", "beta", "max_length",
           "task_type", "bias", "rank_pattern", "modules_to_save", "nothing")  # fmt: skip
