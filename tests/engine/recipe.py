"""What a test's worker process makes its runner from; imported there, so it imports little."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rf_notebook.core.objects import Objects
from rf_notebook.testing.fake_runner import FakeRunner

STEP = "step"


@dataclass(frozen=True)
class FakeRecipe:
    """See Recipe: before each step the runner tells of it, and waits until it may go on."""

    folder: str
    options: dict[str, Any]

    @contextmanager
    def cooked(self, objects: Objects, listener: Any, log: logging.Logger) -> Any:
        steps = [0]

        def on_step(run_id: int, step: int) -> None:
            steps[0] += 1
            log.info(f"{STEP} {run_id} {step}")
            while f"allowed {steps[0]}" not in objects:
                time.sleep(0.0001)

        yield FakeRunner(Path(self.folder), listener=listener, on_step=on_step, **self.options), {}
