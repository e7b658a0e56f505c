"""However a script or kernel ends, its process is gone soon, with its own exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import textwrap
import time
from pathlib import Path

import pytest

from rf_notebook import Experiment
from rf_notebook.store.folders import verify_folder
from tests import warm

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]

PREAMBLE = """
import sys, time
from rf_notebook import Experiment
from tests.experiment_world import fit, two
experiment = Experiment("exit", experiment_path=sys.argv[1])
fit(experiment, two(num_train_epochs=4000), rows=60)
while experiment.run(2).steps < 3: time.sleep(0.02)
print("training", flush=True)
"""

ENDS = {
    "the script's end": ("pass", 0),
    "sys.exit": ("sys.exit(7)", 7),
    "an unhandled error": ("raise RuntimeError('boom')", 1),
    "sys.exit in a function": ("(lambda: sys.exit('message'))()", 1),
    "an error while waiting": (
        "import threading, _thread; threading.Timer(0.3, _thread.interrupt_main).start(); experiment.wait()",
        # Python ends itself by the signal when a KeyboardInterrupt is not handled
        -signal.SIGINT,
    ),
    "SIGTERM": (
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM); import time; time.sleep(9)",
        -signal.SIGTERM,
    ),
}


def start(folder: Path, ending: str) -> subprocess.Popen[str]:
    code = textwrap.dedent(PREAMBLE) + ending
    return subprocess.Popen(
        [*warm.python(), "-W", "ignore", "-c", code, str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def check_continuable(folder: Path) -> None:
    from tests.experiment_world import fit, two

    again = Experiment("exit", experiment_path=folder)
    assert all(run.state in ("queued", "running") for run in again.runs)
    for record in again.session.state.runs.values():
        for saved in record.checkpoints:
            verify_folder(again.folder, saved.folder)
    steps = [run.steps for run in again.runs]
    fit(again, two(num_train_epochs=4000), rows=60)
    deadline = time.monotonic() + 60
    while any(run.steps <= before for run, before in zip(again.runs, steps, strict=True)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    again.cancel_current()
    again.session.store.close()


@pytest.mark.parametrize("how", ENDS)
def test_the_process_is_gone_soon_with_its_own_exit_code(how, tmp_path):
    ending, expected = ENDS[how]
    process = start(tmp_path, ending)
    for line in process.stdout:
        if line.startswith("training"):
            break
    started = time.monotonic()
    _, errors = process.communicate(timeout=30)
    seconds = time.monotonic() - started
    assert process.returncode == expected, errors[-2000:]
    assert seconds < 20, (
        f"{seconds:.1f} s"
    )  # 4 s for the step in progress, on a machine that may have other work
    assert "Fatal" not in errors
    assert "terminate called" not in errors
    if how != "SIGTERM":  # which ends a process without its exit handlers
        assert "ends with its process while 2 of 2 runs train" in errors
    check_continuable(tmp_path)


def test_a_kernel_shuts_down_and_restarts_while_it_trains(tmp_path, tmp_path_factory, monkeypatch):
    from jupyter_client import KernelManager

    monkeypatch.setenv("JUPYTER_PATH", str(warm.kernel_spec(tmp_path_factory.mktemp("jupyter"))))
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(ROOT), env={**os.environ, "PYTHONPATH": str(ROOT)})
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=60)
    code = f"import sys; sys.argv = ['x', {str(tmp_path)!r}]\n" + textwrap.dedent(PREAMBLE)
    reply = client.execute_interactive(code, timeout=120, output_hook=lambda message: None)
    assert reply["content"]["status"] == "ok", reply["content"]
    pid = manager.provisioner.pid
    started = time.monotonic()
    manager.restart_kernel(now=False)
    client.wait_for_ready(timeout=60)
    assert manager.provisioner.pid != pid
    assert time.monotonic() - started < 40  # with the new kernel's own start
    reply = client.execute_interactive(code, timeout=120, output_hook=lambda message: None)
    assert reply["content"]["status"] == "ok", reply["content"]
    started = time.monotonic()
    client.stop_channels()
    manager.shutdown_kernel(now=False)
    assert time.monotonic() - started < 20
    check_continuable(tmp_path)
