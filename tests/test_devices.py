"""``run_fit(devices=...)``.

Runs in a process of their own are the runs that the kernel would have trained.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from rf_notebook import ConfigError
from rf_notebook.automl import List, RFGridSearch, RFLoraConfig, RFModelConfig, RFSFTConfig
from rf_notebook.core.fleet import DeviceFacts
from rf_notebook.core.objects import Objects
from rf_notebook.runners.process import visible_to
from rf_notebook.session.backend import Libraries
from rf_notebook.testing.tiny import create_tiny, prompt_rows
from rf_notebook.training.device import named_devices
from tests.thorough import few

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
    assert experiment.wait(timeout=240)
    assert [run.state for run in experiment.runs] == ["completed"] * 2, [
        run.error for run in experiment.runs
    ]
    checkpoints = [
        experiment.session.state.record(run.id).checkpoints[-1].folder.weights
        for run in experiment.runs
    ]
    return experiment.get_results(), checkpoints, experiment.generate([1, 2], ["hello"])


@pytest.fixture(autouse=True)
def _one_thread():
    """Two workers share the threads, on which figures depend."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("devices", few(1, [["cpu", "cpu"], ["cpu"]]), ids=["two", "one"])
def test_workers_train_what_the_kernel_trains_bit_for_bit(new, tmp_path, devices):
    results, weights, texts = trained(new("kernel"))
    worker = new("worker")
    torch.manual_seed(3), random.seed(3)
    before = torch.get_rng_state().tolist(), random.getstate()
    there, there_weights, there_texts = trained(worker, devices=devices)
    assert (torch.get_rng_state().tolist(), random.getstate()) == before, "the kernel is left alone"
    assert there.equals(results)
    assert there_weights == weights
    assert there_texts.equals(texts)
    where = worker.get_devices()
    assert len(where) == len(devices)
    assert where.chunks.sum() == 2 * 4 * 2, "two runs, four chunks a pass, two passes"
    assert worker.load(1).training is False
    assert (worker.export(2, tmp_path / "out") / "adapter_model.safetensors").exists()
    worker.end()
    assert not (worker.folder / "data" / "worker").exists(), "nothing is left"


def create_drawn(config):
    """A loader that draws some of the weights, and forgot to seed that."""
    model, tokenizer = create_tiny(config)
    noise = random.Random(os.urandom(8)).random()
    model.get_input_embeddings().weight.data[0] += noise
    return model, tokenizer


def test_a_worker_with_other_weights_than_the_first_one_trains_nothing(new):
    experiment = new("drawn")
    experiment.run_fit(
        search(), create_drawn, *ROWS, num_chunks=4, display=False, devices=["cpu", "cpu"]
    )
    assert experiment.wait(timeout=240)
    assert [run.state for run in experiment.runs] == ["completed"] * 2
    (told,) = [one for one in experiment.messages if "create_model_fn must give the same" in one]
    assert told.split(" loaded ")[0] in {"cpu:0", "cpu:1"}
    assert len({turn.device for turn in experiment.session.state.turns}) == 1
    experiment.end()


def test_an_experiment_moves_between_the_kernel_and_a_worker(new):
    expected = trained(new("whole"))[0]
    moving = new("moving")
    for devices in (None, ["cpu"], ["cpu", "cpu"], None):
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
        ("2,3", "cuda:0+cuda:1", "2,3"),
        (None, "cuda:2+cuda:3", "2,3"),
        (None, "cpu+cpu", ""),
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


FACTS = DeviceFacts(
    name="cuda:0", environment={"device": "H200"}, used_bytes=2**30, total_bytes=2**37
)


