"""How much memory would this config need?

The libraries' own classes say what the weights are, on no device at all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import transformers
from peft import get_peft_model

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.values import Json, digest, mapping
from rf_notebook.planning.memory_plan import (
    Load,
    MemoryEstimate,
    ModelShape,
    edits_sentence,
    estimate,
    gibibytes,
)
from rf_notebook.planning.memory_plan import remedy as remedy_edits
from rf_notebook.training import memory
from rf_notebook.training.device import gpu_names
from rf_notebook.training.memory import bytes_of
from rf_notebook.training.methods import method_named
from rf_notebook.training.module_names import check_module_names
from rf_notebook.training.quiet import no_progress_bars, without_old_names
from rf_notebook.training.undisturbed import isolated_from_streams

if TYPE_CHECKING:
    from rf_notebook.core.fleet import DeviceFacts
    from rf_notebook.core.run import RunConfig
    from rf_notebook.training.methods.trainer_like import TrainerLike

#: Bytes of optimizer state for each byte of trainable weights, by the beginning of an optimizer's
#: name; Adam's otherwise.
_STATES = {"sgd": 0.0, "adafactor": 0.1, "lion": 1.0, "rmsprop": 1.0, "adagrad": 1.0}


@dataclass(frozen=True, slots=True)
class Need:
    """What a run needs, and of what."""

    shape: ModelShape
    load: Load

    @property
    def estimate(self) -> MemoryEstimate:
        """In bytes."""
        return estimate(self.shape, self.load)


class MemoryNeeds:
    """Estimates for the configs of one experiment; each base model is described once."""

    def __init__(self) -> None:
        self._described: dict[str, Any] = {}
        self._trained: dict[str, int] = {}

    def check(
        self,
        config: RunConfig,
        arguments: Any,
        peft_config: Any | None,
        elsewhere: Sequence[DeviceFacts],
    ) -> list[str]:
        """Refuse a config that does not fit on the device.

        Args:
            config: The run's.
            arguments: Trl's config object.
            peft_config: The adapter's peft config.
            elsewhere: Devices of worker processes; none where runs train in this one.

        Returns:
            What the user should be warned of.

        Raises:
            ConfigError: with what it needs.
        """
        need = self.before_loading(config, arguments, peft_config)
        if need is None:
            return []
        device, free, total = memory.device_memory(use_cpu=config.use_cpu, elsewhere=elsewhere)
        gpus = elsewhere[0].gpus if elsewhere else 1
        here = 0 if config.use_cpu else len(gpu_names())
        refusal = memory_refusal(need, device, total, gpus=gpus, here=here)
        if refusal is not None:
            raise ConfigError(refusal)
        warning = memory_warning(need, device, free)
        return [] if warning is None else [warning]

    def before_loading(
        self, config: RunConfig, arguments: Any, peft_config: Any | None
    ) -> Need | None:
        """What a config needs, from the description of its model.

        None when that is not on this machine.

        Args:
            config: The run's.
            arguments: Trl's config object.
            peft_config: The adapter's peft config.

        Raises:
            ConfigError: when the adapter is for modules that the model does not have.
        """
        key = digest(dict(config.model))
        if key not in self._described:
            self._described[key] = model_without_weights(config.model)
        model = self._described[key]
        if model is None:
            return None
        if config.peft is not None:
            check_module_names(config.peft, model)
        trained_key = f"{key}:{digest(config.peft)}"
        if trained_key not in self._trained:
            self._trained[trained_key] = trainable_bytes(model, peft_config)
        return _need(config, arguments, shape_of(model), self._trained[trained_key])


def need_of_trainer(config: RunConfig, trainer: TrainerLike, base: Any) -> Need:
    """What a run needs whose trainer and base model are there."""
    trained = bytes_of(p for p in trainer.model.parameters() if p.requires_grad)
    return _need(config, trainer.args, shape_of(base), trained)


def memory_refusal(
    need: Need, device: str, total: int, *, gpus: int = 1, here: int = 0
) -> str | None:
    """Why a run cannot fit, in a sentence; None when it might.

    Args:
        need: The run's.
        device: What it trains on, in words.
        total: Bytes of that.
        gpus: GPUs that these are.
        here: GPUs of this machine, alike.
    """
    estimated = need.estimate
    if estimated.certain <= total:
        return None
    remedy = (
        "give a peft_config"
        if not need.load.has_adapter
        else "load it quantised (model_kwargs) or use a smaller one"
    )
    enough = math.ceil(estimated.certain * gpus / total)
    if enough <= here:
        remedy = f"spread it over {enough} GPUs with RFModelConfig(num_gpus={enough}), or {remedy}"
    elif here > 1:
        remedy = f"it would need {enough} such GPUs and {here} are here: {remedy}"
    return f"it needs at least {gibibytes(estimated.certain)} GiB and {device} has {gibibytes(total)} GiB; {remedy}."


def memory_warning(need: Need, device: str, free: int) -> str | None:
    """That a run will hardly fit, and what would make it; None when it should fit."""
    estimated = need.estimate
    if estimated.total <= free:
        return None
    edits = remedy_edits(need.shape, need.load, free)
    knob = f"{edits_sentence(edits)} would fit" if edits else "use a smaller max_length or model"
    return (
        f"it may need {estimated.sentence()} and {device} has {gibibytes(free)} GiB free; {knob}."
    )


def model_without_weights(model_config: Mapping[str, Json]) -> Any | None:
    """The base model of a config on the meta device, when its description is on this machine.

    None otherwise.
    """
    name = model_config.get("model_name")
    kwargs = dict(mapping(model_config.get("model_kwargs") or {}))
    if not isinstance(name, str) or kwargs.get("quantization_config") is not None:
        return None
    try:
        with isolated_from_streams(), no_progress_bars(), torch.device("meta"):
            described = transformers.AutoConfig.from_pretrained(
                name, local_files_only=True, trust_remote_code=False
            )
            if getattr(described, "quantization_config", None) is not None:
                return None
            dtype = kwargs.get("dtype") or "auto"
            chosen = (
                getattr(described, "dtype", None)
                if dtype == "auto"
                else getattr(torch, str(dtype), None)
            )
            auto: Any = transformers.AutoModelForCausalLM
            if model_config.get("model_type") == "sequence_classification":
                auto, described.num_labels = transformers.AutoModelForSequenceClassification, 1
            return without_old_names(auto.from_config(described, dtype=chosen or torch.float32))
    except Exception:  # noqa: BLE001 - without a description there is no estimate; loading will say what is wrong
        return None


def shape_of(model: Any) -> ModelShape:
    """What of a model decides memory."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", 1) or 1
    hidden = getattr(config, "hidden_size", 0) or 0
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    head_width = getattr(config, "head_dim", None) or hidden // heads
    return ModelShape(
        weight_bytes=bytes_of(model.parameters()),
        element_bytes=next(
            (p.element_size() for p in model.parameters() if p.is_floating_point()), 2
        ),
        layers=getattr(config, "num_hidden_layers", 0) or 0,
        hidden=hidden,
        intermediate=getattr(config, "intermediate_size", None) or 4 * hidden,
        key_value_width=key_heads * head_width,
    )


