"""Shared by all tests."""

from __future__ import annotations

import fcntl
import gc
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rf_notebook.store import folders
from tests import warm

#: What needs neither torch nor mlflow: `make unit`.
UNIT = (
    "api",
    "automation",
    "automl",
    "core",
    "engine",
    "jupyterlab",
    "planning",
    "store",
    "test_package.py",
    "widgets",
)
#: Files whose tests share nothing that is expensive, so that workers may split them.
SPLIT = (
    "api",
    "automation",
    "engine",
    "notebooks",
    "ui",
    "test_evaluation.py",
    "test_experiment.py",
    "test_memory.py",
    "test_methods.py",
    "test_one_failure_ends_nothing_else.py",
)
TESTS = Path(__file__).parent
_frozen: set[bool] = set()


def pytest_configure(config: pytest.Config) -> None:
    """One server of warm processes for all workers; it starts when it is first needed."""
    if not hasattr(config, "workerinput"):
        warm.choose_socket()
        workers = getattr(config.option, "numprocesses", None) or 1
        if workers > 1:  # as many threads as there are cores, over all workers
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))


def _is_unit(path: Path) -> bool:
    return path.relative_to(TESTS).parts[0] in UNIT


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where torch cannot be imported, only unit tests can be collected."""
    if (
        not config.pluginmanager.has_plugin("tests.without_torch")
        or TESTS not in collection_path.parents
    ):
        return None
    return None if _is_unit(collection_path) else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark unit tests."""
    for item in items:
        if _is_unit(item.path) and not {"slow", "starts_processes"} & {*item.keywords}:
            item.add_marker(pytest.mark.unit)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep a file's tests in one worker, except where they share nothing expensive."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return nodeid if file.removeprefix("tests/").startswith(SPLIT) else file

    return ByFile(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What the libraries made when they were imported stays.

    Full collections, one a run, need not go through it.
    """
    loaded = "trl" in sys.modules
    if loaded not in _frozen:
        _frozen.add(loaded)
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests reach nothing: what would look something up on a hub fails at once."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A store of its own that speaks S3; see ``tests.bucket``."""
    from tests.bucket import ENVIRONMENT, Bucket

    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    running = Bucket()
    yield running
    running.close()


@pytest.fixture(scope="session")
def _tracking_database(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> str:
    """A copy of an empty database that was made whole.

    Tests kill processes, and MLflow never recovers from one cut off.
    """
    if importlib.util.find_spec("mlflow") is None:  # on a machine that has only what training needs
        return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
    empty = request.config.cache.mkdir("mlflow") / f"{importlib.metadata.version('mlflow')}.db"
    with empty.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one of the workers makes it
        _make_tracking_database(empty)
    database = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    shutil.copyfile(empty, database)
    return f"sqlite:///{database}"


def _make_tracking_database(empty: Path) -> None:
    if not empty.exists():
        made = empty.with_suffix(".new")
        made.unlink(missing_ok=True)
        code = f"import mlflow; mlflow.MlflowClient('sqlite:///{made}').search_experiments()"
        quiet = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code], check=True, env=quiet, capture_output=True
        )
        made.rename(empty)


@pytest.fixture(autouse=True)
def _one_tracking_database(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Creating MLflow's tables takes seconds.

    Unit tests need none, and the tests of the mirror make their own.
    """
    if request.node.get_closest_marker("unit") is None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", request.getfixturevalue("_tracking_database"))


@pytest.fixture(autouse=True)
def _nothing_is_flushed(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """What a power cut leaves is tested elsewhere.

    In unit tests thousands of little checkpoints would wait for the disk.
    """
    if request.node.get_closest_marker("unit") is not None:
        monkeypatch.setattr(folders, "flush", lambda path: None)


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
        if experiment.session.thread is not None:
            experiment.cancel_current()
        if experiment.session.store is not None:
            experiment.session.store.close()
