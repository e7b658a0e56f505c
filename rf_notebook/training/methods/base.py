"""What does a training method have to say for itself?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from rf_notebook.training.datasets import PreparedDatasets


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerParts:
    """All that a trainer is built from; everything but the shared data belongs to this run alone."""

    model: Any
    """A module tree of the run's own."""
    tokenizer: Any
    arguments: Any
    """What ``Method.arguments`` made."""
    peft_config: Any | None
    train_dataset: Any
    eval_dataset: Any | None
    formatting_func: Callable[[dict[str, Any]], str] | None
    """Only one that returns text, which trl applies itself."""
    compute_metrics: Callable[[Any], dict[str, float]] | None
    callbacks: list[Any]
    prepared: PreparedDatasets


def spelled_as_now(config_class: type, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments with checkpointing named as the installed transformers does, with the value it has anyway.

    trl 1.16 has a default of its own under the older name, for which transformers warns every user.
    Source: transformers 5.23, ``TrainingArguments.__post_init__``: older names are used where the newer are not set.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(config_class)}
    spelled = dict(given)
    for old, new in (
        ("gradient_checkpointing", "activation_checkpointing"),
        ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"),
    ):
        if new in defaults and spelled.get(new) is None:
            spelled[new] = spelled.pop(old, defaults[old])
    return spelled


class Method(Protocol):
    """One of trl's trainers."""

    def arguments(self, given: dict[str, Any]) -> Any:
        """Trl's config object. Raises what trl raises."""

    def trainer(self, parts: TrainerParts) -> Any:
        """The trainer, as a user of trl would build it."""

    def tokenizer_settings(self, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments by which the trainer changes its tokenizer."""

    def extra_state(self, trainer: Any) -> dict[str, Any]:
        """What the trainer accumulates beyond its checkpoint: plain numbers, lists and dicts."""

    def restore_extra_state(self, trainer: Any, state: dict[str, Any]) -> None:
        """The inverse, before the first step."""
