"""Small experiments for the tests of the public API."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable
from typing import Any

from rf_notebook import Experiment
from rf_notebook.automl import List, RFGridSearch, RFLoraConfig, RFModelConfig, RFSFTConfig
from rf_notebook.results.metrics import points_of

TRAINING = {"learning_rate": 1e-3, "per_device_train_batch_size": 2, "num_train_epochs": 1}


def create(_config: Any) -> Any:
    """The loader of models, which the fake runner has none of."""
    raise AssertionError("a model was loaded")


def rows(count: int) -> list[dict[str, str]]:
    return [
        {"prompt": f"question {number}", "completion": f"answer {number}"}
        for number in range(count)
    ]


def grid(**training: Any) -> RFGridSearch:
    config = RFModelConfig(
        model_name="fake",
        peft_config=RFLoraConfig(r=4, target_modules=["q_proj"]),
        training_args=RFSFTConfig(**{**TRAINING, **training}),
    )
    return RFGridSearch(config, "SFT")


def two(**training: Any) -> RFGridSearch:
    return grid(learning_rate=List([1e-3, 3e-3]), **training)


def fit(experiment: Experiment, search: Any, *, count: int = 24, **options: Any) -> Experiment:
    options = {"num_chunks": 3, "seed": 1, "display": False, **options}
    experiment.run_fit(search, create, rows(count), rows(6), **options)
    return experiment


def curve(experiment: Experiment, run_id: int) -> list[tuple[int, dict[str, float]]]:
    return [(p.step, dict(p.metrics)) for p in points_of(experiment.session.state, run_id)]


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def hides(text: str) -> bool:
    """Whether signs that are not seen, or that a terminal obeys, are in a text."""
    return any(unicodedata.category(sign) in ("Cc", "Cf") for sign in text if sign not in "\n\t")
