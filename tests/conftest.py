"""Shared by all tests."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests reach nothing: what would look something up on a hub fails at once."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def _tracking_database(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> str:
    """A copy of an empty database that was made whole: tests kill processes, and MLflow never recovers from one cut off."""
    if importlib.util.find_spec("mlflow") is None:  # on a machine that has only what training needs
        return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    empty = request.config.cache.mkdir("mlflow") / f"{importlib.metadata.version('mlflow')}.db"
    if not empty.exists():
        made = empty.with_suffix(".new")
        made.unlink(missing_ok=True)
        code = f"import mlflow; mlflow.MlflowClient('sqlite:///{made}').search_experiments()"
        quiet = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, env=quiet, capture_output=True)
        made.rename(empty)
    database = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    shutil.copyfile(empty, database)
    return f"sqlite:///{database}"


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
