"""The offline kit: a small base model, its tokenizer, and customer-support data. No network, the same everywhere.

The base has 0.9 million weights and was trained on made-up shop articles (``train_base.py``); it knows the words but not
how to answer. Fine-tuning teaches it that, so configs differ visibly within seconds on a CPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.demo.text import support_rows

if TYPE_CHECKING:
    import datasets

_ASSETS = Path(__file__).parent / "assets"
#: A name for RFModelConfig(model_name=...).
MODEL_NAME = "rf-notebook-demo"
_SYSTEM = "You are the friendly support of a shop."


def create_model(model_config: dict[str, Any]) -> tuple[Any, Any]:
    """A create_model_fn for the demo's base: (model in float32, tokenizer). ``model_kwargs`` may set dtype."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    kwargs = {"dtype": torch.float32, **(model_config.get("model_kwargs") or {})}
    model = AutoModelForCausalLM.from_pretrained(_ASSETS, local_files_only=True, **kwargs)
    model.config._name_or_path = MODEL_NAME
    return model, AutoTokenizer.from_pretrained(_ASSETS, local_files_only=True)


def train_dataset(rows: int = 2000) -> datasets.Dataset:
    """Customers' questions and the support's answers: columns instruction, response, intent."""
    return _dataset(rows, seed=1)


def eval_dataset(rows: int = 200) -> datasets.Dataset:
    """Further rows of the same kind; none of them is in the training data."""
    return _dataset(rows, seed=2)


def format_row(row: dict[str, Any]) -> dict[str, Any]:
    """A formatting_func: the row as a prompt and a completion of chat messages."""
    return {
        "prompt": [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": row["instruction"]}],
        "completion": [{"role": "assistant", "content": row["response"]}],
    }


def _dataset(rows: int, seed: int) -> datasets.Dataset:
    import datasets

    return datasets.Dataset.from_list(support_rows(rows, seed))
