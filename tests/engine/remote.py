"""The fake runner in a worker process, whose every step can be played upon from here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rf_notebook.core.objects import Objects
from rf_notebook.engine.loop import Engine
from rf_notebook.runners.messages import Bring
from rf_notebook.runners.process import ProcessFleet
from rf_notebook.runners.recipe import pickled
from tests.engine.recipe import STEP, FakeRecipe


class RemoteFleet(ProcessFleet):
    """Lets a test's ``on_step`` run in the engine's thread while the worker waits.

    What ``on_step`` asks of the engine has reached the worker before it goes on, as it does in the
    kernel.
    """

    def __init__(
        self, folder: Path, *, on_step: Callable[[int, int], None], **options: Any
    ) -> None:
        log = logging.Logger("remote")
        log.addFilter(self._hear)
        self.on_step = on_step
        self.engine: Engine | None = None
        self._allowed = 0
        self._is_waiting = False
        super().__init__(FakeRecipe(str(folder), options), Objects(), device="cpu", log=log)

    def next(self, timeout: float | None) -> Any:
        if self._is_waiting:
            self._allow()
        return super().next(timeout)

    def restart(self, device: str) -> None:
        self._allowed, self._is_waiting = 0, False
        super().restart(device)

    def kill(self) -> None:
        """As the system does for want of memory."""
        self._process.kill()

    def _hear(self, record: logging.LogRecord) -> bool:
        words = record.getMessage().removeprefix("cpu: ").split()
        if words[0] == STEP:
            self._is_waiting = True
            self.on_step(int(words[1]), int(words[2]))
            if self.engine is None or self.engine.mailbox.first() is None:
                self._allow()
            else:
                self.wake()  # as whoever asks from another thread does
        return False

    def _allow(self) -> None:
        self._is_waiting = False
        self._allowed += 1
        self._send(Bring(values={f"allowed {self._allowed}": pickled(True, "it")}))
