"""Supervised fine-tuning: trl's SFTTrainer."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from trl import SFTConfig, SFTTrainer

from rf_notebook.training.datasets import PreparedDatasets
from rf_notebook.training.methods.base import TrainerParts, spelled_as_now

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


class RunSFTTrainer(SFTTrainer):
    """SFTTrainer with four side effects taken away.

    Preparing the same data again, telemetry, model cards, and a collection of the whole process's garbage before the
    first step: ``Accelerator.free_memory`` of an accelerator that holds nothing yet, 0.3 s a run.
    """

    def __init__(self, *args: Any, prepared: PreparedDatasets, **kwargs: Any) -> None:
        self._prepared_datasets = prepared
        super().__init__(*args, **kwargs)
        self.accelerator.free_memory = lambda *objects: list(objects)

    def _prepare_dataset(
        self, dataset: Any, processing_class: Any, args: Any, packing: bool, formatting_func: Any, dataset_name: str
    ) -> Any:
        def make() -> Any:
            return super(RunSFTTrainer, self)._prepare_dataset(
                dataset, processing_class, args, packing, formatting_func, dataset_name
            )

        settings: dict[str, Any] = {name: repr(getattr(args, name, None)) for name in _PREPARATION}
        settings |= {
            "packing": packing,
            "seed": args.seed if args.shuffle_dataset else None,
            "formatting_func": id(formatting_func) if formatting_func else None,
            "completion_only_loss": repr(self.completion_only_loss),
            "chat_template": getattr(self, "chat_template", None),
            "tokenizer": id(processing_class),
        }
        return self._prepared_datasets.get(dataset, settings, make)

    def _send_telemetry(self) -> None:
        """Nothing that the user did not ask for."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """A checkpoint inside an experiment is no publication."""


class SFT:
    """See Method."""

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
        )

    def tokenizer_settings(self, given: dict[str, Any]) -> dict[str, Any]:
        """See Method."""
        return {name: given.get(name) for name in ("eos_token", "pad_token", "chat_template_path")}

    def extra_state(self, trainer: Any) -> dict[str, Any]:
        """See Method."""
        return {
            "total_train_tokens": int(trainer._total_train_tokens),
            "train_metrics": {name: list(values) for name, values in trainer._metrics["train"].items()},
        }

    def restore_extra_state(self, trainer: Any, state: dict[str, Any]) -> None:
        """See Method."""
        trainer._total_train_tokens = state["total_train_tokens"]
        trainer._metrics["train"] = defaultdict(list, {k: list(v) for k, v in state["train_metrics"].items()})
