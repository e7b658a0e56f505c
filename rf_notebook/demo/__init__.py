"""The offline kit: a small base model, its tokenizer, and customer-support data.

No network, the same everywhere.

The base has 0.9 million weights and was trained on made-up shop articles and chats
(``train_base.py``); it knows the sentences but not which one answers what. Fine-tuning teaches it that, so configs differ visibly within
seconds on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.demo.text import SYSTEM, offer_rows, preference_rows, support_rows

if TYPE_CHECKING:
    import datasets

_ASSETS = Path(__file__).parent / "assets"
#: A name for RFModelConfig(model_name=...).
MODEL_NAME = "rf-notebook-demo"


def create_model(model_config: dict[str, Any]) -> tuple[Any, Any]:
    """A create_model_fn for the demo's base: (model in float32, tokenizer).

    ``model_kwargs`` may set dtype; with ``model_type="sequence_classification"`` the model has a head of
    one output, for Reward.
    """
    import torch

    from rf_notebook.training.base_models import load_from_hub

    kwargs = {
        "dtype": torch.float32,
        **(model_config.get("model_kwargs") or {}),
        "local_files_only": True,
    }
    model, tokenizer = load_from_hub(
        {
            **model_config,
            "model_name": str(_ASSETS),
            "model_kwargs": kwargs,
            "tokenizer": None,
            "tokenizer_kwargs": {"local_files_only": True},
        }
    )
    model.config._name_or_path = MODEL_NAME  # noqa: SLF001 - transformers keeps the name so
    return model, tokenizer


def train_dataset(rows: int = 2000) -> datasets.Dataset:
    """Customers' questions and the support's answers: columns instruction, response, intent."""
    return _dataset(rows, seed=1)


def eval_dataset(rows: int = 200) -> datasets.Dataset:
    """Further rows of the same kind; none of them is in the training data."""
    return _dataset(rows, seed=2)


def format_row(row: dict[str, Any]) -> dict[str, Any]:
    """A formatting_func: the row as a prompt and a completion of chat messages."""
    return {
        "prompt": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": row["instruction"]},
        ],
        "completion": [{"role": "assistant", "content": row["response"]}],
    }


def preference_dataset(rows: int = 400) -> datasets.Dataset:
    """Questions with a good and a bad answer: columns instruction, chosen, rejected."""
    return _as_dataset(preference_rows(rows, seed=3))


def format_pair(row: dict[str, Any]) -> dict[str, Any]:
    """A formatting_func for DPO: a prompt and two answers as chat messages."""
    asked = format_row({"instruction": row["instruction"], "response": ""})
    return {
        "prompt": asked["prompt"],
        "chosen": [{"role": "assistant", "content": row["chosen"]}],
        "rejected": [{"role": "assistant", "content": row["rejected"]}],
    }


def offer_dataset(rows: int = 256) -> datasets.Dataset:
    """Sentences to complete, for GRPO: columns prompt, budget.

    What a product costs can be checked by a function.
    """
    return _as_dataset(offer_rows(rows, seed=4))


def _dataset(rows: int, seed: int) -> datasets.Dataset:
    return _as_dataset(support_rows(rows, seed))


def _as_dataset(rows: Sequence[Mapping[str, Any]]) -> datasets.Dataset:
    import datasets

    return datasets.Dataset.from_list([dict(row) for row in rows])
