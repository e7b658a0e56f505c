"""Twenty threads ask for operations at once: each is answered, and the record tells the same as the state."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable
from typing import Any

from rf_notebook import Experiment
from rf_notebook.core.errors import RFNotebookError
from rf_notebook.testing.fake_backend import FakeBackend
from tests.api.world import fit, two
from tests.campaign.part import Part
from tests.campaign.world import NAME, close, opened, shown

_THREADS, _EACH = 20, 25
_ANSWERED_WITHIN = 30.0


class Operations(Part):
    """Stop, resume, clone, label, pin, pause and undo, of runs that are there and that are not."""

    most_seconds = 120.0

    def attempt(self, draw: random.Random) -> str:
        """See Part."""
        place = self.folder / "asked"
        shutil.rmtree(place, ignore_errors=True)
        backend = FakeBackend(on_step=lambda _run_id, _step: time.sleep(0.001))
        experiment = Experiment(NAME, experiment_path=place, runner=backend)
        fit(experiment, two(num_train_epochs=20), num_chunks=8)
        faults: list[str] = []
        threads = [
            threading.Thread(
                target=self._ask, args=(experiment, random.Random(draw.random()), faults)
            )
            for _ in range(_THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        experiment.cancel_current()
        told = shown(experiment)
        close(experiment)
        again = opened(place)
        if shown(again) != told:
            faults.append("the record tells something else than was shown")
        close(again)
        return "; ".join(dict.fromkeys(faults))

    def _ask(self, experiment: Experiment, draw: random.Random, faults: list[str]) -> None:
        for _ in range(_EACH):
            time.sleep(draw.uniform(0, 0.02))
            run = draw.randrange(1, 12)
            asked: list[Callable[[], Any]] = [
                lambda: experiment.stop(run),  # noqa: B023 - called below
                lambda: experiment.resume(run),  # noqa: B023
                lambda: experiment.clone(run, {"learning_rate": draw.uniform(1e-4, 1e-2)}),  # noqa: B023
                lambda: experiment.clone(run, warm_start=True),  # noqa: B023
                lambda: experiment.label(run, note="seen"),  # noqa: B023
                lambda: experiment.pin(run),  # noqa: B023
                lambda: experiment.undo(run),  # noqa: B023
                lambda: experiment.delete(run) if draw.random() < 0.1 else experiment.stop(run),  # noqa: B023
                experiment.pause,
                experiment.resume,
            ]
            ask = draw.choices(asked, [4, 4, 1, 1, 2, 2, 1, 1, 1, 2])[0]
            try:
                ask().result(_ANSWERED_WITHIN)
            except RFNotebookError:
                continue  # refused, and told
            except TimeoutError:
                faults.append("an operation was not answered")
            except Exception as error:
                faults.append(f"{type(error).__name__}: {error}")
