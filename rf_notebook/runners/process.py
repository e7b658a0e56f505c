"""Worker processes on this machine, one for each device.

The kernel's process is left alone, and nothing but pipes is opened.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from typing import TYPE_CHECKING

from rf_notebook.core.errors import ConfigError
from rf_notebook.runners.fleet import WorkerFleet
from rf_notebook.runners.links import RemoteWorker
from rf_notebook.runners.messages import Gone, OpenExperiment
from rf_notebook.runners.recipe import Recipe, pickled

if TYPE_CHECKING:
    from rf_notebook.core.fleet import DeviceFacts
    from rf_notebook.core.objects import Objects

#: Run by the process's interpreter: its parent's search path first, so that the user's modules are
#: found.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from {module} import main; main(*sys.argv[2:])"
)
#: Lines of what a process wrote last, which say why it ended.
_LAST_WORDS = 40


class ProcessFleet(WorkerFleet):
    """See core.fleet.Fleet."""

    def __init__(
        self,
        recipe: Recipe,
        objects: Objects,
        *,
        folder: Path,
        devices: Sequence[DeviceFacts],
        log: logging.Logger,
    ) -> None:
        """Start the workers.

        Args:
            recipe: What their runners are made of.
            objects: Functions and other values behind the configs' names; what a turn needs is sent
                with it.
            folder: The experiment's.
            devices: "cpu", "cuda:N" or several joined by "+", as far as is known of them.
            log: The experiment's.

        Raises:
            ConfigError: for what cannot be sent to another process.
        """
        if sys.platform == "win32":
            raise ConfigError("devices= needs Linux or macOS; leave it out to train in the kernel.")
        opening = OpenExperiment(recipe=pickled(recipe, "the experiment"), folder=str(folder))
        names = numbered([facts.name for facts in devices])
        super().__init__(
            RemoteWorker(
                replace(facts, name=name),
                partial(worker_link, Place(facts.name), partial(_write_down, log, name)),
                opening,
                objects,
                log,
            )
            for name, facts in zip(names, devices, strict=True)
        )


class Place:
    """Where a process starts: as the kernel was at the launch.

    Also for one that is started again after a cell has changed directory or environment.
    """

    def __init__(self, device: str, directory: Path | None = None) -> None:
        """As it is now.

        Args:
            device: What the process sees: "cpu", "cuda:N", or several joined by "+".
            directory: Where it starts, when that is not here.
        """
        self.directory, self.path = directory or Path.cwd(), list(sys.path)
        self.environment = {**os.environ, **visible_to(device)}


class ProcessLink:
    """See Link: a process of this machine, and the pipe to it."""

    def __init__(
        self,
        place: Place,
        module: str,
        *arguments: str,
        write_down: Callable[[str], object],
        descriptors: Sequence[int] = (),
    ) -> None:
        """Start it.

        Args:
            place: Where.
            module: Has a function ``main`` of the descriptor of its pipe and the arguments.
            arguments: Of that.
            write_down: Takes what it prints, line by line, in a thread.
            descriptors: Of further pipes that it has.
        """
        self.pipe, theirs = Pipe()
        """See Link."""
        self._sending = threading.Lock()
        self._write_down = write_down
        self._last_words: deque[str] = deque(maxlen=_LAST_WORDS)
        code = _BOOT.format(module=module)
        descriptor = str(theirs.fileno())
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(place.path), descriptor, *arguments],
            pass_fds=[theirs.fileno(), *descriptors],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=place.directory,
            env=place.environment,
            start_new_session=True,  # an interrupt of the notebook is not for it
        )
        theirs.close()
        self._reader = threading.Thread(
            target=self._read_words, name="rf-worker-words", daemon=True
        )
        self._reader.start()

    @property
    def pid(self) -> int:
        """See Link."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def send(self, message: object) -> None:
        """See Link; any thread."""
        with self._sending, contextlib.suppress(OSError):
            self.pipe.send(message)

    def send_bytes(self, message: bytes) -> None:
        """As ``send``, of a message that is pickled."""
        with self._sending, contextlib.suppress(OSError):
            self.pipe.send_bytes(message)

    def gone(self) -> Gone:
        """See Link."""
        code = self._process.wait()
        self._reader.join(1.0)
        if code == -signal.SIGKILL:
            reason = "it was killed, perhaps by the system for want of memory"
            return Gone(reason=reason, was_killed=True)
        said = next((line for line in reversed(self._last_words) if line.strip()), "")
        how = f"by signal {-code}" if code < 0 else f"with status {code}"
        return Gone(reason=f"it ended {how}{': ' + said[:300] if said else ''}")

    def kill(self) -> None:
        """See Link."""
        self._process.kill()

    def end(self, seconds: float) -> None:
        """See Link."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        self.pipe.close()

    def _read_words(self) -> None:
        """What the process prints is written down, and its last lines say why it ended."""
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._last_words.append(line.rstrip())
                self._write_down(line.rstrip())


def worker_link(place: Place, write_down: Callable[[str], object]) -> ProcessLink:
    """Start a worker process; see ProcessLink."""
    return ProcessLink(place, "rf_notebook.runners.worker", write_down=write_down)


def _write_down(log: logging.Logger, name: str, line: str) -> None:
    log.info("%s: %s", name, line)


def visible_to(device: str) -> dict[str, str]:
    """The environment in which a process sees its own devices alone; set before it imports torch."""
    listed = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    numbers = [int(one.partition(":")[2] or 0) for one in device.split("+") if one != "cpu"]
    seen = [listed[number] if number < len(listed) else str(number) for number in numbers]
    return {"CUDA_VISIBLE_DEVICES": ",".join(seen)}


def numbered(devices: Sequence[str]) -> list[str]:
    """Names of workers: one for each, also where several share the CPU."""
    if len(set(devices)) == len(devices):
        return list(devices)
    seen: dict[str, int] = {}
    found = []
    for device in devices:
        found.append(f"{device}:{seen.get(device, 0)}")
        seen[device] = seen.get(device, 0) + 1
    return found
