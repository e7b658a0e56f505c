"""How does a run's checkpoint become a model to talk to, or a folder to give away?"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft import PeftModel, get_peft_model

from rf_notebook.automl.concrete import MODEL_FIELDS
from rf_notebook.core.encoding import decode
from rf_notebook.core.errors import ConfigError
from rf_notebook.store import folders
from rf_notebook.training.adapter_files import read_config
from rf_notebook.training.base_models import (
    BaseModel,
    BaseModels,
    changes_base_weights,
    tree_clone,
    tree_copy,
)
from rf_notebook.training.quiet import no_progress_bars, without_old_names
from rf_notebook.training.run_files import restore_beside_adapter
from rf_notebook.training.run_tokenizer import load_tokenizer, resize_vocabulary
from rf_notebook.training.undisturbed import isolated_from_streams

if TYPE_CHECKING:
    from rf_notebook.core.objects import Objects
    from rf_notebook.core.run import RunConfig, StoredFolder


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """What a checkpoint holds, ready to use."""

    model: Any
    tokenizer: Any
    is_chat: bool
    """Whether it trained on messages, so that a prompt is put into the chat template."""


def base_of(models: BaseModels, objects: Objects, config: RunConfig) -> BaseModel:
    """The base model that a config chooses, loaded if it is not resident."""
    model_config = decode({name: config.model[name] for name in MODEL_FIELDS}, objects)
    model_config["model_kwargs"] = model_config["model_kwargs"] or {}
    model_config["tokenizer_kwargs"] = model_config["tokenizer_kwargs"] or {}
    return models.get(model_config, use_cpu=config.use_cpu)


def reference_of(models: BaseModels, objects: Objects, config: RunConfig) -> BaseModel | None:
    """The model that a config names as its reference."""
    name = config.extras.get("ref_model_name")
    if name is None:
        return None
    kwargs = decode(config.extras.get("ref_model_kwargs"), objects)
    chosen = decode({field: config.model[field] for field in MODEL_FIELDS}, objects)
    if name == chosen["model_name"] and kwargs is None:
        return base_of(models, objects, config)  # the same weights: nothing is loaded twice
    chosen |= {
        "model_name": name,
        "model_type": config.extras.get("ref_model_type") or chosen["model_type"],
        "model_kwargs": kwargs or {},
        "tokenizer_kwargs": chosen["tokenizer_kwargs"] or {},
    }
    return models.get(chosen, use_cpu=config.use_cpu)


def trained_model(
    models: BaseModels,
    folder: Path,
    objects: Objects,
    config: RunConfig,
    checkpoint: StoredFolder,
    *,
    is_trainable: bool = False,
    is_whole: bool = False,
) -> TrainedModel:
    """A checkpoint's model, in evaluation mode over the resident base, and its tokenizer.

    Args:
        models: Keeps base models resident.
        folder: The experiment's.
        objects: Functions and other values behind the configs' names.
        config: The run's.
        checkpoint: Its.
        is_trainable: Whether its adapter may be trained further.
        is_whole: Whether a quantised base becomes a copy of its own in the type that it computes in,
            into which an adapter can be folded without rounding it to a few bits.

    Raises:
        CheckpointDamaged: when the checkpoint is not what was recorded.
    """
    path = folders.verify_folder(folder, checkpoint)
    base = base_of(models, objects, config)
    with isolated_from_streams(), no_progress_bars():
        if config.peft is None:
            model = (
                type(base.model)
                .from_pretrained(str(path), dtype=base.model.dtype)
                .to(base.model.device)
            )
            model.requires_grad_(is_trainable)
        else:
            # Some adapters take a part out of the weights below them when they are loaded, so those
            # must be their own.
            changes = changes_base_weights(config.peft.get("init_lora_weights"))
            if is_whole and getattr(base.model, "is_quantized", False):
                tree, share_unchanged = _dequantised(base.model), lambda: None
            else:
                tree, share_unchanged = (
                    tree_copy(base.model) if changes else (tree_clone(base.model), lambda: None)
                )
            resize_vocabulary(tree, path)
            kind = type(tree)
            model = _adapted(without_old_names(tree), path, is_trainable=is_trainable)
            tree.__class__ = kind
            share_unchanged()
        used = load_tokenizer(base, path)
    if not config.writes:  # by it the model finds the end of each text
        model.config.get_text_config().pad_token_id = used.tokenizer.pad_token_id
    return TrainedModel(model.eval(), used.tokenizer, used.is_chat)


def _dequantised(model: Any) -> Any:
    """A copy with whole weights, those that the quantised ones stand for.

    Raises:
        ConfigError: where transformers cannot do that.
    """
    with _refused("the base model's weights cannot be made whole"):
        return copy.deepcopy(model).dequantize()


def _adapted(tree: Any, path: Path, *, is_trainable: bool) -> PeftModel:
    """A model with the adapter of a checkpoint."""
    config = read_config(path)
    if not (is_trainable and config.is_prompt_learning):
        return PeftModel.from_pretrained(tree, str(path), is_trainable=is_trainable, config=config)
    # Prompts can be used from peft's files and not trained, for what makes them is not there.
    config.inference_mode = False
    if hasattr(config, "prompt_tuning_init"):
        config.prompt_tuning_init = "RANDOM"
    model = get_peft_model(tree, config)
    restore_beside_adapter(model, path)
    return model


def export_model(trained: TrainedModel, target: Path, *, merge: bool) -> None:
    """Write a trained model and its tokenizer to a folder.

    Args:
        trained: What ``trained_model`` gave.
        target: New or empty.
        merge: Fold the adapter into a copy of the base weights, so that no peft is needed to load
            it.

    Raises:
        ConfigError: when the folder holds something, or peft cannot fold this kind of adapter in.
    """
    if target.exists() and any(target.iterdir()):
        raise ConfigError(f"{target} is not empty; export to a new folder.")
    model = trained.model
    with isolated_from_streams(), no_progress_bars():
        if merge and isinstance(model, PeftModel):
            # Merging writes into the base weights, which are shared: the copy owns its own.
            model = _merged(model)
        target.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(str(target))
        trained.tokenizer.save_pretrained(str(target))


def _merged(model: PeftModel) -> Any:
    """A copy of the base weights with the adapter folded in.

    Raises:
        ConfigError: for a kind of adapter that cannot be.
    """
    kind = str(model.peft_config[model.active_adapter].peft_type).rpartition(".")[2]
    with _refused(f"peft cannot fold an adapter of the kind {kind} into this base"):
        return copy.deepcopy(model).merge_and_unload()


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """Say what the libraries cannot do, where they do not know how.

    Raises:
        ConfigError: with what to do instead.
    """
    try:
        yield
    except (AttributeError, NotImplementedError, ValueError) as error:
        why = str(error).strip().partition("\n")[0][:150]
        raise ConfigError(f"{what} ({why}); export without merge=True.") from error
