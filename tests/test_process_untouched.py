"""What belongs to the user's process is the same before and after an experiment."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

from tests.experiment_world import fit, two
from tests.tracking import test_trackers as tracker_tests

ROOT = Path(__file__).parents[1]


def snapshot():
    import datasets
    import transformers

    return {
        "python": random.getstate(),
        "numpy": [np.asarray(part).tolist() for part in np.random.get_state()],
        "torch": torch.get_rng_state().tolist(),
        "environment": dict(os.environ),
        "filters": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "stdout": (sys.stdout, sys.stderr, sys.excepthook, threading.excepthook),
        "signals": {
            s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
        },
        "verbosity": transformers.logging.get_verbosity(),
        "bars": (
            datasets.are_progress_bars_disabled(),
            transformers.logging.is_progress_bar_enabled(),
        ),
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "dtype": torch.get_default_dtype(),
        "singletons": [
            dict(s._shared_state)  # noqa: SLF001 - accelerate's state
            for s in (PartialState, AcceleratorState, GradientState)
        ],
        "cwd": Path.cwd(),
        "handlers": [
            list(h.filters) for h in __import__("logging").getLogger("transformers").handlers
        ],
        "live threads": live_threads(),
    }


def live_threads():
    return {t.name for t in threading.enumerate() if t.name.startswith("rf-")}


def wait_for_earlier_tests():
    """Threads of runners that a test has dropped end when these are collected."""
    until = time.monotonic() + 30
    while live_threads() and time.monotonic() < until:
        gc.collect()
        time.sleep(0.1)


def test_a_whole_experiment_leaves_no_trace_in_the_process(new, monkeypatch):
    monkeypatch.setenv(
        "MLFLOW_DISABLE_TELEMETRY", "true"
    )  # else MLflow, finding no network, takes a variable back
    random.seed(5), np.random.seed(6), torch.manual_seed(7)
    import mlflow  # noqa: F401 - its own import leaves traces that are not ours

    wait_for_earlier_tests()
    before = snapshot()
    experiment = fit(new(), two(full_determinism=True))
    experiment.clone(1, {"seed": 9})
    experiment.wait()
    experiment.load(1)
    experiment.end()
    after = snapshot()
    for name, value in before.items():
        assert after[name] == value, name


def test_a_refused_run_fit_leaves_no_trace_either(new):
    from rf_notebook import ConfigError

    before = snapshot()
    with pytest.raises(ConfigError):
        fit(new(), two(), num_chunks=99)
    with pytest.raises(ConfigError):
        fit(
            new(),
            two(load_best_model_at_end=True, eval_strategy="steps", save_strategy="epoch"),
            num_chunks=3,
        )
    after = snapshot()
    for name, value in before.items():
        assert after[name] == value, name


@pytest.mark.parametrize("trackers", ["", "tensorboard,wandb,trackio"])
def test_nothing_is_written_outside_the_experiments_folder(tmp_path, trackers):
    """In a process with a home and a working directory of its own; and nothing listens to a port."""
    code = """
    import sys
    import psutil
    from pathlib import Path
    from rf_notebook import Experiment
    from tests.experiment_world import fit, two
    experiment = Experiment("files", experiment_path=sys.argv[1])
    track = ["mlflow", *filter(None, sys.argv[2].split(","))]
    fit(experiment, two(), track=track)
    experiment.wait()
    mine = psutil.Process()
    family = [mine, *mine.children(recursive=True)]
    ports = [c for one in family for c in one.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert not ports, ports
    assert len(family) >= len(track), family
    experiment.end()
    assert not mine.children(recursive=True)
    """
    home, work, target = tmp_path / "home", tmp_path / "work", tmp_path / "experiments"
    for folder in (home, work):
        folder.mkdir()
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "MLFLOW_", "HF_"))
    }
    environment |= {
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(work),
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "offline",
    }
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), str(target), trackers],
        check=True,
        cwd=work,
        env=environment,
        timeout=120,
    )
    left = [
        str(p.relative_to(tmp_path))
        for root in (home, work)
        for p in root.rglob("*")
        if p.is_file()
    ]
    assert left == []
    assert {p.name for p in (target / "files").iterdir()} == {
        "experiment.log",
        "experiment.sqlite",
        "mlflow.db",
        "mlflow_artifacts",
        "record.json",
        "runs",
        *filter(None, trackers.split(",")),
    }
    losses = tracker_tests.tensorboard(target / "files") if trackers else {}
    assert all(run["losses"] for run in losses.values())


def test_no_port_is_opened(new):
    import psutil

    before = {c.laddr for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN}
    experiment = fit(new(), two())
    during = {c.laddr for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN}
    experiment.wait()
    experiment.end()
    assert during == before
