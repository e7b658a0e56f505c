"""Direct preference optimisation: trl's DPOTrainer."""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any

from trl import DPOConfig, DPOTrainer

from rf_notebook.training.fused.patches import knowing
from rf_notebook.training.methods.preferences import Preference, PreferenceTrainer

if TYPE_CHECKING:
    from collections.abc import Mapping

_own_loss = getattr(DPOTrainer, "_compute_loss", None)
#: trl's loss, for a model that is known to have an adapter: trl looks through all modules, and
#: reads a package's metadata, to find that out twice in every micro-step. None for a trl that has no
#: such function.
_loss_with_adapter = (
    knowing(_own_loss, is_peft_model=lambda _model: True)
    if isinstance(_own_loss, FunctionType)
    else None
)


class RunDPOTrainer(PreferenceTrainer, DPOTrainer):
    """DPOTrainer without side effects (trl 1.16)."""

    preparation = ("max_length", "pad_token", "truncation_mode")
    reference_settings = (
        "bf16",
        "fp16",
        "ld_alpha",
        "max_length",
        "pad_to_multiple_of",
        "tf32",
        "truncation_mode",
    )
    reference_columns = ("ref_chosen_logps", "ref_rejected_logps")

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


class DPO(Preference):
    """See Method."""

    name = "DPO"
    config_class = DPOConfig
    trainer_class = RunDPOTrainer
    needs = "prompt, chosen and rejected"

    def fits(self, columns: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
        """See Method."""
        return {"chosen", "rejected"} <= columns.keys()

    def columns(self, columns: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[str, ...]:
        """See Method."""
        return tuple(name for name in ("prompt", "chosen", "rejected") if name in columns)
