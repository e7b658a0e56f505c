"""How do models that do not train write together, those of checkpoints?

Each stands in a group as a run's model does that answers at a boundary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from rf_notebook.training.aside import Aside
from rf_notebook.training.fused.group import FusedGroup
from rf_notebook.training.fused.member import Member
from rf_notebook.training.parked import StopTraining
from rf_notebook.training.process_state import ProcessState

if TYPE_CHECKING:
    import torch

    from rf_notebook.training.fused.joint_model import JointModel


def texts_together(
    model: JointModel,
    members: Sequence[tuple[Member, Any]],
    writes: Sequence[Callable[[], list[str]]],
    dtype: torch.dtype,
) -> list[list[str] | None]:
    """What several models write, a step a token for all.

    The caller holds PROCESS.

    Args:
        model: Over the base that they share.
        members: Each with its parked run, or what stands for one.
        writes: Lets each of them write.
        dtype: Of new tensors.

    Returns:
        The texts of each; None for one that is to write by itself.

    Raises:
        Exception: what the first that failed raised.
    """
    work = [_Work(write) for write in writes]
    with FusedGroup(model, [member for member, _ in members]) as group:
        group.do_aside(
            {
                member: Aside(parked, what, dtype)
                for (member, parked), what in zip(members, work, strict=True)
            }
        )
    for one in work:
        if one.error is not None:
            raise one.error
    return [one.texts for one in work]


def standing(model: JointModel, trained: Sequence[Any]) -> list[tuple[Member, Any]]:
    """Models of checkpoints, with plain LoRA, as members of groups, and what stands for their runs."""
    state = ProcessState.of_notebook()
    parked: list[Any] = [_Parked(_Trainer(one), state) for one in trained]
    return [
        (Member(one, model, pads_right=False, generates=True, tell=lambda _note: None), one)
        for one in parked
    ]


class _Work:
    """Writes, once; what it raises is not the group's."""

    def __init__(self, write: Callable[[], list[str]]) -> None:
        self._write = write
        self.texts: list[str] | None = None
        self.error: BaseException | None = None

    def __call__(self) -> None:
        try:
            self.texts = self._write()
        except StopTraining:
            raise
        except BaseException as error:  # noqa: BLE001 - raised again when the others are done
            self.error = error


class _Trainer:
    """As much of a trainer as a member looks at."""

    def __init__(self, model: Any) -> None:
        self.model = self.model_wrapped = model
        self.args = SimpleNamespace(neftune_noise_alpha=None, logging_nan_inf_filter=False)
        self.accelerator = SimpleNamespace(unwrap_model=lambda given, *_: given, backward=_never)
        self.optimizer = SimpleNamespace(step=_never)

    def known_sizes(self, _input_ids: Any) -> None:
        """Of no batch."""


@dataclass(frozen=True, slots=True)
class _Parked:
    """As much of a parked run."""

    trainer: _Trainer
    state: ProcessState
    is_quiet: bool = True


def _never(*_: Any, **__: Any) -> None:
    raise AssertionError("nothing trains")
