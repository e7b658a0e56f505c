"""What do the models of checkpoints write to the same prompts, those over one base together?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rf_notebook.core.foreground import only_waiting
from rf_notebook.training.fused.eligibility import hindrance_of_trained
from rf_notebook.training.fused.joint_model import JointModel
from rf_notebook.training.fused.standing import standing, texts_together
from rf_notebook.training.generation import sample_texts, texts_of
from rf_notebook.training.process_state import PROCESS
from rf_notebook.training.trained_model import TrainedModel, base_of, trained_model

if TYPE_CHECKING:
    from rf_notebook.core.objects import Objects
    from rf_notebook.core.runner import ModelOfRun
    from rf_notebook.core.values import Json
    from rf_notebook.training.base_models import BaseModels

_QUIET = logging.getLogger("rf_notebook.quiet")
#: Models that are in memory at once.
_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointTexts:
    """Lets the models of checkpoints write."""

    models: BaseModels
    """Keeps base models resident."""
    folder: Path
    """The experiment's."""
    objects: Objects
    """Functions and other values behind the configs' names."""
    joint_model: Callable[[Any], JointModel] | None = None
    """Gives the joint model over a base, for callers that hold PROCESS; None lets each write by
    itself."""
    dtype: torch.dtype = field(default_factory=torch.get_default_dtype)
    """Of new tensors."""
    is_over: Callable[[], bool] = lambda: False
    """Asked at every token; writing ends when it says so."""

    @contextmanager
    def in_a_cell(self, *, is_joint: bool) -> Iterator[CheckpointTexts]:
        """In a cell that waits for it, the models together where they can."""
        if not is_joint:
            yield self
            return
        with PROCESS, only_waiting():
            yield replace(self, joint_model=partial(JointModel, log=_QUIET))

    def of(
        self, asked: Sequence[ModelOfRun], prompts: Sequence[str], settings: Mapping[str, Json]
    ) -> list[list[str]]:
        """The texts of each model.

        Args:
            asked: Each with a checkpoint.
            prompts: What a user asks.
            settings: Arguments of ``generate``, and ``seed``.
        """
        parts = (asked[start : start + _AT_ONCE] for start in range(0, len(asked), _AT_ONCE))
        return [texts for part in parts for texts in self._of_some(part, prompts, settings)]

    def _of_some(
        self, asked: Sequence[ModelOfRun], prompts: Sequence[str], settings: Mapping[str, Json]
    ) -> list[list[str]]:
        trained = [self._trained(one) for one in asked]
        writes = [partial(self._texts, one, prompts, settings) for one in trained]
        found: dict[int, list[str] | None] = {}
        for places in self._together(asked, trained):
            assert self.joint_model is not None
            joint = self.joint_model(self._base(asked[places[0]]))
            members = standing(joint, [trained[place].model for place in places])
            own = [writes[place] for place in places]
            found |= dict(zip(places, texts_together(joint, members, own, self.dtype), strict=True))
        together = [found.get(place) for place in range(len(asked))]
        return [
            write() if texts is None else texts
            for write, texts in zip(writes, together, strict=True)
        ]

    def _together(
        self, asked: Sequence[ModelOfRun], trained: Sequence[TrainedModel]
    ) -> list[list[int]]:
        """The places of models that can share their tokens, by base; none that are by themselves."""
        over: dict[int, list[int]] = {}
        for place, (one, made) in enumerate(zip(asked, trained, strict=True)):
            if self.joint_model is not None:
                base = self._base(one)
                if hindrance_of_trained(one.config, made.model, base) is None:
                    over.setdefault(id(base), []).append(place)
        return [places for places in over.values() if len(places) > 1]

    def _texts(
        self, trained: TrainedModel, prompts: Sequence[str], settings: Mapping[str, Json]
    ) -> list[str]:
        tokenizer, is_chat = trained.tokenizer, trained.is_chat
        texts = sample_texts(prompts, (), tokenizer, is_chat=is_chat)
        return texts_of(trained.model, tokenizer, texts, settings, self.is_over, is_chat=is_chat)

    def _trained(self, one: ModelOfRun) -> TrainedModel:
        assert one.checkpoint is not None
        return trained_model(self.models, self.folder, self.objects, one.config, one.checkpoint)

    def _base(self, one: ModelOfRun) -> Any:
        return base_of(self.models, self.objects, one.config).model
