"""A joint batch end to end: every request's tokens after those of the one before, without padding.

Only labelled tokens go through the head.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rf_notebook.training.fused.attention import AttentionWay, attention_arguments
from rf_notebook.training.fused.dropout import Counted, masks_at
from rf_notebook.training.fused.passes import Output, masks_of
from rf_notebook.training.fused.transfer import on_device

if TYPE_CHECKING:
    from rf_notebook.training.fused.head import Head
    from rf_notebook.training.fused.request import Forward
    from rf_notebook.training.fused.sizes import IntArray

#: On a GPU: tokens to which a request's are filled up, which its products want, and all of them,
#: so that the allocator sees few sizes.
_ALIGNMENT, _WHOLE_ALIGNMENT = 8, 256
#: Sizes of large batches from zero to the next power of two: further ones would leave the
#: allocator ever more gaps.
_FEWEST_SIZES = 32
#: What the longest sequence is rounded up to, so that few programs are compiled.
_LENGTH_ALIGNMENT = 128
#: Room for sequences and for the tokens of the longest that costs nothing; a kernel that takes
#: sequences as they lie skips what is not there.
_FEWEST_SEQUENCES = 8
_SHORTEST_ROOM = {AttentionWay.VARLEN: 1024, AttentionWay.ROWS: 256}


class Room(NamedTuple):
    """What a batch is filled up to, so that few sizes occur."""

    tokens: int
    sequences: int
    longest: int
    """Tokens of the longest sequence."""

    @classmethod
    def of(cls, requests: Sequence[Forward], attention: AttentionWay) -> Room:
        """For requests whose sizes are known.

        There are four numbers of tokens from one power of two to the next.
        """
        sizes = [request.sizes for request in requests if request.sizes is not None]
        own = sum(one.tokens for one in sizes)
        total = sum(-(-one.tokens // _ALIGNMENT) * _ALIGNMENT for one in sizes)
        step = max(_WHOLE_ALIGNMENT // 2, _power_of_two(total) // 8)
        tokens = -(-total // step) * step
        sequences = sum(len(one.lengths) for one in sizes) + len(sizes)  # each may be filled up
        longest = max(*(one.longest for one in sizes), tokens - own)
        return cls(
            tokens,
            max(_FEWEST_SEQUENCES, _power_of_two(sequences)),
            max(_SHORTEST_ROOM[attention], _power_of_two(longest)),
        )


def _power_of_two(least: int) -> int:
    """The smallest one that is not below."""
    return 1 << max(0, least - 1).bit_length()


@dataclass(slots=True)
class _Labelled:
    """The labelled tokens of the requests with one head."""

    head: Head
    requests: list[Forward]
    counts: list[int]
    """Of each request."""
    before: Tensor
    """[n]: the tokens before them in the joint batch."""
    targets: Tensor
    """[n]: where they are among all labels."""
    places: Tensor
    """[n]: where each is in its run's own result."""


