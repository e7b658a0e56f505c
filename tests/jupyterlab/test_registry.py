"""Which experiments a process knows, and which it has forgotten."""

from __future__ import annotations

import gc

import pytest

from rf_notebook import Experiment
from rf_notebook.core.change import ChangeSignal
from rf_notebook.experiment import latest_experiment
from rf_notebook.jupyterlab.kernel import KernelExperiments
from rf_notebook.session.registry import forget_all, known_sessions, session_of, use


@pytest.fixture(autouse=True)
def _fresh():
    forget_all()
    yield
    forget_all()


def test_an_experiment_is_known_as_long_as_somebody_holds_it(tmp_path):
    held = Experiment("held", experiment_path=tmp_path)
    Experiment("gone", experiment_path=tmp_path)
    gc.collect()
    assert known_sessions() == [held.session]


def test_a_second_look_at_a_record_does_not_displace_the_object_in_use(tmp_path):
    held = Experiment("held", experiment_path=tmp_path)
    Experiment("held", experiment_path=tmp_path)
    gc.collect()
    assert known_sessions() == [held.session]
    again = Experiment("held", experiment_path=tmp_path)
    use(again.session)
    assert known_sessions() == [again.session]
    assert latest_experiment() is again


def test_the_one_used_last_comes_last(tmp_path):
    first, second = (Experiment(name, experiment_path=tmp_path) for name in ("first", "second"))
    use(first.session), use(second.session)
    assert known_sessions() == [first.session, second.session]
    use(first.session)
    assert known_sessions() == [second.session, first.session]


def test_news_of_every_experiment_is_news_of_the_kernel(tmp_path):
    first, second = (session_of(name, tmp_path) for name in ("first", "second"))
    kernel = KernelExperiments()
    for session in (first, second, first):
        seen = kernel.wait_for_change(-1, 0.0)
        session.signal.changed()
        assert kernel.wait_for_change(seen, 60.0) == seen + 1, "at once, not after the seconds"


def test_a_signal_wakes_who_waits_for_it_and_who_waits_for_the_one_above():
    above = ChangeSignal()
    below = ChangeSignal(also=above)
    below.changed()
    assert (below.version, above.version) == (1, 1)
    assert below.wait(1, 0.0) == 1
    assert below.wait(0, 60.0) == 1
