"""Can a run train in joint steps?

What its config tells, and what its trainer tells once it is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from peft.tuners.lora import LoraLayer
from torch import nn

from rf_notebook.core.runner import Fusibility
from rf_notebook.core.values import Json, digest
from rf_notebook.training.base_models import changes_base_weights
from rf_notebook.training.device import is_spread
from rf_notebook.training.fused.adapters import QUANTISED, adapter_weights, lora_layers_of
from rf_notebook.training.residency import storage_of, tensors_of

if TYPE_CHECKING:
    from rf_notebook.core.run import RunConfig
    from rf_notebook.training.methods.trainer_like import TrainerLike

#: Arguments of LoraConfig with which an adapter is more than two matrices next to a layer, and how
#: to say so.
_ADAPTERS = {
    "use_dora": "DoRA scales the base weights by its own",
    "use_qalora": "QALoRA pools its inputs",
    "modules_to_save": "modules_to_save trains copies of whole modules",
    "trainable_token_indices": "trainable_token_indices trains embeddings",
    "target_parameters": "target_parameters adapts bare parameters",
    "layer_replication": "layer_replication changes the base's layers",
    "alora_invocation_tokens": "aLoRA looks at the tokens",
    "arrow_config": "Arrow routes between adapters",
    "lora_bias": "lora_bias adds a bias",
    "loftq_config": "LoftQ changes the base weights",
    "corda_config": "CorDA changes the base weights",
    "monteclora_config": "MonteCLoRA samples its weights",
    "velora_config": "VeLoRA compresses its inputs",
}
#: Arguments of trl's configs that need the run's own forward, and how to say so.
_TRAINING = {
    "torch_compile": "torch_compile compiles its own model",
    "use_liger_kernel": "use_liger_kernel replaces its own model's layers",
    "activation_offloading": "activation_offloading moves its own activations",
    "deepspeed": "DeepSpeed owns its steps",
    "fsdp": "FSDP owns its steps",
}
#: peft's classes whose update is added to the output of a linear layer.
_LAYERS = ("Linear", *QUANTISED)
_OTHER_WEIGHTS = "it trains other weights than LoRA's A and B in the layers"
#: Arguments that set a switch of the whole process, on which runs of one group have to agree.
_SWITCHES = ("tf32", "full_determinism")


def fusibility_of(config: RunConfig) -> Fusibility:
    """Whether a run of this config can train in joint steps, with whom, and why not."""
    shared: dict[str, Json] = {
        "model": dict(config.model),
        "use_cpu": config.use_cpu,
        **{name: config.training.get(name) for name in _SWITCHES},
    }
    key, reason = digest(shared), _reason(config)
    line = None if _first(_TRAINING, config.training) else key
    return Fusibility(None if reason else key, reason or "", line)


def _reason(config: RunConfig) -> str | None:
    adapter = config.peft
    if not config.writes:
        return "its model scores whole texts, and joint steps know models that write"
    if adapter is None:
        return "it trains all weights"
    kind = str(adapter.get("peft_type", "LORA")).upper().rpartition(".")[2]
    if kind != "LORA":
        return f"its adapter is {kind}, and joint steps know LoRA"
    if changes_base_weights(adapter.get("init_lora_weights")):
        return (
            f"init_lora_weights={adapter['init_lora_weights']!r} gives it base weights of its own"
        )
    if adapter.get("bias", "none") != "none":
        return f"bias={adapter['bias']!r} trains biases of the base"
    return _first(_ADAPTERS, adapter) or _first(_TRAINING, config.training)


def _first(reasons: Mapping[str, str], given: Mapping[str, Json]) -> str | None:
    return next((why for name, why in reasons.items() if given.get(name)), None)


def hindrance(trainer: TrainerLike) -> str | None:
    """Why a trainer that is built cannot take part in joint steps; None when it can."""
    model = trainer.model
    if (why := _hindrance_of(model)) is not None:
        return why
    trained = sum(1 for parameter in model.parameters() if parameter.requires_grad)
    return None if trained == 2 * len(lora_layers_of(model)) else _OTHER_WEIGHTS


def hindrance_of_trained(config: RunConfig, model: Any, base: nn.Module) -> str | None:
    """Why the model of a checkpoint cannot take part in joint steps; None when it can.

    Args:
        config: Of the run.
        model: With the checkpoint's adapter, over the base's weights.
        base: The resident model.
    """
    why = _reason(config) or _hindrance_of(model)
    if why is not None:
        return why
    pairs = lora_layers_of(model).values()
    known = {storage_of(one) for pair in pairs for one in (pair.down, pair.up)}
    known |= {storage_of(tensor) for tensor in tensors_of(base)}
    return None if all(storage_of(one) in known for one in model.parameters()) else _OTHER_WEIGHTS


def _hindrance_of(model: Any) -> str | None:
    causal: Any = model.get_base_model()
    if is_spread():
        return "its base model is spread over several devices"
    backbone = getattr(causal, getattr(causal, "base_model_prefix", ""), None)
    if not isinstance(backbone, nn.Module):
        return f"{type(causal).__name__} has no backbone below its head"
    layers = [
        (path, module) for path, module in causal.named_modules() if isinstance(module, LoraLayer)
    ]
    inside = adapter_weights(backbone, model.active_adapter)
    for path, layer in layers:
        if type(layer).__name__ not in _LAYERS:
            return f"its adapter changes {path}, a {type(layer).__name__}"
        if layer.lora_variant or any(layer.lora_bias.values()):
            return "its adapter is more than the product of two matrices"
    if not inside:
        return _OTHER_WEIGHTS
    drops = [
        path
        for path, m in backbone.named_modules()
        if isinstance(m, nn.Dropout) and m.p > 0 and "lora_" not in path
    ]
    attention_dropout: float = getattr(causal.config.get_text_config(), "attention_dropout", 0.0)
    if drops or attention_dropout > 0:
        return "the base model itself has dropout"
    return None
