"""How much memory will a run need, and which knob makes it fit?

Pure arithmetic, calibrated on a GPU.

Exact: weights, gradients and optimizer state. Estimated: activations, within about a third on Llama
and Qwen models of 0.5 to 1.1 billion weights on an H200 (the figures are in
tests/planning/test_memory_plan.py), for attention that keeps no score matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rf_notebook.core.values import whole

if TYPE_CHECKING:
    from rf_notebook.core.values import Json

_DEFAULT_BATCH = 8  # of TrainingArguments


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What of a base model decides memory."""

    weight_bytes: int
    element_bytes: int
    """Of one weight: 2 for bfloat16, 4 for float32."""
    layers: int
    hidden: int
    """Width of the residual stream."""
    intermediate: int
    """Width inside the feed-forward part."""
    key_value_width: int
    """Of all key heads together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What of a config decides memory."""

    method: str
    has_adapter: bool
    trainable_bytes: int
    optimizer_bytes: int
    reference_bytes: int = 0
    """Weights of a reference model that the run has for itself."""
    examples: int
    """A micro-batch."""
    least_examples: int = 1
    """That a micro-batch must have."""
    accumulation: int
    length: int
    """Tokens of an example at most."""
    generated_examples: int = 0
    """Completions that are written at a time."""
    is_checkpointed: bool
    """Whether layers are computed again in the backward pass."""
    compute_bytes: int
    """Of one activation: 2 under bf16 or fp16, else that of the weights."""

    @property
    def tokens(self) -> int:
        """A forward pass; DPO's holds the chosen and the rejected side."""
        return self.examples * self.length * (2 if self.method == "DPO" else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes, by what they are for."""

    base: int
    adapter: int
    """The run's own weights: an adapter, or all weights once more when they are trained."""
    gradients: int
    optimizer: int
    activations: int

    @property
    def certain(self) -> int:
        """Without the activations, which are an estimate."""
        return self.base + self.adapter + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        """All together."""
        return self.certain + self.activations

    def sentence(self) -> str:
        """The parts, in gibibytes."""
        parts = {
            "base": self.base,
            "own weights": self.adapter,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "activations": self.activations,
        }
        listed = ", ".join(f"{name} {gibibytes(value)}" for name, value in parts.items() if value)
        return f"about {gibibytes(self.total)} GiB ({listed})"


def gibibytes(count: int) -> str:
    """Bytes as a short number of GiB."""
    value = count / 2**30
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def estimate(shape: ModelShape, load: Load) -> MemoryEstimate:
    """The memory of a run while it trains, besides a resident base model."""
    width = shape.hidden + shape.intermediate
    layer = _per_layer(shape, load) * load.compute_bytes * width * load.tokens
    if load.is_checkpointed:
        kept = (
            shape.layers * shape.hidden * max(load.compute_bytes, shape.element_bytes) * load.tokens
            + layer
        )
    else:
        kept = shape.layers * layer
    cache = (
        2
        * shape.layers
        * shape.key_value_width
        * load.compute_bytes
        * load.generated_examples
        * load.length
    )
    # The optimizer's step makes one temporary of the size of the weights that it changes.
    return MemoryEstimate(
        base=shape.weight_bytes,
        adapter=load.trainable_bytes + load.reference_bytes,
        gradients=load.trainable_bytes,
        optimizer=load.optimizer_bytes,
        activations=int(max(kept, cache, load.trainable_bytes)),
    )


def _per_layer(shape: ModelShape, load: Load) -> float:
    """Activations that the backward pass needs, in widths (residual plus feed-forward) a token.

    Measured.
    """
    if load.compute_bytes >= 4:
        return 9.7
    return 8.0 if shape.element_bytes >= 4 else 6.4


def halved_batch(training: Mapping[str, Json], least: int = 1) -> dict[str, Json]:
    """The edits that halve a micro-batch and keep the examples of an optimizer step.

    None where it cannot be halved.

    Args:
        training: The arguments as given; transformers' defaults hold for the rest.
        least: Examples that a micro-batch must have.
    """
    examples = whole(training.get("per_device_train_batch_size", _DEFAULT_BATCH))
    if examples % 2 or examples // 2 < least:
        return {}
    edits: dict[str, Json] = {
        "training_args.per_device_train_batch_size": examples // 2,
        "training_args.gradient_accumulation_steps": 2
        * whole(training.get("gradient_accumulation_steps", 1)),
    }
    if steps := training.get("steps_per_generation"):
        edits["training_args.steps_per_generation"] = whole(steps) * 2
    return edits


def remedy(shape: ModelShape, load: Load, free: int) -> Mapping[str, Json] | None:
    """The edits with the least consequences that make a run fit into ``free`` bytes.

    None when none of them does.
    """
    edits: dict[str, Json] = {}
    tried = load
    if not load.is_checkpointed:
        tried = replace(tried, is_checkpointed=True)
        edits["training_args.gradient_checkpointing"] = True
        if estimate(shape, tried).total <= free:
            return edits
    while tried.examples % 2 == 0 and tried.examples // 2 >= load.least_examples:
        tried = replace(tried, examples=tried.examples // 2, accumulation=tried.accumulation * 2)
        edits["training_args.per_device_train_batch_size"] = tried.examples
        edits["training_args.gradient_accumulation_steps"] = tried.accumulation
        if estimate(shape, tried).total <= free:
            return edits
    return None


def edits_sentence(edits: Mapping[str, Json]) -> str:
    """Edits as a user would type them."""
    return ", ".join(f"{key.rpartition('.')[2]}={value!r}" for key, value in edits.items())
