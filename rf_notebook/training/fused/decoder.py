"""How do runs that write at the same time share one step a token?

Only the backbone is joint: one step for all rows of all runs, over keys and values that stay where
they are. So on a GPU its kernels are recorded once for these rows and launched at once from then
on. What each run does with what comes out: ``writing``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from rf_notebook.training import memory
from rf_notebook.training.fused.table import Table, added, columns_for, distinct, each, joined

if TYPE_CHECKING:
    from rf_notebook.training.fused.adapters import Stacked
    from rf_notebook.training.fused.request import Forward, NextTokens

#: Steps over the same memory before one is recorded, which takes as long as a few of them.
_STEPS_BEFORE = 2
#: Tokens that have to be left to write where rows that ended are to be left out of the steps, by
#: type of device: a GPU records the step of fewer rows anew.
_TOKENS_TO_PAY = {"cuda": 64}
#: The share of the free memory that keys and values may take.
_SHARE = 0.75
#: Attention that takes a mask as numbers that are added.
ADDS_MASK = ("sdpa", "eager")


@dataclass(slots=True)
class JointDecoder:
    """Of one joint model."""

    prefill: Callable[[Sequence[Forward], Stacked], None]
    """Answers prompts and fills their caches."""
    step: Callable[[Sequence[Forward], Stacked, dict[str, Any]], Tensor]
    """The backbone's hidden states [rows, 1, v] of one token a row, from its arguments."""
    record: Callable[[Callable[[], Tensor]], Callable[[], Tensor] | None]
    """What does a step again over the same memory; None where it cannot be recorded."""
    free_bytes: Callable[[], float]
    """What can be allocated now."""
    token_bytes: float
    """Of the keys and values of one token."""
    log: logging.Logger
    _table: Table | None = field(default=None, init=False)
    _is_full: bool = field(default=False, init=False)
    """Whether somebody has to wait until one of those who write now, or half of their rows, ended."""

    def answer(
        self, requests: Sequence[NextTokens], stacked: Stacked
    ) -> tuple[list[NextTokens], int]:
        """One token further for each for which there is room.

        Whoever asked before and does not now is done.

        Args:
            requests: In the order of their adapters.
            stacked: Where those lie.

        Returns:
            The requests that were answered, the others are to be asked again; and how many shared a
            step of one token, for the others' prompts were answered.
        """
        before = [] if self._table is None else self._table.owners
        known = [request for request in requests if request in before]
        if self._table is not None and (known != before or self._is_worth_leaving_out(self._table)):
            self._table, self._is_full = self._table.only(known), False
        if self._table is not None:
            self._table.advance()
            self._table.give(self._hidden(self._table, stacked))
        begun = self._begin([one for one in requests if one not in known], stacked)
        return [*known, *begun], len(known)

    def _begin(self, new: Sequence[NextTokens], stacked: Stacked) -> list[NextTokens]:
        """Answer the prompts of those for which there is room; returns them.

        When there is room for nobody, and nobody writes, the first is left alone.
        """
        if not new or (self._is_full and self._table is not None):
            return []
        asked = self._with_room(new)
        while asked:
            prompts = [distinct(request) for request in asked]
            try:
                self.prefill(prompts, stacked)
            except torch.OutOfMemoryError as error:
                error.__traceback__ = None
                self.log.info("%d prompts do not fit together", len(prompts))
                for request in asked:
                    request.prompt.cache, request.of_prompts = DynamicCache(), None
                memory.collect()
                self._is_full = True
                asked = asked[: len(asked) // 2]
                continue
            for request, prompt in zip(asked, prompts, strict=True):
                hidden = prompt.result.pop("last_hidden_state")[:, -1:]
                request.hidden = each(hidden, request.of_prompts)
            self._table = joined(self._table, asked)
            return asked
        if self._table is None:
            new[0].is_left_alone = True
            return [new[0]]
        return []

    def _with_room(self, new: Sequence[NextTokens]) -> list[NextTokens]:
        """Those whose keys and values fit beside what there is, until the last of their tokens."""
        free = _SHARE * self.free_bytes()
        chosen: list[NextTokens] = []
        rows = 0 if self._table is None else self._table.rows
        there = 0 if self._table is None else rows * self._table.seen.shape[1] * self.token_bytes
        longest = 0 if self._table is None else max(one.most for one in self._table.owners)
        for request in new:
            most = max(longest, request.most, request.prompt.length)
            needed = (rows + request.prompt.rows) * columns_for(most) * self.token_bytes
            if needed - there <= free:
                chosen.append(request)
                rows, longest = rows + request.prompt.rows, most
        self._is_full = len(chosen) < len(new)
        if self._is_full:
            self.log.info(
                "%d of %d runs write first: there is no room for the keys and values of all",
                len(chosen),
                len(new),
            )
        return chosen

    def _is_worth_leaving_out(self, table: Table) -> bool:
        """Whether the rows that ended are half of all, and enough is left to write."""
        to_come = max(one.most or math.inf for one in table.owners) - table.filled
        pays = to_come >= _TOKENS_TO_PAY.get(table.seen.device.type, 1)
        return pays and 2 * table.left() <= table.rows

    def _hidden(self, table: Table, stacked: Stacked) -> Tensor:
        """Of the newest tokens, [rows, 1, v]."""
        adapters = tuple((id(block), block.version) for block in stacked.blocks)
        if table.recorded is not None and table.recorded[0] == adapters:
            return table.recorded[1]()
        prompts = table.prompts

        def step() -> Tensor:
            given = {
                "input_ids": table.tokens,
                "attention_mask": added(table.seen, table.columns.keys[0].dtype),
                "position_ids": table.positions,
                "past_key_values": table.columns,
                "use_cache": True,
            }
            return self.step(prompts, stacked, given)

        table.steps += 1
        again = self.record(step) if table.steps > _STEPS_BEFORE else None
        if again is None:
            return step()
        table.recorded = adapters, again
        return again()
