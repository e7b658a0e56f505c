"""One run, one device, however many GPUs a machine shows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rf_notebook import ConfigError
from rf_notebook.automl import RFDPOConfig, RFGRPOConfig, RFLoraConfig, RFModelConfig, RFSFTConfig
from rf_notebook.testing.tiny import create_tiny, preference_rows, tiny_model, tiny_tokenizer
from rf_notebook.training.base_models import BaseModels
from rf_notebook.training.process_state import ProcessState, RandomState
from tests.experiment_world import LORA, TRAINING, curve

ARGUMENTS = {
    name: value for name, value in TRAINING.items() if name not in ("use_cpu", "max_length")
}


def rewards(completions, **kwargs):
    return [float(len(text)) for text in completions]


def configs():
    """Two of each method, none of which asks for the CPU."""
    adapter = RFLoraConfig(**LORA)
    grpo = {**ARGUMENTS, "num_generations": 2, "max_completion_length": 4}
    arguments = [
        RFSFTConfig(**ARGUMENTS, max_length=64),
        RFDPOConfig(**ARGUMENTS, max_length=64),
        RFGRPOConfig(**grpo),
    ]
    return [
        RFModelConfig(
            model_name="tiny",
            peft_config=adapter,
            training_args=one,
            **({"reward_funcs": rewards} if isinstance(one, RFGRPOConfig) else {}),
        )
        for one in arguments
        for _ in range(2)
    ]


def trained(new, name, execution):
    experiment = new(name)
    experiment.run_fit(
        configs(),
        create_tiny,
        preference_rows(8, 1),
        None,
        num_chunks=2,
        seed=1,
        execution=execution,
    )
    experiment.wait()
    assert [(run.id, run.state, run.error) for run in experiment.runs] == [
        (i, "completed", None) for i in range(1, 7)
    ]
    return {run.id: curve(experiment, run.id) for run in experiment.runs}


@pytest.mark.skipif(torch.cuda.is_available(), reason="simulates GPUs; tests/gpu has the real ones")
@pytest.mark.oldest
@pytest.mark.parametrize("execution", ["exact", "fused"])
def test_all_methods_train_where_several_gpus_are_visible_and_give_what_they_give_on_one(
    new, monkeypatch, execution
):
    alone = trained(new, "one", execution)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert trained(new, "two", execution) == alone


def streams(number):
    """Of a run, as if so many GPUs had their streams in it."""
    plain = RandomState.capture().as_plain()
    return plain | {
        "cuda": [torch.full((16,), index, dtype=torch.uint8) for index in range(number)]
    }


@pytest.mark.parametrize("written", [0, 1, 4])
def test_a_checkpoint_holds_and_opens_the_streams_of_the_runs_device_only(monkeypatch, written):
    seen = []
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, index: seen.append((index, state[0].item()))
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    state = RandomState.from_plain(streams(written))
    assert len(state.as_plain()["cuda"]) == min(written, 1)
    state.install()
    assert seen == ([(0, 0)] if written else [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    state.install()  # on a machine without any


@pytest.fixture
def two_gpus(monkeypatch):
    """As a process has them that uses CUDA; gives which GPU is the current one, in a list."""
    current = [0]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.zeros(1))
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [torch.zeros(1), torch.ones(1)])
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[0])
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: current.__setitem__(0, device))
    return current


def test_the_notebooks_streams_of_all_devices_are_set_aside_and_a_runs_are_not(two_gpus):
    assert len(ProcessState.of_notebook().random.cuda) == 2
    assert len(ProcessState.capture().random.cuda) == 1


def test_the_gpu_that_a_run_makes_the_current_one_is_so_in_its_own_turns_only(two_gpus):
    notebook = ProcessState.of_notebook()
    torch.cuda.set_device(1)  # a reward function, say
    run = ProcessState.capture()
    notebook.install_beside_streams()
    assert two_gpus == [0]
    run.install_beside_streams()
    assert two_gpus == [1]
    notebook.install_beside_streams()
    assert two_gpus == [0]


class Spread(nn.Module):
    """As a loader gives it that let accelerate choose the devices."""

    def __init__(self, places):
        super().__init__()
        self.inner = nn.Linear(2, 2)
        self.hf_device_map = places
        self.to_device = None

    def to(self, device):
        self.to_device = device
        return self


def loaded(model):
    config = {
        "model_name": "x",
        "model_type": "causal_lm",
        "model_kwargs": {},
        "tokenizer": None,
        "tokenizer_kwargs": {},
    }
    return BaseModels(lambda _config: (model, tiny_tokenizer())).get(config, use_cpu=True).model


def test_a_model_that_was_spread_over_gpus_comes_to_the_device_of_the_runs():
    model = loaded(Spread({"a": 0, "b": 1}))
    assert model.to_device == torch.device("cpu")
    assert not hasattr(model, "hf_device_map")


@pytest.mark.parametrize("places", [{"a": 0, "b": "cpu"}, {"a": 0, "b": 1, "c": "disk"}])
def test_what_does_not_fit_on_one_device_is_refused_in_a_sentence(places):
    with pytest.raises(
        ConfigError,
        match=r"does not fit on cpu. Use a smaller or quantised model, or spread it over several GPUs",
    ):
        loaded(Spread(places))


def test_accelerates_wrappers_of_a_spread_model_are_gone():
    model = tiny_model()
    model.hf_device_map = {"": "cpu"}
    model.to = lambda *_args: pytest.fail("the wrapper of another tree was called")
    assert loaded(model) is model
    assert "to" not in model.__dict__
