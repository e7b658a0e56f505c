"""Which experiments a process knows, and which it has forgotten."""

from __future__ import annotations

import gc

import pytest

from rf_notebook import Experiment
from rf_notebook.registry import forget_all, known_experiments, latest_experiment, use


@pytest.fixture(autouse=True)
def _fresh():
    forget_all()
    yield
    forget_all()


def test_an_experiment_is_known_as_long_as_somebody_holds_it(tmp_path):
    held = Experiment("held", experiment_path=tmp_path)
    Experiment("gone", experiment_path=tmp_path)
    gc.collect()
    assert known_experiments() == [held]


def test_a_second_look_at_a_record_does_not_displace_the_object_in_use(tmp_path):
    held = Experiment("held", experiment_path=tmp_path)
    Experiment("held", experiment_path=tmp_path)
    gc.collect()
    assert known_experiments() == [held]
    again = Experiment("held", experiment_path=tmp_path)
    use(again)
    assert known_experiments() == [again]
    assert latest_experiment() is again


def test_the_one_used_last_comes_last(tmp_path):
    first, second = (Experiment(name, experiment_path=tmp_path) for name in ("first", "second"))
    use(first), use(second)
    assert known_experiments() == [first, second]
    use(first)
    assert known_experiments() == [second, first]
