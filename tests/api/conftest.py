"""The public API over a runner whose training is one line of arithmetic.

Nothing of torch is imported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rf_notebook import Experiment
from rf_notebook.session import session as session_module
from rf_notebook.session.registry import forget_all
from rf_notebook.testing.fake_backend import FakeBackend


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    """Who trains in every experiment of the test, also in those that a magic or a replay makes."""
    made = FakeBackend(on_step=lambda _run_id, _step: time.sleep(0.002))
    monkeypatch.setattr(session_module, "Libraries", lambda: made)
    return made


@pytest.fixture
def new(tmp_path: Path, backend: FakeBackend) -> Iterator[Callable[..., Experiment]]:
    """Makes experiments that are closed when the test is over, also when it fails."""
    made: list[Experiment] = []

    def make(name: str = "test", path: Any = None) -> Experiment:
        made.append(Experiment(name, experiment_path=path or tmp_path, runner=backend))
        return made[-1]

    yield make
    for experiment in made:
        if experiment.session.training is not None:
            experiment.cancel_current()
        if experiment.session.store is not None:
            experiment.session.store.close()
    forget_all()
