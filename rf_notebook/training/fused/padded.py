"""A joint batch in rows: each request's below the one before, padded on the right to the longest.

For models whose tokens cannot be packed, and for batches that have gaps.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rf_notebook.training.fused.layout import mask_of, padded, rows_of
from rf_notebook.training.fused.passes import Output, masks_of

if TYPE_CHECKING:
    from rf_notebook.training.fused.request import Forward


class PaddedPass:
    """See JointPass."""

    sizes: Hashable = None

    def __init__(self, requests: Sequence[Forward]) -> None:
        self._requests = list(requests)
        self._rows = rows_of(requests)
        self._length = max(request.length for request in requests)
        self.tokens: Sequence[int] = [request.rows * self._length for request in requests]
        self.shape: Hashable = (tuple(request.rows for request in requests), self._length)

    def arguments(self, backbone: Any) -> dict[str, Any]:
        """See JointPass."""
        requests, length = self._requests, self._length
        given: dict[str, Any] = {
            "attention_mask": mask_of(requests, length),
            "use_cache": False,
        }
        if any(request.embeddings is not None for request in requests):
            embed = backbone.get_input_embeddings()
            of_runs = [
                r.embeddings if r.embeddings is not None else embed(r.input_ids) for r in requests
            ]
            return given | {"inputs_embeds": torch.cat([padded(one, length, 0) for one in of_runs])}
        return given | {"input_ids": torch.cat([padded(r.input_ids, length, 0) for r in requests])}

    def kept(self, path: str, requests: Sequence[Forward]) -> Tensor | None:
        """See JointPass."""
        return masks_of(path, requests, lambda mask: padded(mask, self._length, 0))

    def outputs(self, hidden: Tensor) -> Iterator[Output]:
        """Log-probabilities for those that gave labels, from one head for all with equal heads.

        Else hidden states.
        """
        heads: dict[Any, list[tuple[Forward, slice]]] = {}
        for request, where in zip(self._requests, self._rows, strict=True):
            key = None if request.labels is None or request.head is None else request.head.key
            heads.setdefault(key, []).append((request, where))
        for key, owners in heads.items():
            if key is None:
                yield Output("last_hidden_state", hidden, owners)
                continue
            is_all = len(owners) == len(self._requests)
            own = hidden if is_all else torch.cat([hidden[where] for _, where in owners])
            labels = torch.cat(
                [padded(r.labels, self._length, -100) for r, _ in owners if r.labels is not None]
            )
            scored = owners[0][0].member.score(own, labels)
            places = list(zip((r for r, _ in owners), rows_of([r for r, _ in owners]), strict=True))
            for request, _ in owners:
                request.result_class = type(scored)
            for name, value in scored.items():
                if torch.is_tensor(value) and value.dim() == 2:
                    yield Output(name, value, places)

    def give(self, output: Output) -> None:
        """See JointPass. A run gets its rows without the others' padding."""
        for request, where in output.owners:
            # log-probabilities are of the next token
            length = request.length - (output.name != "last_hidden_state")
            rows = output.joint[where, :length].detach()
            if output.joint.requires_grad:
                rows = request.leaves[output.name] = rows.requires_grad_()
            request.result[output.name] = rows
