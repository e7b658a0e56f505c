"""One file a training method. Adding one is a file here, a line below and a test."""

from __future__ import annotations

from rf_notebook.training.methods.base import Method
from rf_notebook.training.methods.dpo import DPO
from rf_notebook.training.methods.grpo import GRPO
from rf_notebook.training.methods.kto import KTO
from rf_notebook.training.methods.reward import Reward
from rf_notebook.training.methods.rloo import RLOO
from rf_notebook.training.methods.sft import SFT

METHODS: dict[str, Method] = {
    "SFT": SFT(),
    "DPO": DPO(),
    "KTO": KTO(),
    "GRPO": GRPO(),
    "RLOO": RLOO(),
    "Reward": Reward(),
}


def method_named(name: str) -> Method:
    """The method of a trainer_type, which the config was checked to be one of."""
    return METHODS[name]


__all__ = ["METHODS", "Method", "method_named"]