def rules_for(tmp_path, monkeypatch, *devices, **training):
    """What checks configs whose runs train elsewhere, where this process may not touch CUDA."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    def touched(*_args):
        raise AssertionError("a CUDA context was made")

    monkeypatch.setattr(torch.cuda, "_lazy_init", touched)
    backend, objects = Libraries(), Objects()
    data = backend.data(*ROWS)
    assert backend.environment(devices) == FACTS.environment
    found = RFGridSearch(
        RFModelConfig(
            model_name="tiny",
            peft_config=RFLoraConfig(r=4, target_modules=["q_proj"]),
            training_args=RFSFTConfig(
                per_device_train_batch_size=4, max_length=64, bf16=True, **training
            ),
        ),
        "SFT",
    ).run_configs(objects, seed=1, data_seed=None)
    return backend.rules(tmp_path, data, objects, create_tiny, 4, devices), found[0]


def test_configs_are_checked_without_a_cuda_context(tmp_path, monkeypatch):
    two = FACTS, replace(FACTS, name="cuda:1")
    rules, config = rules_for(tmp_path, monkeypatch, *two, tf32=True)
    assert rules.validate(config) == []
    assert not torch.cuda.is_initialized()


def test_what_a_workers_gpu_cannot_do_is_refused(tmp_path, monkeypatch):
    old = replace(FACTS, name="cuda:1", environment={"device": "T4"}, has_bf16=False)
    rules, config = rules_for(tmp_path, monkeypatch, FACTS, old)
    with pytest.raises(ConfigError, match="cuda:1, a T4, does not support bf16"):
        rules.validate(config)


def test_auto_is_every_gpu_and_the_kernel_where_there_is_nothing_to_divide(monkeypatch):
    for count, expected in ((0, ()), (1, ()), (3, ("cuda:0", "cuda:1", "cuda:2"))):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        assert named_devices("auto") == expected
    assert named_devices(2) == ("cuda:0", "cuda:1")
    with pytest.raises(
        ConfigError, match=r"devices=4\): this machine has cpu, cuda:0, cuda:1, cuda:2"
    ):
        named_devices(4)


@pytest.mark.parametrize(
    ("wanted", "stages", "expected"),
    [
        ("auto", 2, ("cuda:0+cuda:1", "cuda:2+cuda:3")),
        ("auto", 3, ("cuda:0+cuda:1+cuda:2",)),
        ("auto", 5, "RFModelConfig.num_gpus=5. needs a worker of 5 GPUs; .* gives it 4, and this"),
        (2, 2, ("cuda:0+cuda:1",)),
        (1, 2, "gives it 1"),
        (("cuda:1+cuda:3",), 2, ("cuda:1+cuda:3",)),
        (("cuda:0+cuda:1",), 1, ("cuda:0+cuda:1",)),
        (("cuda:0", "cuda:1"), 2, "needs a worker of 2 devices, and .* have 1; give tuples"),
        (("cuda:0+cuda:4",), 1, "this machine has cpu, cuda:0, cuda:1, cuda:2, cuda:3"),
    ],
)
def test_a_config_that_needs_several_gpus_gets_workers_of_so_many(
    monkeypatch, wanted, stages, expected
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    if isinstance(expected, tuple):
        assert named_devices(wanted, stages=stages) == expected
        return
    with pytest.raises(ConfigError, match=expected):
        named_devices(wanted, stages=stages)


def test_runs_over_a_model_on_two_devices_are_the_runs_of_one(new):
    results, weights, texts = trained(new("whole"))
    spread = new("spread")
    there, there_weights, there_texts = trained(spread, devices=[("cpu", "cpu")])
    assert there.equals(results)
    assert there_weights == weights
    assert there_texts.equals(texts)
    assert list(spread.get_devices().device) == ["cpu+cpu"]
    spread.clone(1, {"training_args.learning_rate": 5e-4}, warm_start=True)
    assert spread.wait(timeout=120)
    assert spread.run(3).state == "completed", spread.run(3).error
    with pytest.raises(ConfigError, match="the clone has num_gpus=4, and runs train on 2 here"):
        spread.clone(1, {"num_gpus": 4}).result()


def test_a_config_that_needs_more_gpus_than_there_are_is_refused(new):
    for devices in (None, "auto"):
        with pytest.raises(
            ConfigError, match=r"num_gpus=2\) needs a worker of 2 GPUs; .* has cpu\."
        ):
            new().run_fit(search(num_gpus=2), create_tiny, *ROWS, display=False, devices=devices)


KERNEL = """
import logging, os, sys, time
from rf_notebook.core.fleet import DeviceFacts
from rf_notebook.core.objects import Objects
from rf_notebook.runners.process import ProcessFleet
from tests.engine.recipe import FakeRecipe
from tests.thorough import few

devices = [DeviceFacts(name="cpu")] * 2
fleet = ProcessFleet(FakeRecipe({}), Objects(), folder=sys.argv[1], devices=devices, log=logging.Logger("it"))
fleet.next(30), fleet.next(30)
child = os.fork()  # as multiprocessing does in another cell: it holds the pipes open
if not child:
    time.sleep(60)
print(*(worker.pid for worker in fleet.workers.values()), child, flush=True)
time.sleep(60)
"""


def test_a_kernel_that_is_killed_takes_its_workers_along(tmp_path):
    kernel = subprocess.Popen(
        [sys.executable, "-c", KERNEL, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    with kernel:
        *workers, child = map(int, kernel.stdout.readline().split())
        processes = [psutil.Process(pid) for pid in workers]
        assert [one.net_connections() for one in processes] == [[], []]
        kernel.kill()
        _, alive = psutil.wait_procs(processes, timeout=5)
        os.kill(child, signal.SIGKILL)
    assert not alive
    assert not list(tmp_path.iterdir()), "nothing is left on the disk"
