"""Lives of one experiment, each in a process forked from one that has the libraries.

Importing takes seconds and a test needs dozens of lives; a forked child is a process like any
other.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests import warm

ROOT = Path(__file__).parents[2]


class Server:
    """A process that forks a life on request and tells how it ended."""

    def __init__(self, execution: str) -> None:
        self.execution = execution

    def __enter__(self) -> Server:
        self._process = subprocess.Popen(
            [*warm.python(), "-W", "ignore", "-m", "tests.crash.forked"],
            cwd=ROOT,
            env=os.environ | {"RF_CRASH_EXECUTION": self.execution},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()

    def life(
        self, folder: Path, *, kill_at: str = "", times: int = 1, kill_after: float | None = None
    ) -> int:
        """Exit status of one life: 0 for one that reached the end, -9 for one that was killed."""
        folder.mkdir(parents=True, exist_ok=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{folder}\t{kill_at}\t{times}\t{kill_after or 0}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def main() -> None:
    import signal
    import threading
    import time

    import rf_notebook.training.runner  # noqa: F401 - what takes the time
    from rf_notebook.core.telemetry import without_telemetry
    from tests.crash import child

    with without_telemetry():
        import mlflow  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for line in sys.stdin:
        folder, point, times, after = line.rstrip("\n").split("\t")
        pid = os.fork()
        if pid == 0:
            os.environ.pop(
                "MLFLOW_TRACKING_URI", None
            )  # kills are to hit the experiment's own database
            sys.argv = ["child", folder, *([point, times] if point else [])]
            if float(after):

                def kill(seconds: float = float(after)) -> None:
                    time.sleep(seconds)
                    os.kill(os.getpid(), signal.SIGKILL)

                threading.Thread(target=kill, daemon=True).start()
            status = 1
            try:
                child.main()
                status = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            os._exit(status)
        _, status = os.waitpid(pid, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


if __name__ == "__main__":
    main()
