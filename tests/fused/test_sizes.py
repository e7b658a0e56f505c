"""Where a batch's tokens lie is known on the host, and nobody else notices."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.utils import send_to_device
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from rf_notebook.training.fused.sizes import SizedBatch, SizedCollator, Sizes, sizes_of

ROWS = [
    {"input_ids": [5, 6, 7, 8], "labels": [-100, 6, 7, 8]},
    {"input_ids": [9, 4], "labels": [-100, 4]},
]


def collated(**settings: Any) -> SizedBatch:
    batch = SizedCollator(DataCollatorForLanguageModeling(pad_token_id=0, **settings))(ROWS)
    assert isinstance(batch, SizedBatch)
    return batch


def test_a_batch_is_what_trl_s_collator_made() -> None:
    own, sized = DataCollatorForLanguageModeling(pad_token_id=0)(ROWS), collated()
    assert own.keys() == sized.keys()
    assert all(torch.equal(own[name], sized[name]) for name in own)


@pytest.mark.parametrize(
    "carried",
    [
        lambda batch: batch,
        lambda batch: send_to_device(batch, "cpu", non_blocking=True),
        copy.copy,  # as torch does when it pins memory
        lambda batch: pickle.loads(pickle.dumps(batch)),
    ],
)
def test_its_sizes_come_along_to_the_device_and_from_a_worker(carried: Any) -> None:
    batch = carried(collated())
    sizes = batch.sizes
    assert (sizes.rows, sizes.length, sizes.tokens, sizes.longest) == (2, 4, 6, 4)
    assert sizes.flat.tolist() == [0, 1, 2, 3, 4, 5]
    assert sizes.positions.tolist() == [0, 1, 2, 3, 0, 1]
    assert sizes.labels.tolist() == [1, 2, 3, 5]
    assert sizes.before_labels(sizes.labels).tolist() == [0, 1, 2, 4]
    assert sizes.places_of_labels(sizes.labels).tolist() == [0, 1, 2, 3]


def test_packed_rows_are_sequences_of_their_own() -> None:
    sizes = collated(padding_free=True).sizes
    assert sizes is not None
    assert sizes.is_packed
    assert (sizes.starts.tolist(), sizes.lengths.tolist()) == ([0, 4], [4, 2])
    assert sizes.positions.tolist() == [0, 1, 2, 3, 0, 1]


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ([[1, 1, 0], [1, 1, 1]], ([0, 3], [2, 3])),
        ([[0, 1, 1], [1, 1, 1]], ([1, 3], [2, 3])),
        ([[0, 0, 0], [1, 1, 1]], ([3], [3])),
        ([[1, 0, 1], [1, 1, 1]], None),
    ],
)
def test_padding_on_either_side_is_known_and_gaps_are_not(mask: Any, expected: Any) -> None:
    ids = torch.arange(6).view(2, 3)
    sizes = sizes_of({"input_ids": ids, "attention_mask": torch.tensor(mask)})
    if expected is None:
        assert sizes is None
    else:
        assert isinstance(sizes, Sizes)
        assert (sizes.starts.tolist(), sizes.lengths.tolist()) == expected
        assert np.array_equal(sizes.flat, np.flatnonzero(np.asarray(mask)))
