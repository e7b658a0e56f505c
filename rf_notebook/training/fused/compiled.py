"""When are the layers of a joint model compiled?

All decoder layers run the same code on tensors of the same shapes, so one of them is compiled and
serves for all. Packed batches of whatever sizes share one program; while all have the same sizes
they have one for these alone, which is faster. Padded ones have a program for each shape. Compiling
holds the group up for some twenty seconds, so it has to be worth it.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections import Counter, deque
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn

#: Seconds that compiling takes, and the share of a step that it saves. Two programs, of which one is
#: left (see ``_as_within``), took 20 to 34 s and saved 0.27 to 0.43 for supervised fine-tuning, 0.11
#: for DPO (benchmarks/results/real-*-cuda.json, an H100).
_COST, _SAVED = 15.0, 0.25
#: Joint forwards of a shape that are timed first.
_TIMED = 8
#: Shapes that are compiled at most; torch itself gives up beyond eight.
_MOST_SHAPES = 6


class CompiledLayers:
    """The decoder layers of one joint model."""

    always_after: int | None = None
    """For benchmarks: joint forwards of a shape after which it is compiled, worth it or not."""

    def __init__(self, tree: Any, backbone: nn.Module, log: logging.Logger) -> None:
        if hasattr(tree, "get_input_embeddings"):
            tree.get_input_embeddings().register_forward_hook(self._as_within)
        names = set(getattr(tree, "_no_split_modules", None) or ())
        self._layers = [module for module in backbone.modules() if type(module).__name__ in names]
        self._log = log
        self._seen: Counter[Hashable] = Counter()
        self._shapes: set[Hashable] = set()
        self._sizes: dict[Hashable, Hashable] = {}
        """Of the first batch of a shape."""
        self._mixed: set[Hashable] = set()
        """Shapes whose batches have had several sizes."""
        self._seconds: deque[float] = deque(maxlen=_TIMED)
        """Between the newest joint forwards."""
        self._last: float | None = None
        self.is_dynamic = False
        """What the layers were last compiled for."""
        self._is_possible = torch.cuda.is_available() and bool(self._layers)
        self.is_on = False
        self.forwards_left = 0
        """Joint forwards that are still to come at most."""

    def choose(self, shape: Hashable, *, is_dynamic: bool = False, sizes: Hashable = None) -> None:
        """Let the layers be compiled for a joint batch, or not.

        Args:
            shape: Equal for batches that one program serves; None for one that none is compiled
                for.
            is_dynamic: Whether batches of this shape may differ in their sizes.
            sizes: This batch's, where a program for these alone would be faster.
        """
        if shape is not None and sizes is not None and self._has_its_own(shape, sizes):
            shape, is_dynamic = (shape, sizes), False
        self.is_on = self._is_possible and shape is not None and self._is_due(shape)
        is_other, self.is_dynamic = is_dynamic != self.is_dynamic, is_dynamic
        for layer in self._layers:
            if not self.is_on:
                layer._compiled_call_impl = None  # noqa: SLF001 - torch's own way to undo a compile
            elif layer._compiled_call_impl is None or is_other:  # noqa: SLF001 - torch's own way to undo a compile
                layer.compile(dynamic=is_dynamic)

    def _as_within(self, _module: nn.Module, _inputs: object, embedded: Tensor) -> None:
        """The first layer's inputs ask for a gradient like the others', so that one program serves."""
        if self.is_on and torch.is_grad_enabled() and embedded.is_leaf:
            embedded.requires_grad_()

    def give_up(self, error: Exception) -> bool:
        """Compile no more after an error.

        False when nothing was compiled, and the error is another's.
        """
        if not self.is_on:
            return False
        self._log.warning("compiling failed, joint steps continue without: %r", error)
        self._is_possible = False
        return True

    def _has_its_own(self, shape: Hashable, sizes: Hashable) -> bool:
        """Whether a batch has a program of its own sizes: all before it had them, or it is compiled."""
        first = self._sizes.setdefault(shape, sizes)
        if (shape, sizes) in self._shapes:
            return True
        if sizes != first and shape not in self._mixed:
            self._mixed.add(shape)
            if (shape, first) not in self._shapes:
                self._seen[shape] += self._seen.pop((shape, first), 0)
        return shape not in self._mixed

    def _is_due(self, shape: Hashable) -> bool:
        now = time.perf_counter()
        if self._last is not None:
            self._seconds.append(now - self._last)
        self._last = now
        self._seen[shape] += 1
        if shape in self._shapes:
            return True
        if len(self._shapes) >= _MOST_SHAPES or not self._is_worth_it(shape):
            return False
        self._shapes.add(shape)
        self._last = None
        self._log.info("compiling the layers for joint batches: %s", shape)
        return True

    def _is_worth_it(self, shape: Hashable) -> bool:
        seen, total = self._seen[shape], self._seen.total()
        if self.always_after is not None:
            return seen > self.always_after
        if seen < _TIMED:
            return False
        to_come = self.forwards_left * seen / total
        # The median: an evaluation, a checkpoint and a first kernel lie between two forwards, too.
        return to_come * statistics.median(self._seconds) * _SAVED > _COST
