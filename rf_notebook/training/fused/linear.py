"""How does one linear layer serve the rows of several runs, each with its own low-rank update?

``k`` members of a block, ``t`` tokens a member, ``T`` tokens of a block in all, ``r`` the rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

#: What grouped_mm asks of the strides of its operands, in bytes.
_GROUPED_ALIGNMENT = 16


@dataclass(frozen=True, slots=True)
class BlockRows:
    """The rows of a joint batch that belong to the members of one block."""

    start: int
    stop: int
    rows: tuple[int, ...]
    """Of each member that takes part."""
    members: tuple[int, ...] | None
    """Which members of the block take part; None for all, in their order."""
    weights: Mapping[str, tuple[Tensor, Tensor]]
    """By layer: A [k, r, in] and B [k, out, r]."""
    scales: Mapping[str, Tensor]
    """By layer: what each member's update is multiplied by, [k, 1, 1]."""
    kept: Mapping[str, Tensor]
    """By layer, where a member has dropout: which inputs stay, [rows, l, in]."""


@dataclass(slots=True)
class Routing:
    """Which rows of the joint batch belong to whom; read by every layer, set before each forward and backward."""

    blocks: Sequence[BlockRows] = ()
    order: list[str] = field(default_factory=list)
    """While a forward is watched: the layers in the order of their use."""


class StackedLinear(nn.Module):
    """A frozen linear layer, and what the members' adapters add to it."""

    def __init__(self, base: nn.Module, path: str, routing: Routing) -> None:
        super().__init__()
        self.base = base
        self.path = path
        self.routing = routing

    def forward(self, x: Tensor) -> Tensor:
        """``x`` is [rows, l, in]; returns [rows, l, out]."""
        y: Tensor = self.base(x)
        blocks = self.routing.blocks
        if not any(self.path in block.weights for block in blocks):
            return y
        if len(blocks) == 1 and blocks[0].start == 0 and blocks[0].stop == x.shape[0]:
            return self._updated(blocks[0], x, y)
        parts, done = [], 0
        for block in blocks:
            parts.append(y[done : block.start])
            part = y[block.start : block.stop]
            is_adapted = self.path in block.weights
            parts.append(self._updated(block, x[block.start : block.stop], part) if is_adapted else part)
            done = block.stop
        return torch.cat([*parts, y[done:]])

    def _updated(self, block: BlockRows, x: Tensor, y: Tensor) -> Tensor:
        down, up = block.weights[self.path]
        kept = block.kept.get(self.path)
        dtype = down.dtype
        inputs = x.to(dtype)
        if kept is not None:
            inputs = inputs * kept
        scale = block.scales[self.path].to(dtype)
        if block.members is not None:
            index = torch.tensor(block.members, device=x.device)
            down, up, scale = down[index], up[index], scale[index]
        if len(set(block.rows)) == 1:
            return _batched(inputs, y, down, up, scale)
        tokens = [rows * x.shape[1] for rows in block.rows]
        if _groups(inputs, down, up):
            return _grouped(inputs, y, down, up, scale, tokens)
        return _one_by_one(inputs, y, down, up, scale, block.rows)


def _batched(x: Tensor, y: Tensor, down: Tensor, up: Tensor, scale: Tensor) -> Tensor:
    """All members have equally many tokens: one product over the members for each of A and B."""
    k = down.shape[0]
    inner = torch.bmm(x.reshape(k, -1, x.shape[-1]), down.mT) * scale
    flat = y.reshape(k, -1, y.shape[-1])
    if flat.dtype == inner.dtype:
        return torch.baddbmm(flat, inner, up.mT).view(y.shape)
    return (flat + torch.bmm(inner, up.mT)).to(y.dtype).view(y.shape)


def _groups(x: Tensor, down: Tensor, up: Tensor) -> bool:
    """Whether grouped_mm can be used: bfloat16 on a GPU, rows of weights aligned."""
    widths = (down.shape[1], down.shape[2], up.shape[1])
    return x.is_cuda and x.dtype is torch.bfloat16 and all(width * 2 % _GROUPED_ALIGNMENT == 0 for width in widths)


def _grouped(x: Tensor, y: Tensor, down: Tensor, up: Tensor, scale: Tensor, tokens: Sequence[int]) -> Tensor:
    """Members have different numbers of tokens: one grouped product for each of A and B."""
    counts = torch.tensor(tokens, device=x.device)
    ends = counts.cumsum(0).to(torch.int32)
    inner = nn.functional.grouped_mm(x.reshape(-1, x.shape[-1]), down.mT, offs=ends)
    inner = inner * scale.view(-1).repeat_interleave(counts, output_size=sum(tokens)).unsqueeze(1)
    delta = nn.functional.grouped_mm(inner, up.mT, offs=ends)
    return (y.reshape(-1, y.shape[-1]) + delta).to(y.dtype).view(y.shape)


def _one_by_one(x: Tensor, y: Tensor, down: Tensor, up: Tensor, scale: Tensor, rows: Sequence[int]) -> Tensor:
    """The reference for every other way: a pair of products a member."""
    parts = []
    for part, own, a, b, factor in zip(x.split(list(rows)), y.split(list(rows)), down, up, scale, strict=True):
        update = nn.functional.linear(nn.functional.linear(part, a) * factor, b)
        parts.append((own + update).to(y.dtype))
    return torch.cat(parts)
