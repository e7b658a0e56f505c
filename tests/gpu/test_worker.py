"""A worker process on a GPU gives the bits that the kernel gives there."""

from __future__ import annotations

import pytest
import torch

from rf_notebook import Experiment
from rf_notebook.automl import List, RFGridSearch, RFLoraConfig, RFModelConfig, RFSFTConfig
from rf_notebook.testing.tiny import create_tiny, prompt_rows

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="needs a GPU; tests/test_devices.py is the same on the CPU",
)


def trained(folder, execution, devices, dropout=0.1):
    config = RFModelConfig(
        model_name="tiny",
        peft_config=RFLoraConfig(r=List([4, 8]), target_modules="all-linear", lora_dropout=dropout),
        training_args=RFSFTConfig(
            learning_rate=1e-3,
            per_device_train_batch_size=4,
            num_train_epochs=3,
            logging_steps=1,
            max_length=64,
        ),
    )
    experiment = Experiment(f"{execution}-{devices is None}", experiment_path=folder)
    experiment.run_fit(
        RFGridSearch(config, "SFT"),
        create_tiny,
        prompt_rows(16, 1),
        prompt_rows(4, 2),
        num_chunks=4,
        display=False,
        execution=execution,
        devices=devices,
    )
    assert experiment.wait(timeout=300)
    assert [run.state for run in experiment.runs] == ["completed"] * 2, [
        run.error for run in experiment.runs
    ]
    saved = [
        experiment.session.state.record(run.id).checkpoints[-1].folder.weights
        for run in experiment.runs
    ]
    results = experiment.get_results()
    experiment.end()
    return results, saved


@pytest.mark.parametrize("execution", ["exact", "fused"])
def test_a_worker_gives_the_bits_of_the_kernel(tmp_path, execution):
    expected, weights = trained(tmp_path, execution, None)
    found, there = trained(tmp_path, execution, ["cuda:0"])
    assert found.equals(expected)
    assert there == weights
