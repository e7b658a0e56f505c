"""What do the models of checkpoints write to the same prompts, those over one base together?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rf_notebook.core.foreground import only_waiting
from rf_notebook.training.fused.adapters import adapter_weights
from rf_notebook.training.fused.eligibility import fusibility_of, hindrance_of
from rf_notebook.training.fused.joint_model import JointModel
from rf_notebook.training.fused.standing import standing, texts_together
from rf_notebook.training.generation import sample_texts, texts_of
from rf_notebook.training.process_state import PROCESS
from rf_notebook.training.residency import storage_of, tensors_of
from rf_notebook.training.trained_model import TrainedModel, base_of, trained_model

if TYPE_CHECKING:
    from rf_notebook.core.objects import Objects
    from rf_notebook.core.runner import ModelOfRun
    from rf_notebook.core.values import Json
    from rf_notebook.training.base_models import BaseModels

_QUIET = logging.getLogger("rf_notebook.quiet")
#: Models that are in memory at once.
_AT_ONCE = 16


def texts_of_checkpoints(
    models: BaseModels,
    folder: Path,
    objects: Objects,
    asked: Sequence[ModelOfRun],
    prompts: Sequence[str],
    settings: Mapping[str, Json],
    *,
    joint_model: Callable[[Any], JointModel] | None,
    dtype: torch.dtype,
    is_over: Callable[[], bool] = lambda: False,
) -> list[list[str]]:
    """The texts of each model.

    With a joint model the caller holds PROCESS.

    Args:
        models: Keeps base models resident.
        folder: The experiment's.
        objects: Functions and other values behind the configs' names.
        asked: Each with a checkpoint.
        prompts: What a user asks.
        settings: Arguments of ``generate``, and ``seed``.
        joint_model: Gives the joint model over a base; None lets each write by itself.
        dtype: Of new tensors.
        is_over: Asked at every token; writing ends when it says so.
    """
    written: list[list[str]] = []
    for start in range(0, len(asked), _AT_ONCE):
        part = asked[start : start + _AT_ONCE]
        trained = [
            trained_model(models, folder, objects, one.config, one.checkpoint)
            for one in part
            if one.checkpoint is not None
        ]
        writes = [partial(_texts, one, prompts, settings, is_over) for one in trained]
        found: dict[int, list[str] | None] = {}
        if joint_model is not None:
            bases = {id(base): base for base in (_base(models, objects, one) for one in part)}
            for key, base in bases.items():
                places = [
                    place
                    for place, one in enumerate(part)
                    if id(_base(models, objects, one)) == key
                    and fusibility_of(one.config).key is not None
                    and hindrance_of(trained[place].model) is None
                    and _has_only_an_adapter(trained[place].model, base)
                ]
                if len(places) > 1:
                    joint = joint_model(base)
                    members = standing(joint, [trained[place].model for place in places])
                    own = [writes[place] for place in places]
                    texts = texts_together(joint, members, own, dtype)
                    found |= dict(zip(places, texts, strict=True))
        for place, write in enumerate(writes):
            together = found.get(place)
            written.append(write() if together is None else together)
    return written


def texts_in_the_kernel(
    models: BaseModels,
    folder: Path,
    objects: Objects,
    asked: Sequence[ModelOfRun],
    prompts: Sequence[str],
    settings: Mapping[str, Json],
    *,
    is_joint: bool,
) -> list[list[str]]:
    """As ``texts_of_checkpoints``, in a cell that waits for it."""
    with PROCESS if is_joint else nullcontext(), only_waiting():
        return texts_of_checkpoints(
            models,
            folder,
            objects,
            asked,
            prompts,
            settings,
            joint_model=partial(JointModel, log=_QUIET) if is_joint else None,
            dtype=torch.get_default_dtype(),
        )


def _texts(
    trained: TrainedModel,
    prompts: Sequence[str],
    settings: Mapping[str, Json],
    is_over: Callable[[], bool],
) -> list[str]:
    tokenizer, is_chat = trained.tokenizer, trained.is_chat
    texts = sample_texts(prompts, (), tokenizer, is_chat=is_chat)
    return texts_of(trained.model, tokenizer, texts, settings, is_over, is_chat=is_chat)


def _has_only_an_adapter(model: Any, base: Any) -> bool:
    """Whether all else is the base's: no rows of new tokens, no modules of its own."""
    shared = {storage_of(tensor) for tensor in tensors_of(base)}
    backbone = getattr(model.get_base_model(), model.get_base_model().base_model_prefix)
    weights = adapter_weights(backbone, model.active_adapter).values()
    own = {storage_of(one) for pair in weights for one in (pair.down, pair.up)}
    return all(storage_of(tensor) in shared | own for tensor in model.parameters())


def _base(models: BaseModels, objects: Objects, one: ModelOfRun) -> Any:
    return base_of(models, objects, one.config).model
