"""Direct preference optimisation: trl's DPOTrainer."""

from __future__ import annotations

from collections.abc import Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader
from trl import DPOConfig, DPOTrainer

from rf_notebook.core.errors import ConfigError
from rf_notebook.training.fused.patches import knowing
from rf_notebook.training.methods.base import (
    Pass,
    RunTrainer,
    TrainerParts,
    counters,
    preparation_settings,
    reference_weights,
    restore_counters,
    restore_reference_weights,
    spelled_as_now,
)

if TYPE_CHECKING:
    from rf_notebook.core.run import Generation
    from rf_notebook.training.methods.trainer_like import TrainerLike

#: Arguments that decide what ``DPOTrainer._prepare_dataset`` makes of a data set (trl 1.16).
_PREPARATION = ("max_length", "pad_token", "truncation_mode")
#: Arguments that decide the reference's log-probabilities, beyond the data and the reference itself
#: (trl 1.16).
_REFERENCE = (
    "bf16",
    "fp16",
    "ld_alpha",
    "max_length",
    "pad_to_multiple_of",
    "tf32",
    "truncation_mode",
)


_own_loss = getattr(DPOTrainer, "_compute_loss", None)
#: trl's loss, for a model that is known to have an adapter: trl looks through all modules, and
#: reads a package's metadata, to find that out twice in every micro-step. None for a trl that has no
#: such function.
_loss_with_adapter = (
    knowing(_own_loss, is_peft_model=lambda _model: True)
    if isinstance(_own_loss, FunctionType)
    else None
)


class RunDPOTrainer(RunTrainer, DPOTrainer):
    """DPOTrainer without side effects.

    Data and reference probabilities that another run has are not made again.
    """

    train_dataset: Any
    eval_dataset: Any

    def __init__(self, *, parts: TrainerParts) -> None:
        self._parts, self._on_seeding = parts, parts.on_seeding
        arguments = parts.arguments
        precompute = arguments.precompute_ref_log_probs
        # trl would hash the whole model, a run at a time, to find a file that another process may
        # have written.
        arguments.precompute_ref_log_probs = False
        super().__init__(
            model=parts.model,
            ref_model=parts.reference_model,
            args=arguments,
            train_dataset=parts.train_dataset,
            eval_dataset=parts.eval_dataset,
            processing_class=parts.tokenizer,
            peft_config=parts.peft_config,
            compute_metrics=parts.compute_metrics,
            callbacks=parts.callbacks,
        )
        parts.prepare_reference(self.model)
        arguments.precompute_ref_log_probs = self.precompute_ref_logps = precompute
        if precompute:
            self._add_reference_columns()

    def joint_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """What trl computes for a step, of training or of an evaluation; runs in joint steps have an adapter."""
        if _loss_with_adapter is None:
            return DPOTrainer.compute_loss(self, model, inputs, return_outputs, num_items_in_batch)
        return _loss_with_adapter(self, model, inputs, return_outputs)

    def _add_reference_columns(self) -> None:
        args = self.args
        size = args.precompute_ref_batch_size
        self.train_dataset = self._precompute_ref_logps(
            self.train_dataset, "train", size or args.per_device_train_batch_size
        )
        if self.eval_dataset is not None:
            self.eval_dataset = self._precompute_ref_logps(
                self.eval_dataset, "eval", size or args.per_device_eval_batch_size
            )
        self.ref_model = None  # it has done its work

    def _prepare_dataset(
        self, dataset: Any, processing_class: Any, args: Any, dataset_name: str
    ) -> Any:
        def make() -> Any:
            return super(RunDPOTrainer, self)._prepare_dataset(
                dataset, processing_class, args, dataset_name
            )

        settings = preparation_settings(args, _PREPARATION, processing_class)
        return self._parts.prepared.get(dataset, {"method": "DPO", **settings}, make)

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """The data with the reference's log-probabilities, computed once for equal settings."""
        loader = self.accelerator.prepare(
            DataLoader(
                dataset,
                batch_size=batch_size,
                collate_fn=self.data_collator,
                pin_memory=self.args.dataloader_pin_memory,
                shuffle=False,
            )
        )
        made_now = False

        def make() -> Any:
            nonlocal made_now
            made_now = True
            model = self.ref_model or self.model
            logps = [self.compute_ref_log_probs(model, batch) for batch in loader]
            columns = [torch.cat(parts).float().cpu().numpy() for parts in zip(*logps, strict=True)]
            return dataset.add_column("ref_chosen_logps", columns[0]).add_column(
                "ref_rejected_logps", columns[1]
            )

        key = self._parts.reference_key if self.args.disable_dropout else None
        settings = preparation_settings(self.args, _REFERENCE, self.processing_class) | {
            "reference": key if key is not None else f"of {id(self)}",
            "batch_size": batch_size,
        }
        prepared = self._parts.prepared.get(dataset, settings, make)
        if not made_now:
            next(
                iter(loader)
            )  # going through the data draws one number, by which the run's streams are what they were
        return prepared


class DPO:
    """See Method."""

    needs = "prompt, chosen and rejected"
    pads_right = True
    generates = False

    def fits(self, columns: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
        """See Method."""
        return {"chosen", "rejected"} <= columns.keys()

    def columns(self, columns: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[str, ...]:
        """See Method."""
        return tuple(name for name in ("prompt", "chosen", "rejected") if name in columns)

    def arguments(self, given: dict[str, Any]) -> DPOConfig:
        """See Method."""
        made = DPOConfig(**spelled_as_now(DPOConfig, given))
        if made.sync_ref_model and made.precompute_ref_log_probs:
            raise ConfigError(
                "sync_ref_model=True moves the reference while training, and precompute_ref_log_probs=True asks it "
                "beforehand; set one of them to False."
            )
        return made

    def check(self, arguments: Any, extras: Mapping[str, Any], *, evaluates: bool) -> None:
        """See Method."""

    def one_pass(self, arguments: Any, rows: int) -> Pass:
        """See Method."""
        return Pass(rows=rows)

    def needs_reference_model(self, arguments: Any, *, has_adapter: bool, is_named: bool) -> bool:
        """See Method."""
        return is_named or not has_adapter

    def has_reference(self, arguments: Any) -> bool:
        """See Method."""
        return True

    def trainer(self, parts: TrainerParts) -> RunDPOTrainer:
        """See Method."""
        return RunDPOTrainer(parts=parts)

    def tokenizer_settings(self, given: dict[str, Any]) -> dict[str, Any]:
        """See Method."""
        return {"method": "DPO", "pad_token": given.get("pad_token")}

    def completions(self, trainer: TrainerLike) -> tuple[Generation, ...]:
        """See Method."""
        return ()

    def extra_state(self, trainer: TrainerLike) -> dict[str, Any]:
        """See Method."""
        return counters(trainer) | {"reference": reference_weights(trainer)}

    def restore_extra_state(self, trainer: TrainerLike, state: dict[str, Any]) -> None:
        """See Method."""
        restore_counters(trainer, state)
        restore_reference_weights(trainer, state["reference"])
