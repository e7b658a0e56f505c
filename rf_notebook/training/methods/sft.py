"""Supervised fine-tuning: trl's SFTTrainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from trl import SFTConfig, SFTTrainer

from rf_notebook.core.errors import ConfigError
from rf_notebook.training.fused.head import COMPACT
from rf_notebook.training.methods.base import (
    Method,
    RunTrainer,
    TrainerParts,
    preparation_settings,
    spelled_as_now,
)

if TYPE_CHECKING:
    from rf_notebook.training.datasets import PreparedDatasets

#: Arguments that decide what ``SFTTrainer._prepare_dataset`` makes of a data set (trl 1.16).
_PREPARATION = (
    "assistant_only_loss",
    "chat_template_path",
    "completion_only_loss",
    "dataset_kwargs",
    "dataset_text_field",
    "eos_token",
    "max_length",
    "packing_strategy",
    "pad_token",
    "shuffle_dataset",
    "truncation_mode",
)


class RunSFTTrainer(RunTrainer, SFTTrainer):
    """SFTTrainer without side effects.

    Data that another run prepared alike is not prepared again.
    """

    def __init__(
        self,
        *args: Any,
        prepared: PreparedDatasets,
        on_seeding: Callable[[], None] = lambda: None,
        **kwargs: Any,
    ) -> None:
        self._prepared_datasets, self._on_seeding = prepared, on_seeding
        super().__init__(*args, **kwargs)

    def _prepare_dataset(
        self,
        dataset: Any,
        processing_class: Any,
        args: Any,
        packing: bool,
        formatting_func: Any,
        dataset_name: str,
    ) -> Any:
        def make() -> Any:
            return super(RunSFTTrainer, self)._prepare_dataset(
                dataset, processing_class, args, packing, formatting_func, dataset_name
            )

        settings = preparation_settings(args, _PREPARATION, processing_class) | {
            "packing": packing,
            "seed": args.seed if args.shuffle_dataset else None,
            "formatting_func": id(formatting_func) if formatting_func else None,
            "completion_only_loss": repr(self.completion_only_loss),
            "chat_template": getattr(self, "chat_template", None),
        }
        prepared = self._prepared_datasets.get(dataset, settings, make)
        if hasattr(prepared, "__len__") and len(prepared) == 0:
            raise ConfigError(
                f"no row of the {dataset_name} data has anything left to train on: max_length={args.max_length} cuts off "
                "every completion, for the prompts alone are longer. Raise max_length, shorten the prompts, or set "
                "truncation_mode='keep_end'."
            )
        return prepared

    def joint_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """What trl computes for a step, of training or of an evaluation.

        Its metrics stay on the device until they are logged.

        Source: trl 1.16, ``SFTTrainer.compute_loss``, for one process and a model without experts.
        """
        plain = (
            self.compute_loss_func is None
            and self.label_smoother is None
            and not self.aux_loss_enabled
        )
        counted = inputs.get("attention_mask", inputs.get("position_ids"))
        known = counted is not None and self.args.loss_type in ("nll", "dft")
        if not (plain and known) or return_outputs:
            return SFTTrainer.compute_loss(self, model, inputs, return_outputs, num_items_in_batch)
        inputs["use_cache"] = False
        outputs = model(**inputs, fused_lm_head=COMPACT)
        per_token_loss = -outputs.log_probs
        if self.args.loss_type == "dft":
            per_token_loss = per_token_loss * outputs.log_probs.exp().detach()
        num_valid = outputs.label_mask.sum()
        num_tokens = (
            num_valid if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
        )
        loss = per_token_loss.sum() / num_tokens.clamp(min=1)
        divisor = num_valid.clamp(min=1)  # the sums are zero where nothing is valid
        self.take_later("entropy", outputs.entropy.detach().sum() / divisor)
        self.take_later("mean_token_accuracy", outputs.is_top1.sum() / divisor)
        self.count_tokens_later(_tokens_in(inputs))
        return loss


def _tokens_in(inputs: Mapping[str, Any]) -> torch.Tensor:
    """As trl counts them, on the device."""
    mask = inputs.get("attention_mask")
    if mask is not None:
        tokens: torch.Tensor = mask.sum()
        return tokens
    return torch.ones_like(inputs["position_ids"]).sum()


class SFT(Method):
    """See Method."""

    needs = "prompt and completion, messages, or text"
    pads_right = True
    generates = False

    def fits(self, columns: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
        """See Method."""
        return bool(self.columns(columns, given))

    def columns(self, columns: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[str, ...]:
        """See Method."""
        known = (
            ("messages",),
            ("prompt", "completion"),
            ("conversations",),
            (given.get("dataset_text_field", "text"),),
        )
        return next(
            (names for names in (("input_ids",), *known) if columns.keys() >= set(names)), ()
        )

    def arguments(self, given: dict[str, Any]) -> SFTConfig:
        """See Method."""
        return SFTConfig(**spelled_as_now(SFTConfig, given))

    def trainer(self, parts: TrainerParts) -> RunSFTTrainer:
        """See Method."""
        return RunSFTTrainer(
            model=parts.model,
            args=parts.arguments,
            train_dataset=parts.train_dataset,
            eval_dataset=parts.eval_dataset,
            processing_class=parts.tokenizer,
            peft_config=parts.peft_config,
            formatting_func=parts.formatting_func,
            compute_metrics=parts.compute_metrics,
            callbacks=parts.callbacks,
            prepared=parts.prepared,
            on_seeding=parts.on_seeding,
        )

    def tokenizer_settings(self, given: dict[str, Any]) -> dict[str, Any]:
        """See Method."""
        return {name: given.get(name) for name in ("eos_token", "pad_token", "chat_template_path")}
