"""How do runs that generate at the same time share one forward a token?

Each run's own ``generate`` continues in its own code and draws from its own random stream; only the
backbone's forward is joint. The keys and values of all runs lie in one cache, and each run's cache
is views of its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from rf_notebook.training.fused.layout import padded_left
from rf_notebook.training.fused.passes import masks_of

if TYPE_CHECKING:
    from rf_notebook.training.fused.request import Forward


class JointCache:
    """Of the runs that generate in one group."""

    def __init__(self) -> None:
        self._cache = DynamicCache()
        self._handed_out: list[tuple[Any, Tensor]] = []
        """Whose rows are in it, and the keys of their first layer as they were handed out."""

    def let_go(self) -> None:
        """Free it; what was handed out stays."""
        self._cache, self._handed_out = DynamicCache(), []

    def joined(self, requests: Sequence[Forward]) -> DynamicCache:
        """One cache with the rows of all, in their order, padded on the left."""
        known = [(cache, keys) for cache, keys in self._handed_out]
        same = len(known) == len(requests) and all(
            request.cache is cache and request.past and request.cache.layers[0].keys is keys
            for request, (cache, keys) in zip(requests, known, strict=True)
        )
        if not same:
            self._cache = self._made(requests)
        return self._cache

    def hand_out(self, requests: Sequence[Forward], rows: Sequence[slice]) -> None:
        """Let each run's cache be views of its rows, with the tokens that were just added."""
        whole = self._cache.get_seq_length()
        self._handed_out = []
        for request, where in zip(requests, rows, strict=True):
            start = whole - request.past - request.length
            for place, layer in enumerate(self._cache.layers):
                _set(
                    request.cache,
                    place,
                    layer.keys[where, :, start:],
                    layer.values[where, :, start:],
                )
            self._handed_out.append((request.cache, request.cache.layers[0].keys))

    def _made(self, requests: Sequence[Forward]) -> DynamicCache:
        made = DynamicCache()
        longest = max(request.past for request in requests)
        for place in range(len(requests[0].cache.layers) if longest else 0):
            layers = [request.cache.layers[place] for request in requests]
            keys = torch.cat([_padded_left(layer.keys, longest) for layer in layers])
            values = torch.cat([_padded_left(layer.values, longest) for layer in layers])
            made.update(keys, values, place)
        return made


class LeftPadded:
    """See Tokens: rows of runs that generate, padded on the left."""

    def __init__(self, requests: Sequence[Forward], length: int) -> None:
        self._length = length
        self.tokens: Sequence[int] = [request.rows * length for request in requests]

    def kept(self, path: str, requests: Sequence[Forward]) -> Tensor | None:
        """See Tokens."""
        return masks_of(path, requests, lambda mask: padded_left(mask, self._length, 0))


def _padded_left(states: Tensor, length: int) -> Tensor:
    """[rows, heads, length, width] of states with fewer tokens."""
    return torch.nn.functional.pad(states, (0, 0, length - states.shape[-2], 0))


def _set(cache: DynamicCache, place: int, keys: Tensor, values: Tensor) -> None:
    while len(cache.layers) <= place:
        cache.layers.append(DynamicLayer())
    layer = cache.layers[place]
    if not layer.is_initialized:
        layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
