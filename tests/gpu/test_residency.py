"""On a GPU that is too small for all runs at once.

Weights wait in host memory, and figures do not change.
"""

from __future__ import annotations

import pytest
import torch

from rf_notebook.automl import List, RFGridSearch
from rf_notebook.testing.tiny import create_tiny, preference_rows
from rf_notebook.training import memory
from tests.experiment_world import curve, model

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU; nothing of it can happen on a CPU"
)


def full_fine_tunings(*, models: int) -> RFGridSearch:
    config = model(
        use_cpu=False, learning_rate=List([1e-4, 3e-4, 1e-3]), num_train_epochs=2, bf16=True
    )
    config.peft_config = None
    config.model_kwargs = List(
        [{"hidden": 512, "layers": 4, "seed": seed} for seed in range(models)]
    )
    return RFGridSearch(config, "SFT")


def fit(experiment, search):
    experiment.run_fit(
        search, create_tiny, preference_rows(32, 1), preference_rows(8, 2), num_chunks=4
    )
    experiment.end()
    assert all(run.state == "completed" for run in experiment.runs), [
        run.error for run in experiment.runs
    ]
    return experiment


@pytest.mark.parametrize("models", [1, 2])
def test_runs_whose_weights_take_turns_on_the_device_train_as_if_there_were_room(
    new, monkeypatch, models
):
    roomy = fit(new("roomy"), full_fine_tunings(models=models))
    moved = roomy.get_log_file_path().read_text().count("moved to host memory")
    assert moved == 0
    base = sum(
        p.numel() * 4
        for p in create_tiny({"model_kwargs": {"hidden": 512, "layers": 4}})[0].parameters()
    )
    room = (
        9 * base
    )  # a run keeps three times the base and needs gradients and a temporary beside them
    held = torch.cuda.memory_allocated()
    monkeypatch.setattr(
        memory, "free_bytes", lambda device=None: held + room - torch.cuda.memory_allocated(device)
    )
    tight = fit(new("tight"), full_fine_tunings(models=models))
    log = tight.get_log_file_path().read_text()
    assert log.count("moved to host memory") >= 3
    assert log.count("are back on the device") >= 3
    for run in roomy.runs:
        assert curve(tight, run.id) == curve(roomy, run.id)
