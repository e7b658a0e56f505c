"""When are the layers of a joint model compiled?

All decoder layers run the same code on tensors of the same shapes, so one of them is compiled for each shape of a joint
batch and serves for all. Compiling takes seconds, so a shape is compiled when it has come often enough.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn


class CompiledLayers:
    """The decoder layers of one joint model."""

    #: Joint forwards of a shape before it is compiled; None never compiles.
    after: int | None = None
    #: Shapes that are compiled at most.
    most = 6

    def __init__(self, tree: Any, backbone: nn.Module) -> None:
        names = set(getattr(tree, "_no_split_modules", None) or ())
        self._layers = [module for module in backbone.modules() if type(module).__name__ in names]
        self._seen: Counter[Any] = Counter()
        self._shapes: set[Any] = set()

    def choose(self, shape: Any, *, needs_grad: bool, recomputes: bool) -> None:
        """Let the layers be compiled for a joint batch of this shape, or not."""
        is_compiled = needs_grad and not recomputes and self._is_due(shape)
        for layer in self._layers:
            if is_compiled:
                if layer._compiled_call_impl is None:
                    layer.compile(dynamic=False)
            else:
                layer._compiled_call_impl = None

    def _is_due(self, shape: Any) -> bool:
        if self.after is None or not torch.cuda.is_available():
            return False
        if shape in self._shapes:
            return True
        self._seen[shape] += 1
        if self._seen[shape] <= self.after or len(self._shapes) >= self.most:
            return False
        self._shapes.add(shape)
        return True
