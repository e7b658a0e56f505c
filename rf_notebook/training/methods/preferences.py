"""What methods have in common that compare with a reference what they learn from preferences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.utils.data import DataLoader

from rf_notebook.core.errors import ConfigError
from rf_notebook.training.methods.base import (
    Method,
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
    from rf_notebook.training.methods.trainer_like import TrainerLike


class PreferenceTrainer(RunTrainer):
    """Comes before trl's trainer among the bases: no side effects.

    Data and reference probabilities that another run has are not made again.
    """

    train_dataset: Any
    eval_dataset: Any

    preparation: ClassVar[tuple[str, ...]]
    """Arguments that decide what trl's ``_prepare_dataset`` makes of a data set."""
    reference_settings: ClassVar[tuple[str, ...]]
    """Arguments that decide the reference's log-probabilities, beyond the data and the reference."""
    reference_columns: ClassVar[tuple[str, ...]]
    """What ``compute_ref_log_probs`` gives, as trl names the columns."""

    def __init__(self, *, parts: TrainerParts) -> None:
        self._parts, self._on_seeding = parts, parts.on_seeding
        me: Any = self
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
        parts.prepare_reference(me.model)
        arguments.precompute_ref_log_probs = me.precompute_ref_logps = precompute
        if precompute:
            self._add_reference_columns()

    def _add_reference_columns(self) -> None:
        me: Any = self
        size = me.args.precompute_ref_batch_size
        self.train_dataset = self._precompute_ref_logps(
            self.train_dataset, "train", size or me.args.per_device_train_batch_size
        )
        if self.eval_dataset is not None:
            self.eval_dataset = self._precompute_ref_logps(
                self.eval_dataset, "eval", size or me.args.per_device_eval_batch_size
            )
        me.ref_model = None  # it has done its work

    def _prepare_dataset(
        self, dataset: Any, processing_class: Any, args: Any, dataset_name: str
    ) -> Any:
        trainer: Any = super()

        def make() -> Any:
            return trainer._prepare_dataset(dataset, processing_class, args, dataset_name)  # noqa: SLF001 - trl's trainer names it so

        settings = preparation_settings(args, self.preparation, processing_class)
        return self._parts.prepared.get(dataset, {"trainer": type(self).__name__, **settings}, make)

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """The data with the reference's log-probabilities, computed once for equal settings."""
        me: Any = self
        loader = me.accelerator.prepare(
            DataLoader(
                dataset,
                batch_size=batch_size,
                collate_fn=me.data_collator,
                pin_memory=me.args.dataloader_pin_memory,
                shuffle=False,
            )
        )
        made_now = False

        def make() -> Any:
            nonlocal made_now
            made_now = True
            model = me.ref_model or me.model
            parts = zip(*(me.compute_ref_log_probs(model, batch) for batch in loader), strict=True)
            given = dataset
            for column, logps in zip(self.reference_columns, parts, strict=True):
                if logps[0] is not None:
                    given = given.add_column(column, torch.cat(logps).float().cpu().numpy())
            return given

        key = self._parts.reference_key if me.args.disable_dropout else None
        settings = preparation_settings(me.args, self.reference_settings, me.processing_class) | {
            "trainer": type(self).__name__,
            "reference": key if key is not None else f"of {id(self)}",
            "batch_size": batch_size,
        }
        prepared = self._parts.prepared.get(dataset, settings, make)
        if not made_now:
            # going through the data draws one number, by which the run's streams are what they were
            next(iter(loader))
        return prepared


class Preference(Method):
    """See Method."""

    name: str
    """The trainer_type."""
    config_class: Any
    """Trl's."""
    trainer_class: type[PreferenceTrainer]
    pads_right = True
    generates = False

    def arguments(self, given: dict[str, Any]) -> Any:
        """See Method."""
        made = self.config_class(**spelled_as_now(self.config_class, given))
        if made.sync_ref_model and made.precompute_ref_log_probs:
            raise ConfigError(
                "sync_ref_model=True moves the reference while training, and precompute_ref_log_probs=True asks it "
                "beforehand; set one of them to False."
            )
        return made

    def needs_reference_model(self, arguments: Any, *, has_adapter: bool, is_named: bool) -> bool:
        """See Method."""
        return is_named or not has_adapter

    def has_reference(self, arguments: Any) -> bool:
        """See Method."""
        return True

    def trainer(self, parts: TrainerParts) -> PreferenceTrainer:
        """See Method."""
        return self.trainer_class(parts=parts)

    def tokenizer_settings(self, given: dict[str, Any]) -> dict[str, Any]:
        """See Method."""
        return {"method": self.name, "pad_token": given.get("pad_token")}

    def extra_state(self, trainer: TrainerLike) -> dict[str, Any]:
        """See Method."""
        return counters(trainer) | {"reference": reference_weights(trainer)}

    def restore_extra_state(self, trainer: TrainerLike, state: dict[str, Any]) -> None:
        """See Method."""
        restore_counters(trainer, state)
        restore_reference_weights(trainer, state["reference"])
