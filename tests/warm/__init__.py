"""Starts Python processes that need not import the libraries: see ``server``."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_START_SECONDS = 240


def python() -> list[str]:
    """The beginning of a command: what follows is as after ``python``.

    The server is started when it is first needed.
    """
    path = Path(os.environ["RF_TEST_WARM"])
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of one test run share it
        if not path.exists():
            _start(path)
    return [sys.executable, "-S", str(Path(__file__).with_name("client.py"))]


def kernel_spec(folder: Path) -> Path:
    """Write the specification of a kernel named python3 that starts so.

    Returns the folder for JUPYTER_PATH.
    """
    place = folder / "kernels" / "python3"
    place.mkdir(parents=True, exist_ok=True)
    argv = [*python(), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {
        "argv": argv,
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "metadata": {"debugger": False},
    }
    (place / "kernel.json").write_text(json.dumps(spec))
    return folder


def choose_socket() -> None:
    """Called once by the process that owns the test run, before its workers start."""
    folder = tempfile.mkdtemp(prefix="rf-warm-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["RF_TEST_WARM"] = str(Path(folder) / "socket")
    os.environ["RF_TEST_WARM_OWNER"] = str(os.getpid())


def _start(path: Path) -> None:
    log = path.with_suffix(".log")
    with log.open("w") as stream:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.warm.server",
                str(path),
                os.environ["RF_TEST_WARM_OWNER"],
            ],
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    until = time.monotonic() + _START_SECONDS
    while not path.exists():
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
        assert process.returncode is None, log.read_text()
        assert time.monotonic() < until, "the server of warm processes did not start"
    process.returncode = (
        0  # it ends after this process: no child that was forgotten, which Popen would warn of
    )
