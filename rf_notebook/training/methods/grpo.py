"""Group relative policy optimisation: trl's GRPOTrainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trl import GRPOConfig, GRPOTrainer

from rf_notebook.training.methods.generating import Generating, GeneratingTrainer

if TYPE_CHECKING:
    from rf_notebook.training.methods.trainer_like import TrainerLike

#: Counters of the adaptive entropy bonus (trl 1.16).
_ENTROPY = ("entropy_coef", "_last_world_entropy")


class RunGRPOTrainer(GeneratingTrainer, GRPOTrainer):
    """GRPOTrainer without side effects."""


class GRPO(Generating):
    """See Method."""

    name = "GRPO"
    config_class = GRPOConfig
    trainer_class = RunGRPOTrainer

    def extra_state(self, trainer: TrainerLike) -> dict[str, Any]:
        """See Method."""
        window = trainer._entropy_window_stats  # noqa: SLF001 - trl's trainer keeps it so
        return super().extra_state(trainer) | {
            "entropy": {name: float(getattr(trainer, name)) for name in _ENTROPY},
            "entropy_window": None if window is None else window.detach().cpu(),
        }

    def restore_extra_state(self, trainer: TrainerLike, state: dict[str, Any]) -> None:
        """See Method."""
        for name, value in state["entropy"].items():
            setattr(trainer, name, value)
        window = state["entropy_window"]
        device = trainer.accelerator.device
        trainer._entropy_window_stats = None if window is None else window.to(device)  # noqa: SLF001 - trl's trainer keeps it so
        super().restore_extra_state(trainer, state)
