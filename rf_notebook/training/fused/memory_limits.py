"""How much of what several runs ask for fits into one joint pass?

What a pass will need is estimated, from the model's shape before the first one and from what passes
took afterwards; what ran out of memory nevertheless is not tried again. What does not fit together
is done in parts, one after the other, or with activations that are computed again in the backward,
whichever takes less time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from rf_notebook.planning.memory_plan import Load, estimate
from rf_notebook.training.fused.layout import parts_below, passes_of, tokens_of
from rf_notebook.training.memory_estimate import shape_of

if TYPE_CHECKING:
    import torch

    from rf_notebook.training.fused.request import Forward

#: Tokens that take as long as a further pass: where the time of a pass over n tokens, drawn as a
#: line, meets zero in benchmarks/results/fused-speed-*.json, for 1.1 billion weights on an H200 and
#: for a few million on two CPU cores.
_PASS_COST = {"cuda": 5500, "cpu": 160}
#: Weights of a decoder layer of that model on the GPU. Launching a layer takes as long whatever its
#: size, and larger ones compute fewer tokens meanwhile.
_LAYER_WEIGHTS = 44e6
#: What computing activations again adds to the time of a pass
#: (benchmarks/results/fused-grid-cuda.json: 72,000 tokens a second without, 54,000 with).
_RECOMPUTING = 1 / 3
#: The share of the free memory that the activations of a pass may take. The rest is for what its
#: backward makes, and for the gaps that blocks of ever other sizes leave.
_SHARE = 0.75
#: Passes whose memory is remembered.
_NEWEST = 8
#: Tokens of a row by which is estimated what one takes.
_LENGTH = 1024


class Kept(Enum):
    """What stays in memory of a joint forward."""

    ACTIVATIONS = auto()
    """All that the backward needs."""
    LAYER_INPUTS = auto()
    """The backward computes the rest again."""
    CACHE = auto()
    """Keys and values, while generating."""
    NOTHING = auto()
    """There is no backward."""


class MemoryLimits:
    """Of the joint passes of one model."""

    def __init__(
        self,
        device_type: str,
        *,
        can_recompute: bool,
        free: Callable[[], float] = lambda: math.inf,
        token_bytes: Mapping[Kept, float] | None = None,
        layer_weights: float = _LAYER_WEIGHTS,
    ) -> None:
        """Nothing has been tried.

        Args:
            device_type: The model's device type.
            can_recompute: Whether its layers can compute their activations again.
            free: Bytes that can be allocated now.
            token_bytes: What a token will take, for each way in which that can be said.
            layer_weights: How many a decoder layer has.
        """
        scale = _LAYER_WEIGHTS / layer_weights if device_type == "cuda" else 1.0
        self._pass_cost = round(_PASS_COST[device_type] * scale)
        self._can_recompute = can_recompute
        self._free = free
        self._token_bytes = dict(token_bytes or {})
        self._took: dict[Kept, deque[float]] = {}
        """Bytes a token of the newest passes."""
        self._too_many: dict[Kept, float] = dict.fromkeys(Kept, math.inf)
        """Tokens, with padding, that did not fit."""

    def next_pass(self, requests: Sequence[Forward]) -> tuple[list[Forward], Kept]:
        """Which of these to answer first, at once.

        Args:
            requests: Of one kind; at least one.
        """
        first = requests[0]
        if first.cache is not None:
            return self._parts([list(requests)], Kept.CACHE)[0], Kept.CACHE
        together = passes_of(requests, self._pass_cost)
        if not first.needs_grad:
            return self._parts(together, Kept.NOTHING)[0], Kept.NOTHING
        parts = self._parts(together, Kept.ACTIVATIONS)
        if self._can_recompute:
            fewer = self._parts(together, Kept.LAYER_INPUTS)
            saved = (len(parts) - len(fewer)) * self._pass_cost
            lost = sum(map(tokens_of, together)) * _RECOMPUTING
            most = self._most(Kept.ACTIVATIONS)
            if saved > lost or any(tokens_of(part) >= most for part in parts):
                return fewer[0], Kept.LAYER_INPUTS
        return parts[0], Kept.ACTIVATIONS

    def has_to_wait(self, part: Sequence[Forward], kept: Kept) -> bool:
        """Whether this is expected not to fit while other graphs keep their memory."""
        return tokens_of(part) >= self._most(kept)

    def is_too_large(self, part: Sequence[Forward], kept: Kept, in_use: int = 0) -> bool:
        """Whether this is known not to fit next to graphs of this many tokens."""
        return in_use + tokens_of(part) >= self._too_many[kept]

    def was_too_large(self, part: Sequence[Forward], kept: Kept, in_use: int = 0) -> None:
        """This ran out of memory."""
        self._too_many[kept] = min(self._too_many[kept], in_use + tokens_of(part))

    def took(self, part: Sequence[Forward], kept: Kept, used: int) -> None:
        """A pass kept so many bytes.

        The most that one of the newest kept a token counts from now on: what is allocated once is
        not of every pass, and would make them ever smaller.
        """
        newest = self._took.setdefault(kept, deque(maxlen=_NEWEST))
        newest.append(used / tokens_of(part))
        self._token_bytes[kept] = max(newest)

    def _most(self, kept: Kept) -> float:
        """Tokens that no pass may reach, as far as is known now."""
        token_bytes = self._token_bytes.get(kept, 0.0)
        if token_bytes <= 0:
            return self._too_many[kept]
        return min(self._too_many[kept], _SHARE * self._free() / token_bytes)

    def _parts(self, together: Sequence[list[Forward]], kept: Kept) -> list[list[Forward]]:
        most = self._most(kept)
        return [part for one in together for part in parts_below(one, most, tokens_of)]


def layer_weights_of(tree: Any) -> float:
    """How many weights a decoder layer of a model has, by its shape; those of 1.1B if unknown."""
    shape = shape_of(tree)
    attention = 2 * shape.hidden * (shape.hidden + shape.key_value_width)
    return attention + 3 * shape.hidden * shape.intermediate or _LAYER_WEIGHTS


def cache_bytes_of(tree: Any, dtype: torch.dtype) -> float:
    """What the keys and values of a token take in a type by a model's shape; 0 for an unknown one."""
    shape = shape_of(tree)
    return 2.0 * shape.layers * shape.key_value_width * dtype.itemsize


def token_bytes_of(tree: Any) -> dict[Kept, float]:
    """What a token's activations take by a model's shape; nothing for one of unknown shape."""
    shape = shape_of(tree)
    load = Load(
        method="SFT",
        has_adapter=True,
        trainable_bytes=0,
        optimizer_bytes=0,
        examples=1,
        accumulation=1,
        length=_LENGTH,
        is_checkpointed=False,
        compute_bytes=shape.element_bytes,
    )
    again = replace(load, is_checkpointed=True)
    ways = {Kept.ACTIVATIONS: load, Kept.LAYER_INPUTS: again}
    return {kept: estimate(shape, way).activations / _LENGTH for kept, way in ways.items()}