def trainable_bytes(model: Any, peft_config: Any | None) -> int:
    """Of the weights that a run over this model trains.

    The model is changed, so it is one on the meta device.
    """
    if peft_config is None:
        return bytes_of(model.parameters())
    with isolated_from_streams(), torch.device("meta"):
        adapted = get_peft_model(model, peft_config)
    found = bytes_of(p for p in adapted.parameters() if p.requires_grad)
    adapted.unload()
    return found


def _need(config: RunConfig, arguments: Any, shape: ModelShape, trained: int) -> Need:
    optim = str(getattr(arguments.optim, "value", arguments.optim))
    states = next((ratio for name, ratio in _STATES.items() if optim.startswith(name)), 2.0)
    is_checkpointed = bool(
        getattr(arguments, "activation_checkpointing", None)
        or getattr(arguments, "gradient_checkpointing", False)
    )
    length, generated = int(getattr(arguments, "max_length", None) or 0), 0
    if method_named(config.method).generates:
        length = int(arguments.max_completion_length)  # prompts come on top, and are not known
        generated = int(arguments.generation_batch_size)
    follows = getattr(arguments, "sync_ref_model", False)
    load = Load(
        method=config.method,
        has_adapter=config.peft is not None,
        trainable_bytes=trained,
        optimizer_bytes=int(trained * (states / 4 if "8bit" in optim else states)),
        reference_bytes=shape.weight_bytes if follows else 0,
        examples=int(arguments.per_device_train_batch_size),
        least_examples=method_named(config.method).least_examples(config.training),
        accumulation=int(arguments.gradient_accumulation_steps),
        length=length,
        generated_examples=generated,
        is_checkpointed=is_checkpointed,
        compute_bytes=2 if arguments.bf16 or arguments.fp16 else shape.element_bytes,
    )
    return Need(shape, load)
