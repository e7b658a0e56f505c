"""How does one linear layer serve the rows of several runs, each with its own low-rank update?

``k`` members of a block, ``t`` tokens a member, ``T`` tokens of a block in all, ``r`` the rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

#: What grouped_mm asks of the strides of its operands, in bytes.
_GROUPED_ALIGNMENT = 16


class Part(NamedTuple):
    """What one block of adapters adds to its rows of one layer's output."""

    start: int
    stop: int
    rows: tuple[int, ...]
    """Of each member that takes part."""
    down: Tensor
    """A of those members, [k, r, in]."""
    up: Tensor
    """B of those members, [k, out, r]."""
    scale: Tensor
    """What each member's update is multiplied by, [k, 1, 1]."""
    kept: Tensor | None
    """Where a member has dropout: which inputs stay, [rows, l, in]."""
    made_up: Tensor | None
    """By how much those that stay are raised to make up for the others, [rows, 1, 1] in float32."""
    dropped_in: torch.dtype | None = None
    """The type in which inputs are left out and raised; None for the type that they have."""


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
        if len(parts) == 1 and parts[0].start == 0 and parts[0].stop == x.shape[0]:
            return _updated(parts[0], x, y)
        pieces, done = [], 0
        for part in parts:
            pieces.append(y[done : part.start])
            pieces.append(_updated(part, x[part.start : part.stop], y[part.start : part.stop]))
            done = part.stop
        return torch.cat([*pieces, y[done:]])


def _updated(part: Part, x: Tensor, y: Tensor) -> Tensor:
    """With the roundings of peft's own forward: after A, after B, after the sum."""
    down, up, scale = part.down, part.up, part.scale
    if part.kept is None or part.made_up is None:
        inputs = x.to(down.dtype)
    else:
        typed = x if part.dropped_in is None else x.to(part.dropped_in)
        inputs = (typed.float() * part.kept * part.made_up).to(typed.dtype).to(down.dtype)
    if len(set(part.rows)) == 1:
        return _batched(inputs, y, down, up, scale)
    if can_group(inputs, down, up):
        return grouped(inputs, y, down, up, scale, [rows * x.shape[1] for rows in part.rows])
    return one_by_one(inputs, y, down, up, scale, part.rows)


def _batched(x: Tensor, y: Tensor, down: Tensor, up: Tensor, scale: Tensor) -> Tensor:
    """All members have equally many tokens: one product over the members for each of A and B."""
    k = down.shape[0]
    update = torch.bmm(torch.bmm(x.reshape(k, -1, x.shape[-1]), down.mT), up.mT)
    return torch.addcmul(y.reshape(k, -1, y.shape[-1]), update, scale).to(y.dtype).view(y.shape)


def can_group(x: Tensor, down: Tensor, up: Tensor) -> bool:
    """Whether grouped_mm can be used: bfloat16 on a GPU, rows of weights aligned."""
    widths = (down.shape[1], down.shape[2], up.shape[1])
    return (
        x.is_cuda
        and x.dtype is torch.bfloat16
        and all(width * 2 % _GROUPED_ALIGNMENT == 0 for width in widths)
    )


def grouped(
    x: Tensor, y: Tensor, down: Tensor, up: Tensor, scale: Tensor, tokens: Sequence[int]
) -> Tensor:
    """Members have different numbers of tokens: one grouped product for each of A and B."""
    counts = torch.tensor(tokens, device=x.device)
    ends = counts.cumsum(0).to(torch.int32)
    inner = nn.functional.grouped_mm(x.reshape(-1, x.shape[-1]), down.mT, offs=ends)
    update = nn.functional.grouped_mm(inner, up.mT, offs=ends)
    factor = scale.view(-1).repeat_interleave(counts, output_size=sum(tokens)).unsqueeze(1)
    return torch.addcmul(y.reshape(-1, y.shape[-1]), update, factor).to(y.dtype).view(y.shape)


def one_by_one(
    x: Tensor, y: Tensor, down: Tensor, up: Tensor, scale: Tensor, rows: Sequence[int]
) -> Tensor:
    """The reference for every other way: a pair of products a member."""
    parts = []
    for part, own, a, b, factor in zip(
        x.split(list(rows)), y.split(list(rows)), down, up, scale, strict=True
    ):
        update = nn.functional.linear(nn.functional.linear(part, a), b)
        parts.append(torch.addcmul(own, update, factor).to(y.dtype))
    return torch.cat(parts)
