"""Where do the rows of several requests lie in one joint batch?

Requests follow one another, rows below rows, padded to the longest: on the right in training, on
the left while generating.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from rf_notebook.training.fused.request import Forward


def tokens_of(requests: Sequence[Forward]) -> int:
    """Of a joint batch, with padding and, while generating, with what is in the caches."""
    if requests[0].sizes is not None:
        return sum(request.sizes.tokens for request in requests if request.sizes is not None)
    return sum(request.rows for request in requests) * max(
        request.past + request.length for request in requests
    )


def passes_of(requests: Sequence[Forward], worth: int) -> list[list[Forward]]:
    """Requests of different lengths in as many passes as are worth the padding that they save.

    The best of all ways to cut the requests, from the longest to the shortest, into passes.

    Args:
        requests: Of one kind.
        worth: Tokens, padding included, that take as long as a further pass does.
    """
    is_packed = requests[0].sizes is not None
    if is_packed or len({request.length for request in requests}) == 1:
        return [list(requests)]
    ordered = sorted(requests, key=lambda request: -request.length)
    best: list[tuple[int, int]] = [
        (0, 0)
    ]  # for the first so many: their cost, and where their last pass begins
    for stop in range(1, len(ordered) + 1):
        best.append(
            min(
                (best[start][0] + worth + tokens_of(ordered[start:stop]), start)
                for start in range(stop)
            )
        )
    cuts = [len(ordered)]
    while cuts[-1]:
        cuts.append(best[cuts[-1]][1])
    bounds = cuts[::-1]
    return [ordered[start:stop] for start, stop in pairwise(bounds)]


def parts_below(
    requests: list[Forward], limit: float, size_of: Callable[[list[Forward]], int]
) -> list[list[Forward]]:
    """As few successive parts as stay below a limit, the largest as small as it can be.

    A request that is too large by itself is a part of its own.

    Args:
        requests: In their order.
        limit: What no part may reach.
        size_of: What a part is measured by; never smaller for more requests.
    """
    whole = size_of(requests)
    if whole < limit:
        return [requests]

    def filled(most: float) -> list[list[Forward]]:
        parts = [[requests[0]]]
        for request in requests[1:]:
            if size_of([*parts[-1], request]) < most:
                parts[-1].append(request)
            else:
                parts.append([request])
        return parts

    count = len(filled(limit))
    low, high = 0, int(min(limit, whole))
    while low < high:
        most = (low + high) // 2
        if len(filled(most)) > count:
            low = most + 1
        else:
            high = most
    return filled(low)


def rows_of(requests: Sequence[Forward]) -> list[slice]:
    """Which rows of the joint batch belong to each."""
    slices, done = [], 0
    for request in requests:
        slices.append(slice(done, done + request.rows))
        done += request.rows
    return slices


def padded(tensor: Tensor, length: int, value: int) -> Tensor:
    """[b, l, ...] with ``length`` instead of l."""
    missing = length - tensor.shape[1]
    return (
        tensor
        if not missing
        else nn.functional.pad(tensor, (0, 0) * (tensor.dim() - 2) + (0, missing), value=value)
    )


def padded_left(tensor: Tensor, length: int, value: int) -> Tensor:
    """[b, l, ...] with ``length`` instead of l, the tokens at the end."""
    missing = length - tensor.shape[1]
    return (
        tensor
        if not missing
        else nn.functional.pad(tensor, (0, 0) * (tensor.dim() - 2) + (missing, 0), value=value)
    )


def positions_of(request: Forward) -> Tensor:
    """[b, l], of a run that generates."""
    assert request.position_ids is not None
    return request.position_ids.expand(request.rows, -1)


def mask_with_past(requests: Sequence[Forward], whole: int) -> Tensor | None:
    """[rows, whole] of runs that generate, what is in their caches included.

    None when nothing is padded.
    """
    if all(r.attention_mask is None and r.past + r.length == whole for r in requests):
        return None
    masks = []
    for request in requests:
        mask = request.attention_mask
        if mask is None:
            mask = request.input_ids.new_ones(request.rows, request.past + request.length)
        masks.append(padded_left(mask, whole, 0))
    return torch.cat(masks)


def mask_of(requests: Sequence[Forward], length: int) -> Tensor | None:
    """[rows, length]; None when it is not needed."""
    if all(request.attention_mask is None for request in requests):
        return None
    masks = [
        r.attention_mask if r.attention_mask is not None else torch.ones_like(r.input_ids)
        for r in requests
    ]
    return torch.cat([padded(mask, length, 0) for mask in masks])
