"""Where do the tokens of a batch lie?

A collator knows before its batch goes to the device, where nobody could ask without waiting for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate.utils import send_to_device
from torch import Tensor

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sizes:
    """Of a batch of ``rows`` rows of ``length`` tokens, padding included.

    A *sequence* is what attends to itself: the tokens of a row, or one of several that were packed
    into a row.
    """

    rows: int
    length: int
    starts: IntArray
    """[s]: row * length + column of each sequence's first token, ascending."""
    lengths: IntArray
    """[s]: tokens of each sequence; at least one."""
    is_packed: bool = False
    """Whether positions count from each sequence's begin, not from the row's."""
    labels: IntArray | None = None
    """[n]: row * length + column of each labelled token that has one before it in its row; None
    when the host does not know."""

    @cached_property
    def tokens(self) -> int:
        """Without padding."""
        return int(self.lengths.sum())

    @cached_property
    def flat(self) -> IntArray:
        """[tokens]: row * length + column of each token."""
        ends = self.lengths.cumsum()
        within = np.arange(self.tokens) - np.repeat(ends - self.lengths, self.lengths)
        return np.repeat(self.starts, self.lengths) + within

    @cached_property
    def positions(self) -> IntArray:
        """[tokens]: the position ids that the tokens have in the run's own batch."""
        if self.is_packed:
            ends = self.lengths.cumsum()
            return np.arange(self.tokens) - np.repeat(ends - self.lengths, self.lengths)
        return self.flat % self.length

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return int(self.lengths.max())

    def before_labels(self, labels: IntArray) -> IntArray:
        """[n]: for each labelled token, which of the batch's tokens is the one before it."""
        return np.searchsorted(self.flat, labels - 1)

    def places_of_labels(self, labels: IntArray) -> IntArray:
        """[n]: for each labelled token, its place in a result of [rows, length - 1]."""
        return labels - 1 - labels // self.length


def sizes_of(batch: Mapping[str, Any]) -> Sizes | None:
    """Of a batch that a collator made; None when its tokens do not lie as is known.

    Args:
        batch: With ``input_ids`` [b, l], and ``attention_mask`` or ``position_ids`` beside it.
    """
    ids = batch.get("input_ids")
    if not torch.is_tensor(ids) or ids.dim() != 2 or ids.device.type != "cpu":
        return None
    found = _lying(ids, batch.get("attention_mask"), batch.get("position_ids"))
    if found is None:
        return None
    rows, length = ids.shape
    starts, lengths, is_packed = found
    return Sizes(rows, length, starts, lengths, is_packed, _labels_of(batch))


def sizes_on_device(
    input_ids: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None
) -> Sizes | None:
    """The same of a batch that is on the device already, which is waited for."""
    found = _lying(input_ids, attention_mask, position_ids)
    return None if found is None else Sizes(input_ids.shape[0], input_ids.shape[1], *found)


def labels_on_device(labels: Tensor) -> IntArray:
    """[n]: where labels [b, l] are, as ``Sizes.labels``; waits for the device."""
    labelled = (labels != -100).cpu().numpy()
    labelled[:, 0] = False
    return np.flatnonzero(labelled)


class SizedBatch(dict[str, Any]):
    """A batch that knows its sizes; to everybody else the dict that the collator made."""

    sizes: Sizes | None = None

    def to(self, device: Any, *, non_blocking: bool = False) -> SizedBatch:
        """What accelerate calls to bring a batch to the device."""
        moved = SizedBatch(send_to_device(dict(self), device, non_blocking=non_blocking))
        moved.sizes = self.sizes
        return moved


class SizedCollator:
    """A collator whose batches carry their sizes."""

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self._collate = collate

    def __call__(self, rows: Any) -> Any:
        """The batch, with its sizes where they are known."""
        batch = self._collate(rows)
        sizes = sizes_of(batch) if type(batch) is dict else None
        if sizes is None:
            return batch
        sized = SizedBatch(batch)
        sized.sizes = sizes
        return sized


def _lying(
    ids: Tensor, mask: Tensor | None, position_ids: Tensor | None
) -> tuple[IntArray, IntArray, bool] | None:
    """Starts and lengths of sequences, and whether they are packed."""
    rows, length = ids.shape
    if position_ids is not None and mask is None:
        if rows != 1 or position_ids.dim() != 2:
            return None
        positions = position_ids[0].cpu().numpy()
        starts = np.flatnonzero(positions == 0)
        lengths = np.diff(np.append(starts, length))
        within = np.arange(length) - np.repeat(starts, lengths)
        is_known = len(starts) > 0 and starts[0] == 0 and np.array_equal(within, positions)
        return (starts, lengths, True) if is_known else None
    if position_ids is not None:
        return None
    if mask is None:
        return np.arange(rows) * length, np.full(rows, length), False
    if mask.shape != ids.shape:
        return None
    real = mask.cpu().numpy() != 0
    lengths, columns = real.sum(1), real.argmax(1)
    last = length - 1 - real[:, ::-1].argmax(1)
    has_any = lengths > 0
    if not np.array_equal((last - columns + 1)[has_any], lengths[has_any]):
        return None  # there are gaps
    return (np.arange(rows) * length + columns)[has_any], lengths[has_any], False


def _labels_of(batch: Mapping[str, Any]) -> IntArray | None:
    labels, completion = batch.get("labels"), batch.get("completion_mask")
    shape = batch["input_ids"].shape
    if torch.is_tensor(labels) and labels.shape == shape:
        labelled = labels.numpy() != -100
    elif torch.is_tensor(completion) and completion.shape == shape:
        labelled = completion.numpy() != 0
    else:
        return None
    labelled[:, 0] = False
    return np.flatnonzero(labelled)
