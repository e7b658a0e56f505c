"""A run's process state goes in and out without a trace."""

import os
import random

import numpy as np
import torch
from accelerate.state import GradientState, PartialState

from rf_notebook.training.process_state import ProcessState, RandomState, isolated


def draws():
    return random.random(), np.random.rand(), torch.rand(3).tolist()


def test_random_streams_go_on_where_they_were_captured():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    random.gauss(0, 1), np.random.randn()
    state = RandomState.capture()
    expected = draws(), random.gauss(0, 1), np.random.randn()
    draws()
    state.install()
    assert (draws(), random.gauss(0, 1), np.random.randn()) == expected


def test_random_streams_survive_a_safe_pickle(tmp_path):
    state = RandomState.capture()
    torch.save(state.as_plain(), tmp_path / "s.pt")
    expected = draws()
    RandomState.from_plain(torch.load(tmp_path / "s.pt", weights_only=True)).install()
    assert draws() == expected


def test_what_happens_in_isolation_stays_there(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    before, environment = ProcessState.capture(), dict(os.environ)
    with isolated():
        assert not PartialState._shared_state  # noqa: SLF001 - accelerate's state
        PartialState(cpu=True)
        GradientState()._set_sync_gradients(False)  # noqa: SLF001 - accelerate's state
        os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16"
        os.environ["ACCELERATE_USE_FSDP"] = "true"
        torch.use_deterministic_algorithms(True)
        torch.manual_seed(0), random.seed(0), np.random.seed(0)
    after = ProcessState.capture()
    assert dict(os.environ) == environment
    assert after.switches == before.switches
    assert after.singletons == before.singletons
    assert torch.equal(after.random.cpu, before.random.cpu)
    assert after.random.python == before.random.python


def test_the_singletons_are_swapped_in_place():
    with isolated():
        live = PartialState(cpu=True)
        state = ProcessState.capture()
        ProcessState.fresh(state).install()
        assert not PartialState._shared_state  # noqa: SLF001 - accelerate's state
        state.install()
        assert live.__dict__ is PartialState._shared_state  # noqa: SLF001 - accelerate's state
        assert live.num_processes == 1
