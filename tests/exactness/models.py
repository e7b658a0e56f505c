"""The models of the cases: a tiny causal one, and for Reward the same with a head that scores."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaForSequenceClassification

from rf_notebook.testing.tiny import create_tiny


def create(model_config: dict[str, Any]) -> tuple[Any, Any]:
    """A create_model_fn."""
    model, tokenizer = create_tiny(model_config)
    if model_config.get("model_type") != "sequence_classification":
        return model, tokenizer
    config = model.config
    config.num_labels = 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        scoring = LlamaForSequenceClassification(config)
    scoring.model.load_state_dict(model.model.state_dict())
    return scoring.to(model.dtype).eval(), tokenizer
