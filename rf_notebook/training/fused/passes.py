"""What do the layouts of a joint batch have in common?

``T`` tokens in all, ``v`` the hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor

from rf_notebook.training.fused.layout import tokens_of

if TYPE_CHECKING:
    from rf_notebook.training.fused.adapters import AdapterBlock
    from rf_notebook.training.fused.linear import Part
    from rf_notebook.training.fused.memory_limits import Kept
    from rf_notebook.training.fused.request import Forward


class Output(NamedTuple):
    """A joint result, and which part of it is whose."""

    name: str
    joint: Tensor
    owners: list[tuple[Forward, slice]]


class Tokens(Protocol):
    """Requests whose tokens lie one request's after another's."""

    tokens: Sequence[int]
    """Of each request in the joint batch."""

    def kept(self, path: str, requests: Sequence[Forward]) -> Tensor | None:
        """Which inputs of a layer the dropouts of successive requests keep, [their tokens, in].

        None where none of them has dropout there.
        """


def masks_of(
    path: str, requests: Sequence[Forward], in_rows: Callable[[Tensor], Tensor]
) -> Tensor | None:
    """What the dropouts of requests keep of a layer's inputs, one batch after another.

    None where none of them has dropout there.

    Args:
        path: The layer's.
        requests: In their order.
        in_rows: Pads a mask [b, l, in] to the rows of the joint batch.
    """
    given = [request.kept.get(path) for request in requests]
    like = next((mask for mask in given if mask is not None), None)
    if like is None:
        return None
    masks = [
        like.new_ones(request.rows, request.length, like.shape[-1]) if mask is None else mask
        for mask, request in zip(given, requests, strict=True)
    ]
    return torch.cat([in_rows(mask).flatten(0, 1) for mask in masks])


class JointPass(Tokens, Protocol):
    """Requests laid out for one pass of the backbone."""

    shape: Hashable
    """Equal for passes that one compiled layer serves."""
    sizes: Hashable
    """Equal for those whose tensors have the same sizes; None where the shape says so already."""

    def arguments(self, backbone: Any) -> dict[str, Any]:
        """What the backbone's forward is given."""

    def outputs(self, hidden: Tensor) -> Iterator[Output]:
        """What the requests asked for, from the backbone's hidden states."""

    def give(self, output: Output) -> None:
        """Hand every run what is its own, as a leaf where a gradient may come back."""


class Running(Protocol):
    """The backbone's part of a joint pass that was replayed and has its backward still to come."""

    hidden: Tensor
    """[1, T, v], a leaf."""

    def backward(self, gradient: Tensor) -> None:
        """From the gradient of ``hidden`` into the members'."""

    def let_go(self) -> None:
        """Others may be replayed."""


@dataclass(slots=True, eq=False)
class Graph:
    """A joint forward whose backward is still to come."""

    requests: list[Forward]
    kept: Kept
    parts: dict[str, list[Part]] = field(default_factory=dict)
    """By layer: what the blocks add to it."""
    leaves: list[tuple[AdapterBlock, list[Tensor]]] = field(default_factory=list)
    """The weights that the backward ends at, by block."""
    outputs: list[Output] = field(default_factory=list)
    """Empty when they were let go."""
    running: Running | None = None
    """The backbone's part, where that is a recording."""

    @property
    def tokens(self) -> int:
        """By which its memory is measured."""
        return tokens_of(self.requests) if self.outputs else 0

    def let_go(self) -> None:
        """Free what the backward would have needed."""
        self.outputs.clear()
        if self.running is not None:
            self.running.let_go()

    def backward(self) -> None:
        """Go on from the leaves where the runs' own backwards ended, into the members' gradients."""
        tensors, gradients = [], []
        for name, joint, owners in self.outputs:
            given = [(request.leaves[name].grad, where) for request, where in owners]
            if all(gradient is None for gradient, _ in given):
                continue
            whole = torch.zeros_like(joint)
            for gradient, where in given:
                if gradient is not None:
                    mine = whole[where]
                    (mine if mine.dim() == 1 else mine[:, : gradient.shape[1]]).copy_(gradient)
            tensors.append(joint)
            gradients.append(whole)
        if tensors and self.running is not None:
            (found,) = torch.autograd.grad(tensors, [self.running.hidden], gradients)
            self.running.backward(found)
        elif tensors:
            leaves = [leaf for _, of_block in self.leaves for leaf in of_block]
            ends = iter(torch.autograd.grad(tensors, leaves, gradients, allow_unused=True))
            for block, of_block in self.leaves:
                block.add_gradients([next(ends) for _ in of_block])
        self.let_go()
