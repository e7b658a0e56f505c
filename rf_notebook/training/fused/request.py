"""What does a run ask of a joint step, and what does it get back?"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rf_notebook.training.fused.sizes import IntArray, Sizes, labels_on_device

if TYPE_CHECKING:
    from rf_notebook.training.fused.head import Head
    from rf_notebook.training.fused.writing import RowsLeft


@dataclass(frozen=True, slots=True)
class Autocast:
    """The mixed precision under which a forward was asked for."""

    device_type: str
    dtype: torch.dtype
    is_enabled: bool

    @classmethod
    def now(cls, device_type: str) -> Autocast:
        """What holds at this moment."""
        return cls(
            device_type,
            torch.get_autocast_dtype(device_type),
            torch.is_autocast_enabled(device_type),
        )

    def entered(self) -> torch.autocast:
        """The same, for what is done for this request."""
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=self.is_enabled)

    def compute_dtype(self, weights: torch.dtype) -> torch.dtype:
        """The type in which matrices of this type are multiplied."""
        return self.dtype if self.is_enabled else weights


@dataclass(slots=True, eq=False)
class Elsewhere:
    """A run waits for something that no step of the group gives: a reward function's judge, say."""

    seconds: float = 0.0
    """How long it may wait before it asks again: not at all while others have something to do."""
    error: BaseException | None = None
    """Raised in the run instead."""


@dataclass(slots=True, eq=False)
class Forward:
    """One forward of the base that a run asks for.

    ``b`` rows of ``l`` tokens; ``v`` is the hidden size.
    """

    member: Any
    input_ids: Tensor
    """[b, l], on the device."""
    attention_mask: Tensor | None
    """[b, l]; None when rows are padded on the right or not at all, which a causal model needs no
    mask for."""
    labels: Tensor | None
    """[b, l]; None asks for hidden states instead of log-probabilities."""
    embeddings: Tensor | None
    """[b, l, v], where the run changes them (NEFTune)."""
    uses_adapter: bool
    needs_grad: bool
    autocast: Autocast
    head: Head | None
    """Of the run's language model, where it is one that trl added."""
    sizes: Sizes | None = None
    """Where its tokens lie; None for a batch that is not packed."""
    is_compact: bool = False
    """Whether the run takes what was computed of its labelled tokens as it is, [n], instead of
    [b, l - 1]."""
    position_ids: Tensor | None = None
    """[b, l], while generating."""
    cache: Any = None
    """While generating: the run's own DynamicCache, which holds the tokens before these."""
    kept: Mapping[str, Tensor] = field(default_factory=dict)
    """By module: which inputs of the adapter the run's dropout keeps, [b, l, in]."""
    before: Any = None
    """The run's random streams before it drew for this request, for a run that has to do it alone
    after all."""
    result: dict[str, Tensor] = field(default_factory=dict)
    """What the run's model returns, by name: its rows of the joint result."""
    places: Tensor | None = None
    """[n]: where in [b, l - 1] each labelled token's results belong."""
    result_class: type | None = None
    """Of what a language model with trl's head returns."""
    leaves: dict[str, Tensor] = field(default_factory=dict)
    """Where the run's own backward ends, by the name of the joint result."""
    error: BaseException | None = None
    """Raised in the run instead."""
    _labelled: IntArray | None = field(default=None, init=False)
    is_left_alone: bool = False
    """The joint pass failed; the run is to do its own."""

    @property
    def rows(self) -> int:
        """How many rows."""
        return int(self.input_ids.shape[0])

    @property
    def past(self) -> int:
        """Tokens of each row that are in the cache."""
        return 0 if self.cache is None else int(self.cache.get_seq_length())

    @property
    def urgency(self) -> int:
        """Lower ones are answered first, so that all runs in training meet at their passes."""
        return 0 if self.cache is not None else 2 if self.needs_grad else 1

    @property
    def kind(self) -> Hashable:
        """Equal for requests that one joint pass can answer."""
        # While generating, a prompt is not mixed with single tokens.
        is_prompt = None if self.cache is None else self.length > 1
        return (self.autocast, self.needs_grad, is_prompt, self.sizes is None)

    @property
    def length(self) -> int:
        """Tokens of each row, with the run's own padding."""
        return int(self.input_ids.shape[1])

    def labelled(self) -> IntArray:
        """[n]: row * length + column of each labelled token, of a batch whose sizes are known."""
        assert self.sizes is not None
        assert self.labels is not None
        if self._labelled is None:
            known = self.sizes.labels
            self._labelled = labels_on_device(self.labels) if known is None else known
        return self._labelled


@dataclass(slots=True, eq=False)
class NextTokens:
    """What a run asks for that writes: what its newest tokens, or its prompt, mean.

    ``b`` rows; ``v`` is the hidden size.
    """

    member: Any
    prompt: Forward
    """With an empty cache."""
    tokens: Tensor
    """The newest, [b, 1], once the prompt is answered."""
    most: int = 0
    """Tokens that a row may have in all, its prompt included; 0 where nothing says it."""
    left: RowsLeft | None = None
    """Which rows have not ended; None where all are written to the end."""
    hidden: Tensor | None = None
    """Of the newest tokens, [b, 1, v]; zeros for rows that ended."""
    of_prompts: Tensor | None = None
    """[b]: which row of the prompt's cache each row has; None when they are the same."""
    error: BaseException | None = None
    """Raised in the run instead."""
    is_left_alone: bool = False
    """No joint step answers; the run continues by itself."""


@dataclass(slots=True, eq=False)
class Backward:
    """A run's own backward has reached its leaves; the joint one is to continue from there."""

    error: BaseException | None = None
    """Raised in the run instead."""