class PackedPass:
    """See JointPass."""

    shape: Hashable = "packed rows"

    def __init__(
        self, requests: Sequence[Forward], way: AttentionWay, room: Room | None = None
    ) -> None:
        """Lay requests out; nothing waits for the device.

        Args:
            requests: Their sizes are known.
            way: How their tokens attend.
            room: What they are filled up to.
        """
        self.requests = list(requests)
        self._device = requests[0].input_ids.device
        self._way = way
        self.tokens: Sequence[int] = []
        self._spans: list[slice] = []
        """Of each request's own tokens in the joint batch."""
        self._masks: dict[int, dict[str, Tensor]] = {}
        """What dropouts keep by layer, by the first request of a block."""
        self._offsets = np.cumsum(
            [0, *(request.rows * request.length for request in requests)], dtype=np.int64
        )
        """Where each request's batch begins among all batches, padding included."""
        source, positions, lengths = self._laid_out(room)
        longest = int(lengths.max())
        if room is not None:
            lengths = np.append(lengths, np.zeros(room.sequences - len(lengths), dtype=np.int64))
            longest = room.longest
        elif way is AttentionWay.VARLEN:
            longest = -(-longest // _LENGTH_ALIGNMENT) * _LENGTH_ALIGNMENT
        ends = np.append(0, np.cumsum(lengths))
        heads = self._by_head()
        arrays = [source, positions, ends, *self._rows(lengths, longest)]
        for _, numbers in heads:
            arrays += self._labels(numbers)
        made = iter(on_device(arrays, self._device))
        self._source, self._positions, ends_T = next(made), next(made), next(made)
        to_rows, from_rows = (
            (None, None) if way is AttentionWay.VARLEN else (next(made), next(made))
        )
        self._attention = attention_arguments(ends_T.int(), longest, to_rows, from_rows)
        self.sizes: Hashable = (tuple(self.tokens), longest, len(lengths))
        self._heads = [
            _Labelled(
                head,
                [self.requests[number] for number in numbers],
                [len(self.requests[number].labelled()) for number in numbers],
                next(made),
                next(made),
                next(made),
            )
            for head, numbers in heads
        ]

    def arguments(self, backbone: Any) -> dict[str, Any]:
        """See JointPass."""
        given: dict[str, Any] = {
            "attention_mask": None,
            "position_ids": self._positions.unsqueeze(0),
            "use_cache": False,
            **self._attention,
        }
        requests = self.requests
        if any(request.embeddings is not None for request in requests):
            embed = backbone.get_input_embeddings()
            of_runs = [
                r.embeddings if r.embeddings is not None else embed(r.input_ids) for r in requests
            ]
            flat = torch.cat([one.flatten(0, 1) for one in of_runs])
            return given | {"inputs_embeds": flat.index_select(0, self._source).unsqueeze(0)}
        ids = torch.cat([request.input_ids.flatten() for request in requests])
        return given | {"input_ids": ids.index_select(0, self._source).unsqueeze(0)}

    def kept(self, path: str, requests: Sequence[Forward]) -> Tensor | None:
        """See JointPass."""
        first = self.requests.index(requests[0])
        if first not in self._masks:
            self._masks[first] = self._all_kept(first, requests)
        return self._masks[first].get(path)

    def _all_kept(self, first: int, requests: Sequence[Forward]) -> dict[str, Tensor]:
        """By layer, of successive requests."""
        last = first + len(requests) - 1
        start, stop = self._spans[first].start, self._spans[last].start + self.tokens[last]
        paths = list(dict.fromkeys(path for request in requests for path in request.kept))
        runs = [request.kept if isinstance(request.kept, Counted) else None for request in requests]
        if any(request.kept and run is None for run, request in zip(runs, requests, strict=True)):
            here = self._source[start:stop] - int(self._offsets[first])
            masks = {path: masks_of(path, requests, lambda mask: mask) for path in paths}
            return {
                path: one.index_select(0, here) for path, one in masks.items() if one is not None
            }
        if not paths:
            return {}
        counts = [self.tokens[number] for number in range(first, last + 1)]
        number = np.repeat(np.arange(len(requests)), counts)
        offsets = self._offsets[first : last + 1].repeat(counts)
        owners, before = on_device([number, offsets], self._device)
        return masks_at(runs, paths, self._source[start:stop] - before, owners)

    def outputs(self, hidden: Tensor) -> Iterator[Output]:
        """See JointPass."""
        flat = hidden[0]
        plain = [
            (request, span)
            for request, span in zip(self.requests, self._spans, strict=True)
            if request.labels is None or request.head is None
        ]
        if plain:
            yield Output("last_hidden_state", flat, plain)
        if not self._heads:
            return
        labels = torch.cat(
            [
                request.input_ids.flatten() if request.labels is None else request.labels.flatten()
                for request in self.requests
            ]
        )
        for one in self._heads:
            found = one.head.score(
                flat.index_select(0, one.before), labels.index_select(0, one.targets)
            )
            stops = np.cumsum(one.counts)
            wheres = [
                slice(int(stop) - count, int(stop))
                for stop, count in zip(stops, one.counts, strict=True)
            ]
            owners = list(zip(one.requests, wheres, strict=True))
            for request, where in owners:
                self._give_mask(one, request, where)
            for name, value in found.items():
                yield Output(name, value, owners)

    def give(self, output: Output) -> None:
        """See JointPass. A run gets its results where it has its tokens, zeros at the padding."""
        for request, where in output.owners:
            own = output.joint[where].detach()
            if output.joint.requires_grad:
                own = request.leaves[output.name] = own.requires_grad_()
            with torch.enable_grad():
                request.result[output.name] = self._as_asked(request, output.name, own)

    # ---- where everything lies

    def _laid_out(self, room: Room | None) -> tuple[IntArray, IntArray, IntArray]:
        """For each token of the joint batch its place among all batches and its position.

        And the length of each sequence. What fills requests up is a sequence of its own.
        """
        on_gpu = self._device.type == "cuda"
        source, positions, lengths, tokens = [], [], [], list[int]()
        done = 0
        for number, request in enumerate(self.requests):
            sizes = request.sizes
            assert sizes is not None
            source.append(sizes.flat + self._offsets[number])
            positions.append(sizes.positions)
            lengths.append(sizes.lengths)
            filler, stop = 0, done + sizes.tokens
            is_last = number == len(self.requests) - 1
            if is_last and room is not None:
                filler = room.tokens - stop
            elif on_gpu and is_last:
                filler = -stop % max(_WHOLE_ALIGNMENT, _power_of_two(stop) // _FEWEST_SIZES)
            elif on_gpu:
                filler = -stop % _ALIGNMENT
            if filler:
                source.append(np.full(filler, self._offsets[number]))
                positions.append(np.arange(filler))
                lengths.append(np.asarray([filler]))
            self._spans.append(slice(done, done + sizes.tokens))
            tokens.append(sizes.tokens + filler)
            done += tokens[-1]
        self.tokens = tokens
        return np.concatenate(source), np.concatenate(positions), np.concatenate(lengths)

    def _rows(self, lengths: IntArray, longest: int) -> list[IntArray]:
        """For attention in rows: the token at each place, and the place of each token."""
        if self._way is AttentionWay.VARLEN:
            return []
        number = np.arange(len(lengths))
        ends = lengths.cumsum()
        within = np.arange(lengths.sum()) - np.repeat(ends - lengths, lengths)
        places = np.repeat(number * longest, lengths) + within
        # What pads is the sequence's own, so that NaN stays its own.
        rows = np.repeat(np.minimum(ends - lengths, ends[-1] - 1), longest)
        rows[places] = np.arange(len(places))
        return [rows, places]

    def _by_head(self) -> list[tuple[Head, list[int]]]:
        """Requests that gave labels, by what their heads compute."""
        heads: dict[Hashable, tuple[Head, list[int]]] = {}
        for number, request in enumerate(self.requests):
            if request.labels is not None and request.head is not None:
                heads.setdefault(request.head.key, (request.head, []))[1].append(number)
        return list(heads.values())

    def _labels(self, numbers: Sequence[int]) -> list[IntArray]:
        before, targets, places = [], [], []
        for number in numbers:
            request = self.requests[number]
            sizes, labelled = request.sizes, request.labelled()
            assert sizes is not None
            before.append(sizes.before_labels(labelled) + self._spans[number].start)
            targets.append(labelled + self._offsets[number])
            places.append(sizes.places_of_labels(labelled))
        return [np.concatenate(before), np.concatenate(targets), np.concatenate(places)]

    # ---- as the runs ask for it

    def _give_mask(self, labelled: _Labelled, request: Forward, where: slice) -> None:
        request.result_class = labelled.head.result_class()
        places = labelled.places[where]
        if request.is_compact:
            request.result["label_mask"] = places >= 0
            return
        mask = places.new_zeros(request.rows * (request.length - 1), dtype=torch.bool)
        request.places = places
        request.result["label_mask"] = mask.index_fill(0, places, True).view(request.rows, -1)

    def _as_asked(self, request: Forward, name: str, own: Tensor) -> Tensor:
        rows, length = request.rows, request.length
        if name == "last_hidden_state":
            number = self.requests.index(request)
            places = self._source[self._spans[number]] - int(self._offsets[number])
            whole = own.new_zeros(rows * length, own.shape[-1]).index_copy(0, places, own)
            return whole.view(rows, length, -1)
        if request.is_compact:
            return own
        assert request.places is not None
        whole = own.new_zeros(rows * (length - 1)).index_copy(0, request.places, own)
        return whole.view(rows, length - 1)
