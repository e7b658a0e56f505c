"""What did a run's trainer make of its tokenizer, and how does a checkpoint keep it?

trl sets end and padding tokens and chat templates, and for some templates adds tokens and resizes
the embeddings. All of that belongs to the run: what it writes later, and the folder that it is
exported to, use what it trained with.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from rf_notebook.training.base_models import BaseModel

_SETTINGS_FILE = "run_tokenizer.json"
#: Whole, where the vocabulary is not the base model's.
_FOLDER = "tokenizer"
_ROWS_FILE = "added_embeddings.safetensors"
_SPECIAL = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_SET_BY_TRAINERS = ("chat_template", "padding_side", "truncation_side", *_SPECIAL)
_EMBEDDINGS = {"input": "get_input_embeddings", "output": "get_output_embeddings"}


@dataclass(frozen=True, slots=True)
class RunTokenizer:
    """A run's tokenizer, and what its data looked like."""

    tokenizer: Any
    is_chat: bool
    """Whether the run trained on messages, so that a prompt is put into the chat template."""


def save_tokenizer(used: RunTokenizer, model: Any, base: BaseModel, folder: Path) -> None:
    """Write what differs from the base model's tokenizer and vocabulary into a checkpoint's folder.

    Args:
        used: The run's tokenizer.
        model: The run's, a PEFT model or a plain one.
        base: What the run's tree was made from.
        folder: The checkpoint's folder.
    """
    tokenizer = used.tokenizer
    settings = {name: getattr(tokenizer, name, None) for name in _SET_BY_TRAINERS}
    said = {"is_chat": used.is_chat, "settings": settings}
    if len(tokenizer) != len(base.tokenizer):
        tokenizer.save_pretrained(str(folder / _FOLDER))
    if hasattr(model, "peft_config"):  # all weights are saved otherwise
        tree = model.get_base_model()
        size, before = (one.get_input_embeddings().weight.shape[0] for one in (tree, base.model))
        if size != before:
            said["embedding_rows"] = size
        if size > before:
            save_file(_added_rows(tree, before), folder / _ROWS_FILE)
    (folder / _SETTINGS_FILE).write_text(json.dumps(said, indent=1))


def load_tokenizer(base: BaseModel, folder: Path) -> RunTokenizer:
    """The inverse of ``save_tokenizer``.

    Without its files, as in checkpoints of version 0.1.0, the base model's.
    """
    file = folder / _SETTINGS_FILE
    if not file.exists():
        return RunTokenizer(
            copy.deepcopy(base.tokenizer), bool(getattr(base.tokenizer, "chat_template", None))
        )
    saved = json.loads(file.read_text())
    if (folder / _FOLDER).is_dir():
        return RunTokenizer(
            type(base.tokenizer).from_pretrained(str(folder / _FOLDER)), saved["is_chat"]
        )
    tokenizer = copy.deepcopy(base.tokenizer)
    for name, value in saved["settings"].items():
        if name in _SET_BY_TRAINERS and getattr(tokenizer, name, None) != value:
            setattr(tokenizer, name, value)
    return RunTokenizer(tokenizer, saved["is_chat"])


def resize_vocabulary(tree: Any, folder: Path) -> None:
    """Give a tree's embeddings the rows that the run's trainer gave them."""
    file = folder / _SETTINGS_FILE
    size = json.loads(file.read_text()).get("embedding_rows") if file.exists() else None
    if size is None:
        return
    before = tree.get_input_embeddings().weight.shape[0]
    tree.resize_token_embeddings(size, mean_resizing=False)
    if size <= before:
        return
    with torch.no_grad():
        for name, added in load_file(folder / _ROWS_FILE).items():
            weight = getattr(tree, _EMBEDDINGS[name])().weight
            weight[before:] = added.to(weight)


def _added_rows(tree: Any, before: int) -> dict[str, torch.Tensor]:
    """A tree's embedding rows from number ``before`` on, as they were before training."""
    layers = {name: getattr(tree, getter)() for name, getter in _EMBEDDINGS.items()}
    weights = {
        name: getattr(layer, "original_module", layer).weight
        for name, layer in layers.items()
        if layer is not None
    }
    if "output" in weights and weights["output"] is weights["input"]:
        del weights["output"]
    return {name: weight[before:].detach().cpu().clone() for name, weight in weights.items()}
