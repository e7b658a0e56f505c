"""On a GPU: a run that does not fit fails alone, and its memory comes back."""

from __future__ import annotations

import pytest
import torch

from rf_notebook.automl import List, RFGridSearch
from rf_notebook.testing.tiny import create_tiny, text_rows
from tests.experiment_world import curve, model

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU; nothing of it can happen on a CPU"
)


def search(sizes: list[int]) -> RFGridSearch:
    config = model(use_cpu=False, per_device_train_batch_size=List(sizes), num_train_epochs=2)
    config.model_kwargs = {"hidden": 256, "layers": 4}
    return RFGridSearch(config, "SFT")


def test_a_run_that_does_not_fit_fails_alone_and_gives_its_memory_back(new):
    alone = new("alone")
    alone.run_fit(search([8]), create_tiny, text_rows(4096, 1), num_chunks=1)
    alone.end()
    before = torch.cuda.memory_allocated()
    torch.cuda.set_per_process_memory_fraction(
        2.0 * 2**30 / torch.cuda.get_device_properties(0).total_memory
    )
    try:
        experiment = new()
        experiment.run_fit(search([4096, 8]), create_tiny, text_rows(4096, 1), num_chunks=1)
        experiment.end()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    failed = experiment.run(1)
    assert failed.state == "failed"
    assert "out of device memory at a peak of" in failed.error
    assert "GiB (base " in failed.error, "what had been estimated, part by part"
    assert (
        "retry it with per_device_train_batch_size=2048, gradient_accumulation_steps=2"
        in failed.error
    )
    assert experiment.run(2).state == "completed"
    assert curve(experiment, 2) == curve(alone, 1)
    assert torch.cuda.memory_allocated() <= before * 1.01 + 2**20
