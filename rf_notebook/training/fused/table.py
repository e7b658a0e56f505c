"""Where do the keys and values of rows lie that are being written, and which rows are those?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from rf_notebook.training.fused.layout import positions_of, rows_of
from rf_notebook.training.fused.transfer import on_device

if TYPE_CHECKING:
    from rf_notebook.training.fused.request import Forward, NextTokens
    from rf_notebook.training.fused.sizes import IntArray

#: Columns of keys and values to begin with; twice as many whenever they are full, and whatever was
#: recorded for fewer is recorded again.
_COLUMNS = 256


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
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object, **__: object
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
class RunRows:
    """The rows of one run that are still written."""

    owner: NextTokens
    prompt: Forward
    """With these rows alone."""
    numbers: IntArray | None = None
    """Which of the run's rows they are; None for all."""
    index: Tensor | None = None
    """The same on the device."""

    def left(self) -> IntArray:
        """Which of these rows have not ended, as far as the host knows.

        One stays until the run itself is done.
        """
        everyone = np.arange(self.prompt.rows)
        if self.owner.left is None or self.owner.left.known is None:
            return everyone
        known = self.owner.left.known
        here = np.flatnonzero(known if self.numbers is None else known[self.numbers])
        return here if len(here) else everyone[:1]

    def only(self, places: IntArray) -> RunRows:
        """Some of these rows."""
        if len(places) == self.prompt.rows:
            return self
        numbers = places if self.numbers is None else self.numbers[places]
        ids = self.owner.prompt.input_ids
        (index,) = on_device([numbers], ids.device)
        prompt = copy.copy(self.prompt)
        prompt.input_ids = ids.index_select(0, index)
        return RunRows(self.owner, prompt, numbers, index)

    def tokens(self) -> Tensor:
        """The newest ones, [rows, 1]."""
        tokens = self.owner.tokens
        return tokens if self.index is None else tokens.index_select(0, self.index)

    def give(self, hidden: Tensor) -> None:
        """Answer the run with the hidden states [rows, 1, v] of these rows, zeros for the others."""
        if self.index is None:
            self.owner.hidden = hidden.clone()  # the next step overwrites it
            return
        whole = hidden.new_zeros(len(self.owner.tokens), *hidden.shape[1:])
        self.owner.hidden = whole.index_copy_(0, self.index, hidden)


@dataclass(slots=True)
class Table:
    """All rows that are being written."""

    parts: list[RunRows]
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
    def owners(self) -> list[NextTokens]:
        """Whose rows there are, in their order."""
        return [part.owner for part in self.parts]

    @property
    def prompts(self) -> list[Forward]:
        """Of the rows that there are."""
        return [part.prompt for part in self.parts]

    @property
    def rows(self) -> int:
        """How many there are."""
        return int(self.positions.shape[0])

    def left(self) -> int:
        """How many rows have not ended, as far as the host knows."""
        return sum(len(part.left()) for part in self.parts)

    def advance(self) -> None:
        """Make room for the newest tokens, and take them in."""
        if self.filled == self.seen.shape[1]:
            self.widen(2 * self.filled, 0)
        self.seen[:, self.filled] = True
        self.columns.at.fill_(self.filled)
        self.positions += 1
        self.filled += 1
        torch.cat([part.tokens() for part in self.parts], out=self.tokens)

    def give(self, hidden: Tensor) -> None:
        """Answer each run with its rows of [rows, 1, v]."""
        for part, where in zip(self.parts, rows_of(self.prompts), strict=True):
            part.give(hidden[where])

    def only(self, owners: Sequence[NextTokens]) -> Table | None:
        """The rows of these runs, in their order, that have not ended; None without any."""
        if not owners:
            return None
        found = {
            part.owner: (part, where)
            for part, where in zip(self.parts, rows_of(self.prompts), strict=True)
        }
        left = {owner: found[owner][0].left() for owner in owners}
        places = np.concatenate([found[owner][1].start + left[owner] for owner in owners])
        (kept,) = on_device([places], self.seen.device)
        for states in self._states():
            for place, one in enumerate(states):
                states[place] = one.index_select(0, kept)
        return Table(
            [found[owner][0].only(left[owner]) for owner in owners],
            Columns(self.columns.keys, self.columns.values),
            self.seen.index_select(0, kept),
            self.positions.index_select(0, kept),
            self.filled,
        )

    def widen(self, columns: int, before: int) -> None:
        """Have so many columns, with empty ones before those that there are.

        Args:
            columns: In all.
            before: How many of the empty ones lie before.
        """
        after = columns - before - self.seen.shape[1]
        pad = nn.functional.pad
        for states in self._states():
            for place, one in enumerate(states):
                states[place] = pad(one, (0, 0, before, after))
        self.seen = pad(self.seen, (before, after))
        self.filled += before
        self.steps, self.recorded = 0, None

    def _states(self) -> Iterator[list[Tensor]]:
        """Keys of all layers, and values."""
        yield self.columns.keys
        yield self.columns.values


def columns_for(tokens: int) -> int:
    """How many columns there are when a row has so many tokens, and one comes."""
    columns = _COLUMNS
    while columns <= tokens:
        columns *= 2
    return columns


def joined(table: Table | None, new: Sequence[NextTokens]) -> Table:
    """A table with the rows of further runs, whose prompts are answered; the old one is used up."""
    prompts = [request.prompt for request in new]
    longest = max(prompt.length for prompt in prompts)
    filled = max(longest, 0 if table is None else table.filled)
    columns = columns_for(filled)
    if table is not None:
        table.widen(max(columns, table.seen.shape[1]), filled - table.filled)
        columns = table.seen.shape[1]
    pad = nn.functional.pad

    def placed(states: Tensor, of_prompts: Tensor | None) -> Tensor:
        length = states.shape[-2]
        whole = pad(states, (0, 0, filled - length, columns - filled))
        return each(whole, of_prompts)

    made: list[list[Tensor]] = []
    for name in ("keys", "values"):
        caches = [(request.prompt.cache.layers, request.of_prompts) for request in new]
        own = None if table is None else getattr(table.columns, name)
        states: list[Tensor] = []
        for place in range(len(caches[0][0])):
            more = [placed(getattr(layers[place], name), of) for layers, of in caches]
            states.append(torch.cat([*([] if own is None else [own[place]]), *more]))
            if own is not None:
                own[place] = states[place]  # so that only one layer is there twice
        made.append(states)
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
    parts = [] if table is None else table.parts
    parts = [*parts, *(RunRows(request, request.prompt) for request in new)]
    return Table(parts, Columns(*made), torch.cat(seen), torch.cat(positions), filled)


def distinct(request: NextTokens) -> Forward:
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


def each(of_distinct: Tensor, of_prompts: Tensor | None) -> Tensor:
    """Rows of distinct prompts as rows of all."""
    return of_distinct if of_prompts is None else of_distinct.index_select(0, of_prompts)


def added(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask [rows, 1, 1, columns] as what is added to the products of queries and keys."""
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None, None]
