"""What does the head of a language model say of the tokens before the labelled ones, and of no others?

trl's fused head looks for labelled tokens on the device, which has to be waited for. Here they are
known beforehand, and its kernel is called with them alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import trl.trainer.utils
from torch import Tensor, nn

#: What a trainer passes as ``fused_lm_head`` to take the labelled tokens' results as they are, [n].
COMPACT = "compact"
#: trl's kernel, and its results in their order (trl 1.16); None for a trl that has none of that
#: name.
_KERNEL: Any = getattr(trl.trainer.utils, "_ChunkedLogProbFunction", None)
_TOKENS: int = getattr(trl.trainer.utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", 0)
_OUTPUTS: Any = getattr(trl.trainer.utils, "FusedCausalLMOutput", None)
_RESULTS = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
#: What trl's forward keeps of how its head was added.
_SETTINGS = (
    "temperature",
    "cast_lm_head_to_fp32",
    "outputs",
    "final_logit_softcapping",
    "logit_scale",
)


@dataclass(frozen=True)
class Head:
    """A fused head that trl added to a model."""

    layer: nn.Linear
    settings: Mapping[str, Any]

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for heads that compute the same."""
        plain = sorted((name, repr(value)) for name, value in self.settings.items())
        return (self.layer.weight.data_ptr(), *plain)

    def score(self, hidden_nv: Tensor, targets_n: Tensor) -> dict[str, Tensor]:
        """What trl computes of n labelled tokens, by name, [n] each.

        Source: trl 1.16, ``add_fused_lm_head``.

        Args:
            hidden_nv: Of the tokens before them.
            targets_n: The tokens themselves.
        """
        settings = self.settings
        precision: Any = nullcontext()
        if settings["cast_lm_head_to_fp32"]:
            hidden_nv = hidden_nv.float()
            precision = torch.autocast(hidden_nv.device.type, enabled=False)
        with precision:
            found = _KERNEL.apply(
                hidden_nv,
                self.layer.weight,
                self.layer.bias,
                targets_n,
                settings["temperature"],
                _TOKENS,
                settings["final_logit_softcapping"],
                settings["logit_scale"],
                settings["outputs"],
            )
        return {n: v for n, v in zip(_RESULTS, found, strict=True) if v is not None}

    @staticmethod
    def result_class() -> Any:
        """Of what trl's forward returns."""
        return _OUTPUTS


def head_of(causal: Any) -> Head | None:
    """The head that trl added to a language model; None where its labels are scored otherwise."""
    if _KERNEL is None or _OUTPUTS is None:
        return None
    forward = getattr(causal.forward, "__func__", causal.forward)
    settings = {
        name: value
        for name, value in inspect.getclosurevars(forward).nonlocals.items()
        if name in _SETTINGS
    }
    layer = causal.get_output_embeddings()
    is_plain = type(layer) is nn.Linear and not any(p.requires_grad for p in layer.parameters())
    return Head(layer, settings) if is_plain and len(settings) == len(_SETTINGS) else None
