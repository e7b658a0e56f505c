"""How do runs that write at the same time share one step a token?

Only the backbone is joint: one step for all rows of all runs, over keys and values that stay where
they are. So on a GPU its kernels are recorded once for these rows and launched at once from then
on. What each run does with what comes out: ``writing``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from rf_notebook.training.fused.layout import positions_of, rows_of

if TYPE_CHECKING:
    from rf_notebook.training.fused.adapters import Stacked
    from rf_notebook.training.fused.request import Forward

#: Columns of keys and values to begin with; twice as many whenever they are full, and whatever was
#: recorded for fewer is recorded again.
_COLUMNS = 256
#: Steps over the same memory before one is recorded, which takes as long as a few of them.
_STEPS_BEFORE = 2
#: Attention that takes a mask as numbers that are added.
ADDS_MASK = ("sdpa", "eager")


@dataclass(slots=True, eq=False)
class NextTokens:
    """What a run asks for that writes: what its newest tokens, or its prompt, mean.

    ``b`` rows; ``v`` is the hidden size.
    """

    member: Any
    prompt: Forward
    """With an empty cache."""
    tokens: Tensor
    """The newest, [b, 1], once the prompt is answered."""
    hidden: Tensor | None = None
    """Of the newest tokens, [b, 1, v]."""
    of_prompts: Tensor | None = None
    """[b]: which row of the prompt's cache each row has; None when they are the same."""
    error: BaseException | None = None
    """Raised in the run instead."""
    is_left_alone: bool = False
    """No joint step answers; the run continues by itself."""


class Columns(DynamicCache):
    """Keys and values [rows, heads, columns, width] of each layer; a step fills one column."""

    def __init__(self, keys: list[Tensor], values: list[Tensor]) -> None:
        """A cache of these tensors.

        Args:
            keys: Of each layer.
            values: Of each layer.
        """
        super().__init__()
        self.keys, self.values = keys, values
        self.at = torch.zeros(1, dtype=torch.long, device=keys[0].device)
        """[1]: the column that is filled next."""

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Fill the column of one layer; returns all of them."""
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        keys.index_copy_(2, self.at, key_states)
        values.index_copy_(2, self.at, value_states)
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many columns there are."""
        return int(self.keys[0].shape[2])


@dataclass(slots=True)
class _Table:
    """All rows that are being written."""

    owners: list[NextTokens]
    columns: Columns
    seen: Tensor
    """[rows, columns] bool: which columns a row attends to."""
    positions: Tensor
    """[rows, 1]: of the newest tokens."""
    filled: int
    """Columns."""
    tokens: Tensor = field(init=False)
    """[rows, 1]: the newest ones."""
    steps: int = field(default=0, init=False)
    """Since the rows or the columns became others."""
    recorded: tuple[Hashable, Callable[[], Tensor]] | None = field(default=None, init=False)
    """For which adapters, and what does the step again."""

    def __post_init__(self) -> None:
        self.tokens = torch.zeros_like(self.positions)

    @property
    def rows(self) -> dict[NextTokens, slice]:
        """Each run's."""
        prompts = [owner.prompt for owner in self.owners]
        return dict(zip(self.owners, rows_of(prompts), strict=True))

    def states(self) -> Iterator[list[Tensor]]:
        """Keys of all layers, and values."""
        yield self.columns.keys
        yield self.columns.values


