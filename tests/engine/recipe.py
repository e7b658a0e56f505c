"""What a test's worker process makes its runner from; imported there, so it imports little."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rf_notebook.core.objects import Objects
from rf_notebook.core.run import Failure
from rf_notebook.core.runner import TurnOutcome
from rf_notebook.testing.fake_runner import FakeRunner

STEP = "step"


@dataclass(frozen=True)
class FakeRecipe:
    """See Recipe: before each step the runner tells of it, and waits until it may go on."""

    options: dict[str, Any]

    @contextmanager
    def cooked(self, folder: Path, objects: Objects, listener: Any, log: logging.Logger) -> Any:
        steps = [0]

        def on_step(run_id: int, step: int) -> None:
            steps[0] += 1
            log.info(f"{STEP} {run_id} {step}")
            while f"allowed {steps[0]}" not in objects:
                time.sleep(0.0001)

        breaks_at = self.options.pop("breaks_at", None)
        runner = FakeRunner(folder, listener=listener, on_step=on_step, **self.options)
        if breaks_at is not None:
            train = runner.train

            def breaking(requests: Any) -> Any:
                """As after an illegal memory access: what is asked for from then on fails."""
                results = train(requests)
                runner.is_broken = runner.steps_trained >= breaks_at
                broken = Failure(message="CUDA error: illegal memory access", traceback="")
                return tuple(
                    replace(one, outcome=TurnOutcome.FAILED, failure=broken)
                    if runner.is_broken
                    else one
                    for one in results
                )

            runner.train = breaking  # type: ignore[method-assign]
        yield runner, {}
