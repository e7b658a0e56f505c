"""A Ray head of a test's own, as docs/clusters/slurm.sh starts it: on the loopback device, with a token,
in folders of its own.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from tests import bucket

#: Ray gives up by itself after 30 s; on a machine that is at work it takes several tries.
SECONDS = 120.0
#: The job of docs/clusters, which starts a head with `ray start`.
SCRIPT = Path(__file__).parents[1] / "docs" / "clusters" / "slurm.sh"
_SETTLED_SECONDS = 18.0


class Head:
    """One node; it can be killed and started again at the same address."""

    def __init__(self, folder: Path, cpus: int = 2) -> None:
        """Start nothing yet.

        Args:
            folder: For its token; paths of sockets are short, so those are elsewhere.
            cpus: That it offers.
        """
        self.folder, self.cpus = folder, cpus
        self.port, self.client_port = (free_port() for _ in range(2))
        self.sessions = Path("/tmp") / f"rf-ray-{secrets.token_hex(4)}"
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # or 127.0.0.1 becomes the machine's address
            "HOME": str(folder),
        }
        self.log = folder / "head.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> str | None:
        """Try until it is up; why it is not."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            if self._try(until):
                return None
            self.kill()
        return f"no Ray head came up within {SECONDS:.0f} s: {self.log.read_text()[-300:]!r}"

    @property
    def is_up(self) -> bool:
        """Whether it was started and is there."""
        return self._process is not None and not self.has_died

    @property
    def has_died(self) -> bool:
        """Whether it ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def kill(self) -> None:
        """As when the machine goes away."""
        if self._process is None:
            return
        family: list[Any] = [self._process]
        with contextlib.suppress(psutil.NoSuchProcess):
            family += psutil.Process(self._process.pid).children(recursive=True)
        for one in psutil.process_iter(["cmdline"]):  # of a head that died by itself, orphans
            if any(str(self.sessions) in part for part in one.info["cmdline"] or ()):
                family.append(one)
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                one.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def drainer(self) -> subprocess.Popen[str]:
        """Drains the node, as a cloud does before it takes it away, as soon as it is told a line."""
        code = """
import sys, time
from ray._raylet import GcsClient
client = GcsClient(address=sys.argv[1])
(node,) = client.get_all_node_info()
print("ready", flush=True)
sys.stdin.readline()
print(client.drain_node(node.hex(), 2, "it is preempted", int((time.time() + 60) * 1000)))
"""
        drainer = subprocess.Popen(
            [sys.executable, "-c", code, self.address],
            env={**os.environ, **self.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert drainer.stdout is not None
        assert drainer.stdout.readline() == "ready\n"
        return drainer

    def _try(self, until: float) -> bool:
        more = bucket.ENVIRONMENT | {
            "RAY_memory_monitor_refresh_ms": "0",
            "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
            "PATH": f"{self._programs()}:{os.environ['PATH']}",
            "RF_RAY_PORT": str(self.port),
            "RF_RAY_CLIENT_PORT": str(self.client_port),
            "SLURM_JOB_NODELIST": "n1",
            "SLURM_JOB_NUM_NODES": "1",
        }
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                ["bash", SCRIPT],
                env={**os.environ, **self.environment, **more},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while not self.has_died and time.monotonic() < until:
            if "Ray runtime started" in self.log.read_text():
                return self._stays()
            time.sleep(0.2)
        return False

    def _programs(self) -> Path:
        """A folder with what the job's script calls, as it is on a machine without slurm."""
        here = self.folder / "programs"
        here.mkdir(exist_ok=True)
        options = f"--num-cpus={self.cpus} --num-gpus=0 --object-store-memory=100000000"
        options += f" --disable-usage-stats --temp-dir={self.sessions}"
        programs = {
            "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
            "scontrol": "echo n1",
            "hostname": "echo 127.0.0.1",
            "ray": f'exec {sys.executable} -m ray.scripts.scripts "$@" {options}',
        }
        for name, line in programs.items():
            (here / name).write_text(f"#!/bin/bash\n{line}\n")
            (here / name).chmod(0o755)
        return here

    def _stays(self) -> bool:
        """Whether it outlives the 15 s in which its helpers have to be there."""
        until = time.monotonic() + _SETTLED_SECONDS
        while time.monotonic() < until and not self.has_died:
            time.sleep(0.2)
        return not self.has_died


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
