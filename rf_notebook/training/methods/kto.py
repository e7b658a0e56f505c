"""Kahneman-Tversky optimisation, which needs no pairs: trl's KTOTrainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trl import KTOConfig, KTOTrainer

from rf_notebook.core.errors import ConfigError
from rf_notebook.training.methods.preferences import Preference, PreferenceTrainer

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The loss that compares no answer with those of its neighbours.
_WITHOUT_NEIGHBOURS = "apo_zero_unpaired"


class RunKTOTrainer(PreferenceTrainer, KTOTrainer):
    """KTOTrainer without side effects (trl 1.16)."""

    # trl pairs each prompt with its neighbour's answer in a batch, for the divergence
    preparation = ("max_length", "per_device_train_batch_size", "loss_type")
    reference_settings = ("bf16", "fp16", "loss_type", "max_length", "pad_to_multiple_of", "tf32")
    reference_columns = ("ref_logps", "ref_KL_logps")


class KTO(Preference):
    """See Method."""

    name = "KTO"
    config_class = KTOConfig
    trainer_class = RunKTOTrainer
    needs = "prompt, completion and label, or prompt, chosen and rejected"

    def fits(self, columns: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
        """See Method."""
        return {"completion", "label"} <= columns.keys() or {"chosen", "rejected"} <= columns.keys()

    def columns(self, columns: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[str, ...]:
        """See Method."""
        used = ("prompt", "completion", "label", "chosen", "rejected")
        return tuple(name for name in used if name in columns)

    def advice(self, columns: Mapping[str, Any], arguments: Any) -> tuple[str, ...]:
        """See Method."""
        if arguments.loss_type == _WITHOUT_NEIGHBOURS or "chosen" not in columns:
            return ()
        return (
            "KTO trains in the data's order, and trl puts the chosen answers of pairs before all rejected ones; give it "
            "rows with prompt, completion and label in random order, or loss_type='apo_zero_unpaired' with "
            "train_sampling_strategy='random'.",
        )

    def least_examples(self, given: Mapping[str, Any]) -> int:
        """See Method."""
        return 1 if given.get("loss_type") == _WITHOUT_NEIGHBOURS else 2

    def check(self, arguments: Any, extras: Mapping[str, Any], *, evaluates: bool) -> None:
        """See Method."""
        if arguments.loss_type == _WITHOUT_NEIGHBOURS:
            return
        size, order = arguments.per_device_train_batch_size, arguments.train_sampling_strategy
        if size < 2:
            raise ConfigError(
                f"KTO compares each answer with those of its batch, and per_device_train_batch_size={size}; "
                f"set it to 2 or more, or loss_type={_WITHOUT_NEIGHBOURS!r}."
            )
        if order != "sequential":
            raise ConfigError(
                "KTO compares each answer with its neighbour's in the data, so it trains in the data's order, and "
                f"train_sampling_strategy={order!r}; remove it, or set loss_type={_WITHOUT_NEIGHBOURS!r}."
            )
