"""Which experiments a process knows, and which it has forgotten."""

from __future__ import annotations

import gc
import re
import time

import pytest

from rf_notebook import ConfigError, Experiment
from rf_notebook.core.change import ChangeSignal
from rf_notebook.experiment import latest_experiment
from rf_notebook.jupyterlab.kernel import KernelExperiments
from rf_notebook.jupyterlab.recorded import recorded_words
from rf_notebook.session.registry import forget_all, known_sessions, session_of, use
from rf_notebook.testing.fake_backend import FakeBackend
from tests.api.world import fit, two


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


def test_what_is_on_disk_is_told_with_its_date_size_and_best_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment = Experiment("done", runner=FakeBackend())
    fit(experiment, two()).end()
    best, folder = experiment.best(), experiment.folder
    experiment.session.store.close()
    del experiment
    forget_all()
    gc.collect()
    kernel = KernelExperiments()
    found = kernel.recorded()["done"]
    assert (found["standing"], found["runs"]) == ("finished", 2)
    year = time.strftime("%Y")
    assert re.fullmatch(
        rf"\d\d \w\w\w {year}, \d\d:\d\d · [\d.]+ [kM]B · best eval_loss [\d.e-]+, run {best.id}",
        found["words"],
    )
    whole = (folder / "record.json").read_bytes()
    changed = re.sub(rb'("eval_loss": ?)\d', rb"\g<1>0", whole)
    assert changed != whole
    for wrong in (changed, b"{", b"[]", b'{"spec": {"configs": [{"method": []}]}, "results": []}'):
        (folder / "record.json").write_bytes(wrong)
        assert "best" not in recorded_words(folder, 0.0)
    with pytest.raises(ConfigError, match="is recorded here"):
        kernel.remove("../done")
    kernel.remove("done")
    assert not folder.exists()
    assert kernel.recorded() == {}
