"""A fleet of one worker process on this machine.

The kernel's process is left alone, and nothing but a pipe is opened.
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
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.fleet import Answer, DeviceFacts, DeviceTurn, Lost, Message
from rf_notebook.core.run import RunConfig, objects_in, secrets_in
from rf_notebook.core.runner import (
    Errand,
    LiveListener,
    ReadModel,
    Saved,
    SavedListener,
    WriteTexts,
)
from rf_notebook.runners.messages import (
    Ask,
    Begin,
    Bring,
    Close,
    Interrupt,
    Live,
    LogLine,
    OpenExperiment,
    Ready,
)
from rf_notebook.runners.recipe import Recipe, pickled

if TYPE_CHECKING:
    from rf_notebook.core.objects import Objects

#: Run by the worker's interpreter: this process's search path first, so that the user's modules are
#: found.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "from rf_notebook.runners.worker import main; main(int(sys.argv[1]))"
)
#: Lines of what a worker wrote last, which say why it ended.
_LAST_WORDS = 40
_CLOSE_SECONDS = 10.0


class ProcessFleet:
    """See core.fleet.Fleet."""

    def __init__(
        self, recipe: Recipe, objects: Objects, *, device: str, log: logging.Logger
    ) -> None:
        """Start the worker; it imports the libraries while the kernel does something else.

        Args:
            recipe: What its runner is made of.
            objects: Functions and other values behind the configs' names; what a turn needs is sent
                with it.
            device: "cpu" or "cuda:N".
            log: The experiment's.

        Raises:
            ConfigError: for what cannot be sent to another process.
        """
        if sys.platform == "win32":
            raise ConfigError("devices= needs Linux or macOS; leave it out to train in the kernel.")
        self.listener: LiveListener | None = None
        self.on_saved: SavedListener | None = None
        self._device = device
        self._objects = objects
        self._log = log
        self._opening = OpenExperiment(recipe=pickled(recipe, "the experiment"))
        self._facts = DeviceFacts(name=device)
        # Of the moment of the launch, also for a worker that is started again after a cell has
        # changed them.
        self._directory, self._path = Path.cwd(), list(sys.path)
        self._environment = {**os.environ, **visible_to(device)}
        self._wake_in, self._wake_out = Pipe(duplex=False)
        self._waking, self._is_woken = threading.Lock(), False
        self._sending = threading.Lock()
        self._answers: deque[Message] = deque()
        self._is_abandoned = False
        self._is_ready = False
        """Whether the worker has begun to listen."""
        self._start()

    @property
    def pid(self) -> int:
        """Of the worker."""
        return self._process.pid

    def devices(self) -> Sequence[DeviceFacts]:
        """See Fleet."""
        return [self._facts]

    def begin(self, device: str, turn: DeviceTurn) -> None:
        """See Fleet."""
        for request in turn.requests:
            self._bring(request.config)
        self._send(Begin(turn=turn))

    def interrupt(self, device: str, turn: int) -> None:
        """See Fleet."""
        self._send(Interrupt(turn=turn))

    def ask(self, device: str, errand: int, what: Errand) -> None:
        """See Fleet."""
        if isinstance(what, ReadModel):  # a model in the worker is of no use here
            self._answers.append(Answer(errand=errand))
            return
        models = what.models if isinstance(what, WriteTexts) else (what,)
        for one in models:
            config = getattr(one, "config", None)
            if config is not None:
                self._bring(config)
        self._send(Ask(errand=errand, what=what))

    def next(self, timeout: float | None) -> tuple[str, Message] | None:
        """See Fleet."""
        if self._answers:
            return self._device, self._answers.popleft()
        while True:
            ready = wait([self._pipe, self._wake_in], timeout)
            if self._wake_in in ready:
                with self._waking:
                    self._wake_in.recv_bytes()
                    self._is_woken = False
                return None
            if not ready:
                return None
            try:
                said = self._pipe.recv()
            except (EOFError, OSError):
                return self._device, Lost(reason=self._reason(), was_ready=self._is_ready)
            match said:
                case Live():
                    if self.listener is not None:
                        self.listener(said.run_id, said.progress, said.point)
                case Saved():
                    if self.on_saved is not None:
                        self.on_saved(said)
                    return None
                case LogLine():
                    self._log.log(said.level, "%s: %s", self._device, said.text)
                case Ready():
                    self._is_ready = True
                    self._facts = DeviceFacts(name=self._device, environment=said.environment)
                case _:
                    return self._device, said

    def wake(self) -> None:
        """See Fleet."""
        with self._waking, contextlib.suppress(OSError):  # closed: nothing waits any more
            if not self._is_woken:
                self._wake_out.send_bytes(b"!")
                self._is_woken = True

    def restart(self, device: str) -> None:
        """See Fleet."""
        self._end()
        if not self._is_abandoned:
            self._start()

    def abandon(self) -> None:
        """See Fleet."""
        self._is_abandoned = True
        self._process.kill()

    def close(self) -> None:
        """See Fleet."""
        self._send(Close())
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_SECONDS)
        self._end()
        self._wake_in.close()
        self._wake_out.close()

    # ---- the process

    def _start(self) -> None:
        ours, theirs = Pipe()
        self._is_ready = False
        self._sent: dict[str, int] = {}
        """Ids of the objects that the worker has, by name."""
        self._last_words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, str(theirs.fileno()), json.dumps(self._path)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=self._directory,
            env=self._environment,
            start_new_session=True,  # an interrupt of the notebook is not for it
        )
        theirs.close()
        self._pipe: Connection = ours
        self._reader = threading.Thread(
            target=self._read_words,
            args=(self._process, self._last_words),
            name="rf-worker-words",
            daemon=True,
        )
        self._reader.start()
        self._send(self._opening)

    def _end(self) -> None:
        """Let the process and its pipe go."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        self._pipe.close()

    def _read_words(self, process: subprocess.Popen[str], words: deque[str]) -> None:
        """What the worker prints goes to the log, and its last lines say why it ended."""
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                words.append(line.rstrip())
                self._log.info("%s: %s", self._device, line.rstrip())

    def _reason(self) -> str:
        code = self._process.wait()
        self._reader.join(1.0)
        if code == -signal.SIGKILL:
            return "it was killed, perhaps by the system for want of memory"
        said = next((line for line in reversed(self._last_words) if line.strip()), "")
        how = f"by signal {-code}" if code < 0 else f"with status {code}"
        return f"it ended {how}{': ' + said[:300] if said else ''}"

    def _send(self, message: object) -> None:
        """A worker that is gone hears nothing; ``next`` tells of it."""
        with self._sending, contextlib.suppress(OSError):
            self._pipe.send(message)

    # ---- what is sent

    def _bring(self, config: RunConfig) -> None:
        """Send what a config refers to and the worker does not have yet, or has another value of."""
        body = config.as_json()
        names = [*objects_in(body), *(f"secret {name}" for name in secrets_in(body))]
        values = {name: self._objects.get(name) for name in names}
        new = {name: value for name, value in values.items() if self._sent.get(name) != id(value)}
        if new:
            self._send(
                Bring(
                    values={
                        name: pickled(value, name.partition("@")[0]) for name, value in new.items()
                    }
                )
            )
            self._sent |= {name: id(value) for name, value in new.items()}


def visible_to(device: str) -> dict[str, str]:
    """The environment in which a process sees one device alone; set before it imports torch."""
    if device == "cpu":
        return {"CUDA_VISIBLE_DEVICES": ""}
    number = int(device.partition(":")[2] or 0)
    listed = [one for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one]
    return {"CUDA_VISIBLE_DEVICES": listed[number] if number < len(listed) else str(number)}
