"""How does one linear layer serve the tokens of several runs, each with its own low-rank update?

``k`` members of a block that take part in a pass, ``t`` tokens of theirs, ``r`` the rank of the
block's widest adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rf_notebook.training.fused.transfer import on_device

#: None in a torch that has none.
_grouped_mm: Any = getattr(nn.functional, "grouped_mm", None)
#: What it asks of the strides of its operands, in bytes.
_GROUPED_ALIGNMENT = 16


class Way(StrEnum):
    """How the members' products are computed."""

    EQUAL = "one product over equal blocks"
    """All members have equally many tokens."""
    GROUPED = "grouped_mm"
    """One product whose groups are the members: bfloat16 from compute capability 9."""
    BLOCKS = "one product over blocks, each padded to the largest"
    """On every other GPU: ``grouped_mm`` waits for the device there."""
    LOOP = "a product a member"
    """On a CPU, and the reference for all others."""


#: Rows of a member up to which a product is computed in pieces, and how many those are.
_FEW_ROWS, _PIECES = 16, 16
#: For tests and benchmarks: the way that is taken for members with different numbers of tokens.
forced_way: Way | None = None


def way_of(
    tokens: Sequence[int], dtype: torch.dtype, widths: Sequence[int], device: torch.device
) -> Way:
    """The fastest one that works.

    Args:
        tokens: Of each member.
        dtype: Of the products.
        widths: Of the layer's inputs, of the rank, of its outputs.
        device: Where the model is.
    """
    if len(set(tokens)) == 1:
        return Way.EQUAL
    if forced_way is not None:
        return forced_way
    if device.type != "cuda":
        return Way.LOOP
    is_aligned = all(width * 2 % _GROUPED_ALIGNMENT == 0 for width in widths)
    is_fast = dtype is torch.bfloat16 and is_aligned and _groups_fast(device.index or 0)
    return Way.GROUPED if is_fast else Way.BLOCKS


@cache
def _groups_fast(device: int) -> bool:
    is_known = _grouped_mm is not None and torch.version.hip is None
    return is_known and torch.cuda.get_device_capability(device) >= (9, 0)


@dataclass(frozen=True)
class Spread:
    """Which tokens of a block are whose."""

    tokens: tuple[int, ...]
    """[k]: of each member."""
    ends: Tensor
    """[k] int32: where each member's tokens end."""
    members: Tensor
    """[t]: whose token each is."""
    blocks: Tensor
    """[k * most]: the token at each place of blocks as large as the largest; what pads is the
    member's own, so that no other's NaN gets in."""
    places: Tensor
    """[t]: the place of each token in those blocks."""

    @classmethod
    def of(cls, tokens: Sequence[int], device: torch.device) -> Spread:
        """Of members with so many tokens each, one after another.

        Args:
            tokens: Of each member, at least one.
            device: Where the model is.
        """
        counts = np.asarray(tokens, dtype=np.int64)
        ends, most, number = counts.cumsum(), int(counts.max()), np.arange(len(counts))
        within = np.arange(counts.sum()) - np.repeat(ends - counts, counts)
        places = np.repeat(number * most, counts) + within
        blocks = np.repeat(ends - counts, most)
        blocks[places] = np.arange(len(places))
        made = on_device([ends, np.repeat(number, counts), blocks, places], device)
        return cls(tuple(map(int, tokens)), made[0].int(), *made[1:])


class Part(NamedTuple):
    """What one block of adapters adds to its tokens of one layer's output."""

    down: Tensor
    """A of the members, [k, r, in]."""
    up: Tensor
    """B of the members, transposed, [k, r, out]."""
    scale: Tensor
    """What each member's update is multiplied by, [k]."""
    factor: Tensor
    """The same for each token, [t, 1]."""
    way: Way
    spread: Spread
    kept: Tensor | None = None
    """Where a member has dropout: which inputs stay, [t, in]."""
    made_up: Tensor | float = 1.0
    """By how much those that stay are raised to make up for the others; [t, 1] in float32 where
    members differ in it."""
    dropped_in: torch.dtype | None = None
    """The type in which inputs are left out and raised; None for the type that they have."""
    start: int | None = None
    """The first of the block's tokens in the joint batch; None when all tokens are the block's."""


