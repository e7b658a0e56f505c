"""Reward models, which score whole texts: trl's RewardTrainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trl import RewardConfig, RewardTrainer

from rf_notebook.core.errors import ConfigError
from rf_notebook.training.methods.base import (
    Method,
    RunTrainer,
    TrainerParts,
    preparation_settings,
    spelled_as_now,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


#: Arguments that decide what ``RewardTrainer._prepare_dataset`` makes of a data set (trl 1.16).
_PREPARATION = ("chat_template_path", "eos_token", "max_length", "pad_token")


class RunRewardTrainer(RunTrainer, RewardTrainer):
    """RewardTrainer without side effects (trl 1.16).

    Data that another run prepared alike is not prepared again.
    """

    def __init__(self, *, parts: TrainerParts) -> None:
        self._parts, self._on_seeding = parts, parts.on_seeding
        super().__init__(
            model=parts.model,
            args=parts.arguments,
            train_dataset=parts.train_dataset,
            eval_dataset=parts.eval_dataset,
            processing_class=parts.tokenizer,
            peft_config=parts.peft_config,
            compute_metrics=parts.compute_metrics,
            callbacks=parts.callbacks,
        )

    def _prepare_dataset(
        self, dataset: Any, processing_class: Any, args: Any, dataset_name: str
    ) -> Any:
        def make() -> Any:
            return super(RunRewardTrainer, self)._prepare_dataset(
                dataset, processing_class, args, dataset_name
            )

        settings = preparation_settings(args, _PREPARATION, processing_class)
        prepared = self._parts.prepared.get(dataset, {"trainer": "Reward", **settings}, make)
        if hasattr(prepared, "__len__") and len(prepared) == 0:
            raise ConfigError(
                f"no row of the {dataset_name} data is left: trl takes away those that are longer than "
                f"max_length={args.max_length}, and all are. Raise max_length, or set it to None."
            )
        return prepared


class Reward(Method):
    """See Method."""

    needs = "chosen and rejected, with a prompt or without"
    pads_right = True
    generates = False

    def fits(self, columns: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
        """See Method."""
        return {"chosen", "rejected"} <= columns.keys()

    def columns(self, columns: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[str, ...]:
        """See Method."""
        used = ("prompt", "chosen", "rejected", "margin")
        return tuple(name for name in used if name in columns)

    def arguments(self, given: dict[str, Any]) -> Any:
        """See Method."""
        return RewardConfig(**spelled_as_now(RewardConfig, given))

    def check(self, arguments: Any, extras: Mapping[str, Any], *, evaluates: bool) -> None:
        """See Method."""
        if extras.get("generation_config") is not None:
            raise ConfigError(
                "a reward model writes no texts, and the config has a generation_config; remove it."
            )

    def trainer(self, parts: TrainerParts) -> RunRewardTrainer:
        """See Method."""
        return RunRewardTrainer(parts=parts)

    def tokenizer_settings(self, given: dict[str, Any]) -> dict[str, Any]:
        """See Method."""
        return {"method": "Reward"} | {name: given.get(name) for name in ("eos_token", "pad_token")}
