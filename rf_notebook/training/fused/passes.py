"""What do the layouts of a joint batch have in common?

``T`` tokens in all, ``v`` the hidden size.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
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

    def kept(self, path: str, request: Forward) -> Tensor | None:
        """Which inputs of a layer a request's dropout keeps, [its tokens, in]; None for all."""


class JointPass(Tokens, Protocol):
    """Requests laid out for one pass of the backbone."""

    shape: Hashable
    """Equal for passes that one compiled layer serves."""

    def arguments(self, backbone: Any) -> dict[str, Any]:
        """What the backbone's forward is given."""

    def outputs(self, hidden: Tensor) -> Iterator[Output]:
        """What the requests asked for, from the backbone's hidden states."""

    def give(self, output: Output) -> None:
        """Hand every run what is its own, as a leaf where a gradient may come back."""


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

    @property
    def tokens(self) -> int:
        """By which its memory is measured."""
        return tokens_of(self.requests) if self.outputs else 0

    def let_go(self) -> None:
        """Free what the backward would have needed."""
        self.outputs.clear()

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
        if tensors:
            leaves = [leaf for _, of_block in self.leaves for leaf in of_block]
            found = iter(torch.autograd.grad(tensors, leaves, gradients, allow_unused=True))
            for block, of_block in self.leaves:
                block.add_gradients([next(found) for _ in of_block])
        self.let_go()
