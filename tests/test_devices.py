"""``run_fit(devices=["cpu"])``.

Runs in a process of their own are the runs that the kernel would have trained.
"""

from __future__ import annotations

import os
import random
import threading

import pytest
import torch

from rf_notebook import ConfigError
from rf_notebook.automl import List, RFGridSearch, RFLoraConfig, RFModelConfig, RFSFTConfig
from rf_notebook.runners.process import visible_to
from rf_notebook.testing.tiny import create_tiny, prompt_rows

ROWS = prompt_rows(16, 1), prompt_rows(4, 2)


def search(**more):
    arguments = {
        "per_device_train_batch_size": 4,
        "num_train_epochs": 2,
        "logging_steps": 1,
        "max_length": 64,
    }
    return RFGridSearch(
        RFModelConfig(
            model_name="tiny",
            peft_config=RFLoraConfig(r=List([4, 8]), target_modules=["q_proj"], lora_dropout=0.1),
            training_args=RFSFTConfig(
                learning_rate=1e-3,
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                **arguments,
            ),
            **more,
        ),
        "SFT",
    )


def trained(experiment, **options):
    experiment.run_fit(
        search(), create_tiny, *ROWS, num_chunks=4, display=False, sample_prompts=1, **options
    )
    assert experiment.wait(timeout=120)
    assert [run.state for run in experiment.runs] == ["completed"] * 2, [
        run.error for run in experiment.runs
    ]
    checkpoints = [
        experiment.session.state.record(run.id).checkpoints[-1].folder.weights
        for run in experiment.runs
    ]
    return experiment.get_results(), checkpoints, experiment.generate([1, 2], ["hello"])


def test_a_worker_trains_what_the_kernel_trains_bit_for_bit(new, tmp_path):
    results, weights, texts = trained(new("kernel"))
    worker = new("worker")
    torch.manual_seed(3), random.seed(3)
    before = torch.get_rng_state().tolist(), random.getstate()
    there, there_weights, there_texts = trained(worker, devices=["cpu"])
    assert (torch.get_rng_state().tolist(), random.getstate()) == before, "the kernel is left alone"
    assert there.equals(results)
    assert there_weights == weights
    assert there_texts.equals(texts)
    assert worker.load(1).training is False
    assert (worker.export(2, tmp_path / "out") / "adapter_model.safetensors").exists()
    worker.end()
    assert not (worker.folder / "data" / "worker").exists(), "nothing is left"


def test_an_experiment_moves_between_the_kernel_and_a_worker(new):
    expected = trained(new("whole"))[0]
    moving = new("moving")
    for devices in (None, ["cpu"], None):
        moving.run_fit(
            search(),
            create_tiny,
            *ROWS,
            num_chunks=4,
            display=False,
            sample_prompts=1,
            devices=devices,
        )
        steps = sum(run.steps for run in moving.runs)
        while (
            devices is not None
            and moving.session.is_training
            and sum(run.steps for run in moving.runs) == steps
        ):
            assert not moving.wait(timeout=0.05) or moving.session.is_idle
        moving.cancel_current()
    moving.run_fit(search(), create_tiny, *ROWS, num_chunks=4, display=False, sample_prompts=1)
    assert moving.wait(timeout=120)
    found = moving.get_results()
    columns = ["run_id", "step", "loss", "eval_loss"]
    assert found[columns].equals(expected[columns])


def test_functions_of_the_notebook_are_sent_and_what_cannot_be_sent_is_refused(new):
    lock = threading.Lock()

    def guarded(_config):
        with lock:
            return create_tiny(_config)

    experiment = new()
    with pytest.raises(ConfigError, match="create_model_fn cannot be sent to a worker process"):
        experiment.run_fit(search(), guarded, *ROWS, display=False, devices=["cpu"])

    def metrics(_prediction):
        with lock:
            return {}

    with pytest.raises(ConfigError, match="metrics cannot be sent to a worker process"):
        new("other").run_fit(
            search(compute_metrics=metrics), create_tiny, *ROWS, display=False, devices=["cpu"]
        )
    here = os.getpid()

    def told(_prediction):
        return {"is_elsewhere": float(os.getpid() != here)}

    third = new("third")
    third.run_fit(
        search(compute_metrics=told),
        create_tiny,
        *ROWS,
        display=False,
        num_chunks=1,
        devices=["cpu"],
    )
    assert third.wait(timeout=120)
    assert third.run(1).metrics["eval_is_elsewhere"] == 1.0, third.run(1).error


@pytest.mark.parametrize(
    ("count", "name", "here"), [(0, "cuda:0", "cpu"), (2, "cuda:2", "cpu, cuda:0, cuda:1")]
)
def test_a_device_that_is_not_here_is_refused(new, monkeypatch, count, name, here):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(ConfigError, match=rf"devices=\['{name}'\]\): this machine has {here}\."):
        new().run_fit(search(), create_tiny, *ROWS, display=False, devices=[name])


@pytest.mark.parametrize(
    ("visible", "device", "expected"),
    [
        (None, "cuda:1", "1"),
        ("2,3", "cuda:1", "3"),
        ("GPU-a,GPU-b", "cuda:0", "GPU-a"),
        ("2,3", "cpu", ""),
    ],
)
def test_a_worker_sees_the_device_that_it_is_for_and_no_other(
    monkeypatch, visible, device, expected
):
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_to(device) == {"CUDA_VISIBLE_DEVICES": expected}
