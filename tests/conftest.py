"""Shared by all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests reach nothing: what would look something up on a hub fails at once."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def _tracking_database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(autouse=True)
def _one_tracking_database(monkeypatch: pytest.MonkeyPatch, _tracking_database: str) -> None:
    """Creating MLflow's tables takes seconds; the tests of the mirror make their own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", _tracking_database)


@pytest.fixture
def new(tmp_path) -> Iterator:
    """Makes experiments that are closed when the test is over, also when it fails."""
    from rf_notebook import Experiment

    made = []

    def make(name: str = "test", path=None) -> Experiment:
        made.append(Experiment(name, experiment_path=path or tmp_path))
        return made[-1]

    yield make
    for experiment in made:
        if experiment._thread is not None:
            experiment.cancel_current()
        if experiment._store is not None:
            experiment._store.close()