class StackedLinear(nn.Module):
    """A frozen linear layer, and what the members' adapters add to it.

    ``parts`` are set before each forward and backward. They are all that is other in each layer, so
    that one compiled decoder layer serves for all.
    """

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.parts: tuple[Part, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        """``x`` is [rows, l, in]; returns [rows, l, out]."""
        y: Tensor = self.base(x)
        parts = self.parts
        if not parts:
            return y
        inputs, outputs = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
        if parts[0].start is None:
            return _updated(parts[0], inputs, outputs).view(y.shape)
        pieces, done = [], 0
        for part in parts:
            assert part.start is not None
            where = slice(part.start, part.start + sum(part.spread.tokens))
            pieces.append(outputs[done : where.start])
            pieces.append(_updated(part, inputs[where], outputs[where]))
            done = where.stop
        return torch.cat([*pieces, outputs[done:]]).view(y.shape)


def _updated(part: Part, x: Tensor, y: Tensor) -> Tensor:
    """With the roundings of peft's own forward: after A, after B, after the sum."""
    inputs = _dropped(part, x).to(part.down.dtype)
    match part.way:
        case Way.EQUAL:
            k = part.down.shape[0]
            update = torch.bmm(_narrowed(inputs.view(k, -1, x.shape[-1]), part.down), part.up)
            blocks = y.view(k, -1, y.shape[-1])
            added = torch.addcmul(blocks, update, part.scale.view(-1, 1, 1))
            return added.to(y.dtype).view(y.shape)
        case Way.GROUPED:
            ends = part.spread.ends
            inner = _grouped_mm(inputs, part.down.mT, offs=ends)
            update = _grouped_mm(inner, part.up, offs=ends)
        case Way.BLOCKS:
            k = part.down.shape[0]
            blocks = inputs.index_select(0, part.spread.blocks).view(k, -1, x.shape[-1])
            whole = torch.bmm(_narrowed(blocks, part.down), part.up)
            update = whole.view(-1, y.shape[-1]).index_select(0, part.spread.places)
        case Way.LOOP:
            of_members = inputs.split(part.spread.tokens)
            pairs = zip(of_members, part.down, part.up, strict=True)
            linear = nn.functional.linear
            update = torch.cat([linear(linear(own, down), up.T) for own, down, up in pairs])
    return torch.addcmul(y, update, part.factor).to(y.dtype)


def _narrowed(x: Tensor, down: Tensor) -> Tensor:
    """``x`` [k, m, in] times the transposed ``down`` [k, r, in]; gives [k, m, r]."""
    is_exact = x.dtype is torch.float32  # half precision would round the sum of each piece
    if x.is_cuda and is_exact and x.shape[1] <= _FEW_ROWS and x.shape[2] % _PIECES == 0:
        return narrowed_in_pieces(x, down)
    return torch.bmm(x, down.mT)


def narrowed_in_pieces(x: Tensor, down: Tensor) -> Tensor:
    """As ``torch.bmm(x, down.mT)``, with sums over few inputs each that are added up.

    For few rows cuBLAS keeps a handful of the device's processors busy: of a token of 32 rows, 9.5
    of 14.7 ms were these products (float32, an H200). Here every piece of the inputs is a product of
    its own, of all members with all; each member takes its own block.

    Args:
        x: [k, m, in].
        down: [k, r, in].
    """
    (k, m, width), r = x.shape, down.shape[1]
    pieces = (_PIECES, width // _PIECES)
    of_all = torch.bmm(
        x.reshape(k * m, *pieces).transpose(0, 1), down.reshape(k * r, *pieces).permute(1, 2, 0)
    )
    return of_all.sum(0).view(k, m, k, r).diagonal(dim1=0, dim2=2).permute(2, 0, 1)


class DropInputs(torch.autograd.Function):
    """x * kept * made_up, in one kernel forward and one backward: what a backward of dropout is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor, made_up: float) -> Tensor:
        """``x`` and ``kept`` are [t, in]."""
        ctx.save_for_backward(kept)
        ctx.made_up = made_up
        done: Tensor = torch.ops.aten.native_dropout_backward(x, kept, made_up)
        return done

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The same of the gradient."""
        (kept,) = ctx.saved_tensors
        given = torch.ops.aten.native_dropout_backward(gradients[0], kept, ctx.made_up)
        return given, None, None


def _dropped(part: Part, x: Tensor) -> Tensor:
    """With what dropout leaves out, and the rest raised."""
    if part.kept is None:
        return x
    if isinstance(part.made_up, float) and x.is_cuda and part.down.dtype == x.dtype:
        # A GPU multiplies in float32, so the type that peft raises inputs in makes no difference.
        kept_x: Tensor = DropInputs.apply(x, part.kept, part.made_up)
        return kept_x
    typed = x if part.dropped_in is None else x.to(part.dropped_in)
    return (typed.float() * part.kept * part.made_up).to(typed.dtype)
