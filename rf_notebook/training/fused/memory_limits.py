"""How much of what several runs ask for fits into one joint pass?

Nothing is estimated: limits are what ran out of memory before. What does not fit together is done
in parts, one after the other, or with activations that are computed again in the backward,
whichever takes less time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING

from rf_notebook.training.fused.layout import parts_below, passes_of, tokens_of

if TYPE_CHECKING:
    from rf_notebook.training.fused.request import Forward

#: Tokens that take as long as a further pass: where the time of a pass over n tokens, drawn as a
#: line, meets zero in benchmarks/results/fused-speed-*.json, for 1.1 billion weights on an H200 and
#: for a few million on two CPU cores.
_PASS_COST = {"cuda": 5500, "cpu": 160}
#: What computing activations again adds to the time of a pass
#: (benchmarks/results/fused-grid-cuda.json: 72,000 tokens a second without, 54,000 with).
_RECOMPUTING = 1 / 3


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

    def __init__(self, device_type: str, *, can_recompute: bool) -> None:
        """No limit is known.

        Args:
            device_type: The model's device type.
            can_recompute: Whether its layers can compute their activations again.
        """
        self._pass_cost = _PASS_COST[device_type]
        self._can_recompute = can_recompute
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
            if saved > lost or any(self.is_too_large(part, Kept.ACTIVATIONS) for part in parts):
                return fewer[0], Kept.LAYER_INPUTS
        return parts[0], Kept.ACTIVATIONS

    def is_too_large(self, part: Sequence[Forward], kept: Kept, in_use: int = 0) -> bool:
        """Whether this is known not to fit next to graphs of this many tokens."""
        return in_use + tokens_of(part) >= self._too_many[kept]

    def was_too_large(self, part: Sequence[Forward], kept: Kept, in_use: int = 0) -> None:
        """This ran out of memory."""
        self._too_many[kept] = min(self._too_many[kept], in_use + tokens_of(part))

    def _parts(self, together: Sequence[list[Forward]], kept: Kept) -> list[list[Forward]]:
        return [
            part for one in together for part in parts_below(one, self._too_many[kept], tokens_of)
        ]
