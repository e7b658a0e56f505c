"""How are all of a run's adapter weights clipped and updated at once?

Clipping and AdamW do the same to every number, so on one flat row they give what they give tensor
by tensor, with a few launches instead of hundreds. The functions of the trainer and its optimizer
that walk over all tensors are others for as long as the weights lie in a block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from torch.optim.adamw import adamw

from rf_notebook.training.fused.patches import knowing, patch

if TYPE_CHECKING:
    from rf_notebook.training.methods.trainer_like import TrainerLike


#: accelerate's, for an optimizer that is known not to be LOMO's: it looks for that package on the
#: disk twice a step.
_step = knowing(AcceleratedOptimizer.step, is_lomo_available=lambda: False)


def updates_of(trainer: TrainerLike) -> Updates | None:
    """For trainers whose updates are AdamW's, the same for all weights; None for all others."""
    if not isinstance(trainer.optimizer, AcceleratedOptimizer):
        return None
    optimizer = trainer.optimizer.optimizer
    if type(optimizer) is not torch.optim.AdamW or trainer.accelerator.scaler is not None:
        return None
    groups = [group for group in optimizer.param_groups if group["params"]]
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    if len(groups) != 1 or {id(p) for p in groups[0]["params"]} != {id(p) for p in trained}:
        return None
    settings = groups[0]
    if any(settings.get(name) for name in ("amsgrad", "maximize", "capturable", "differentiable")):
        return None
    return Updates(trainer, optimizer, settings)


class Updates:
    """Of one trainer."""

    def __init__(
        self, trainer: TrainerLike, optimizer: torch.optim.AdamW, settings: dict[str, Any]
    ) -> None:
        self._trainer = trainer
        self._optimizer = optimizer
        self._settings = settings

    def moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """The optimizer's state of a parameter, as AdamW itself begins it.

        Source: torch 2.13, ``Adam._init_group``.
        """
        state: dict[str, Tensor] = self._optimizer.state[parameter]
        if not state:
            on_device = {"device": parameter.device} if self._settings["fused"] else {}
            state["step"] = torch.zeros((), dtype=torch.float32, **on_device)  # type: ignore[call-overload]
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state

    def use(
        self,
        weights: Tensor,
        gradients: Tensor,
        moments: Mapping[str, Tensor],
        changed: Callable[[], None],
    ) -> Callable[[], None]:
        """Clip and update the rows [p] from now on. Returns what undoes this."""
        trainer, optimizer, settings = self._trainer, self._optimizer, self._settings
        states = [self.moments(parameter) for parameter in settings["params"]]
        step = states[0]["step"].clone()
        for state in states:
            state["step"] = (
                step  # one for all, which is right when somebody saves the optimizer in between
            )

        def norm_now() -> Tensor:
            if gradients.dtype is torch.float32:
                return torch.linalg.vector_norm(gradients)
            # In 16 bits norms are rounded: of each weight, then of those norms, as the trainer
            # does.
            return torch.nn.utils.get_total_norm(
                [parameter.grad for parameter in settings["params"]]
            )

        def clip(_model: Any) -> Tensor:
            norm = norm_now()
            gradients.mul_((trainer.args.max_grad_norm / (norm + 1e-6)).clamp(max=1.0))
            return norm

        def norm_of(_model: Any, grad_norm: Tensor | None = None) -> Tensor:
            return norm_now() if grad_norm is None else grad_norm

        @torch.no_grad()
        def update(*_args: Any, **_kwargs: Any) -> None:
            beta1, beta2 = settings["betas"]
            adamw(
                [weights],
                [gradients],
                [moments["exp_avg"]],
                [moments["exp_avg_sq"]],
                [],
                [step],
                foreach=settings["foreach"],
                fused=settings["fused"],
                amsgrad=False,
                beta1=beta1,
                beta2=beta2,
                lr=settings["lr"],
                weight_decay=settings["weight_decay"],
                eps=settings["eps"],
                maximize=False,
            )
            changed()

        # What torch's schedulers look at to find that the optimizer steps before they do.
        looked_at: tuple[Any, ...] = (_step, update)
        for one in looked_at:
            one._wrapped_by_lr_sched = True  # noqa: SLF001 - torch's schedulers look at it
        steppers: tuple[Any, ...] = (trainer.optimizer, optimizer)
        for stepping in steppers:
            stepping._opt_called = True  # noqa: SLF001 - torch's schedulers look at it

        undos = [
            patch(trainer.optimizer, "step", MethodType(_step, trainer.optimizer)),
            patch(trainer, "_clip_grad_norm", clip),
            patch(trainer, "_get_grad_norm", norm_of),
            patch(optimizer, "step", update),
        ]

        def undo() -> None:
            for one in undos:
                one()
            for state in states:
                state["step"] = step.clone()

        return undo