@dataclass(slots=True)
class JointDecoder:
    """Of one joint model."""

    prefill: Callable[[Sequence[Forward], Stacked], None]
    """Answers prompts and fills their caches."""
    step: Callable[[Sequence[Forward], Stacked, dict[str, Any]], Tensor]
    """The backbone's hidden states [rows, 1, v] of one token a row, from its arguments."""
    record: Callable[[Callable[[], Tensor]], Callable[[], Tensor] | None]
    """What does a step again over the same memory; None where it cannot be recorded."""
    _table: _Table | None = field(default=None, init=False)

    def answer(self, requests: Sequence[NextTokens], stacked: Stacked) -> int:
        """One token further for each; whoever asked before and does not now is done.

        Args:
            requests: In the order of their adapters.
            stacked: Where those lie.

        Returns:
            How many shared a step of one token; the others' prompts were answered.
        """
        before = [] if self._table is None else self._table.owners
        known = [request for request in requests if request in before]
        if self._table is not None and known != before:
            self._table = _of_rows(self._table, known)
        if self._table is not None:
            self._advance(self._table, stacked)
        new = [request for request in requests if request not in known]
        if new:
            prompts = [_distinct(request) for request in new]
            self.prefill(prompts, stacked)
            for request, prompt in zip(new, prompts, strict=True):
                hidden = prompt.result.pop("last_hidden_state")[:, -1:]
                request.hidden = _each(hidden, request.of_prompts)
            self._table = _joined(self._table, new)
        return len(known)

    def _advance(self, table: _Table, stacked: Stacked) -> None:
        if table.filled == table.seen.shape[1]:
            _widen(table, 2 * table.filled, 0)
        table.seen[:, table.filled] = True
        table.columns.at.fill_(table.filled)
        table.positions += 1
        table.filled += 1
        torch.cat([owner.tokens for owner in table.owners], out=table.tokens)
        hidden = self._hidden(table, stacked)
        for owner, where in table.rows.items():
            owner.hidden = hidden[where].clone()  # the next step overwrites it

    def _hidden(self, table: _Table, stacked: Stacked) -> Tensor:
        """Of the newest tokens, [rows, 1, v]."""
        adapters = tuple((id(block), block.version) for block in stacked.blocks)
        if table.recorded is not None and table.recorded[0] == adapters:
            return table.recorded[1]()
        prompts = [owner.prompt for owner in table.owners]

        def step() -> Tensor:
            given = {
                "input_ids": table.tokens,
                "attention_mask": _added(table.seen, table.columns.keys[0].dtype),
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


def _distinct(request: NextTokens) -> Forward:
    """The prompt without rows that are there before: several answers are often asked of one."""
    prompt = request.prompt
    mask = prompt.attention_mask
    given = [prompt.input_ids] if mask is None else [prompt.input_ids, mask]
    rows = torch.cat(given, 1).cpu().numpy()
    _, first, number = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    if len(first) == len(rows):
        return prompt
    device = prompt.input_ids.device
    kept = torch.from_numpy(first).to(device)
    request.of_prompts = torch.from_numpy(number.reshape(-1)).to(device)
    of_distinct = copy.copy(prompt)
    of_distinct.input_ids = prompt.input_ids.index_select(0, kept)
    of_distinct.attention_mask = None if mask is None else mask.index_select(0, kept)
    of_distinct.position_ids = positions_of(prompt).index_select(0, kept)
    return of_distinct


def _each(of_distinct: Tensor, of_prompts: Tensor | None) -> Tensor:
    """Rows of distinct prompts as rows of all."""
    return of_distinct if of_prompts is None else of_distinct.index_select(0, of_prompts)


def _added(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask [rows, 1, 1, columns] as what is added to the products of queries and keys."""
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None, None]


def _of_rows(table: _Table, owners: list[NextTokens]) -> _Table | None:
    """The table with the rows of these alone; None without any."""
    if not owners:
        return None
    rows = table.rows
    kept = torch.cat([torch.arange(rows[one].start, rows[one].stop) for one in owners]).to(
        table.seen.device
    )
    keys, values = ([one.index_select(0, kept) for one in states] for states in table.states())
    return _Table(
        owners,
        Columns(keys, values),
        table.seen.index_select(0, kept),
        table.positions.index_select(0, kept),
        table.filled,
    )


def _widen(table: _Table, columns: int, before: int) -> None:
    """Have so many columns, with empty ones before those that there are.

    Args:
        table: Whose.
        columns: In all.
        before: How many of the empty ones lie before.
    """
    after = columns - before - table.seen.shape[1]
    pad = nn.functional.pad
    for states in table.states():
        states[:] = [pad(one, (0, 0, before, after)) for one in states]
    table.seen = pad(table.seen, (before, after))
    table.filled += before
    table.steps, table.recorded = 0, None


def _joined(table: _Table | None, new: Sequence[NextTokens]) -> _Table:
    """A table with the rows of further runs, whose prompts are answered."""
    prompts = [request.prompt for request in new]
    longest = max(prompt.length for prompt in prompts)
    filled = max(longest, 0 if table is None else table.filled)
    columns = _COLUMNS
    while columns <= filled:
        columns *= 2
    if table is not None:
        _widen(table, max(columns, table.seen.shape[1]), filled - table.filled)
        columns = table.seen.shape[1]
    pad = nn.functional.pad

    def placed(states: Tensor, of_prompts: Tensor | None) -> Tensor:
        length = states.shape[-2]
        whole = pad(states, (0, 0, filled - length, columns - filled))
        return _each(whole, of_prompts)

    made: list[list[Tensor]] = []
    for name in ("keys", "values"):
        caches = [(request.prompt.cache.layers, request.of_prompts) for request in new]
        own = None if table is None else getattr(table.columns, name)
        made.append(
            [
                torch.cat(
                    [
                        *([] if own is None else [own[place]]),
                        *(placed(getattr(layers[place], name), of) for layers, of in caches),
                    ]
                )
                for place in range(len(caches[0][0]))
            ]
        )
    seen, positions = [], []
    for prompt in prompts:
        mask = prompt.attention_mask
        mask = torch.ones_like(prompt.input_ids) if mask is None else mask
        seen.append(pad(mask.bool(), (filled - prompt.length, columns - filled)))
        positions.append(positions_of(prompt)[:, -1:])
        prompt.cache = None
    if table is not None:
        seen.insert(0, table.seen)
        positions.insert(0, table.positions)
    owners = [*([] if table is None else table.owners), *new]
    return _Table(owners, Columns(*made), torch.cat(seen), torch.cat(positions), filled)
