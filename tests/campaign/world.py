"""A small experiment over a runner whose training is arithmetic, and all that is shown of it."""

from __future__ import annotations

import json
import time
from pathlib import Path

from rf_notebook import Experiment
from rf_notebook.core.errors import RFNotebookError
from rf_notebook.session.registry import forget_all
from rf_notebook.session.stored import in_use
from rf_notebook.store.folders import verify_folder
from rf_notebook.testing.fake_backend import FakeBackend
from tests.api.world import curve, fit, two

NAME = "campaign"


def train(path: Path, *, seconds: float = 0.0, take_over: bool = False) -> Experiment:
    """Begin or continue it.

    Args:
        path: The folder of its folder.
        seconds: Of a step.
        take_over: See ``run_fit``.
    """
    backend = FakeBackend(on_step=lambda _run_id, _step: time.sleep(seconds))
    experiment = Experiment(NAME, experiment_path=path, runner=backend)
    return fit(experiment, two(num_train_epochs=2), num_chunks=4, take_over=take_over)


def opened(path: Path) -> Experiment:
    """It, as another kernel would open it."""
    forget_all()
    return Experiment(NAME, experiment_path=path, runner=FakeBackend())


def shown(experiment: Experiment) -> str:
    """Everything that is read from its record."""
    runs = [
        [run.id, str(run.state), run.config, curve(experiment, run.id), run.error, run.name]
        for run in experiment.runs
    ]
    return json.dumps([runs, experiment.messages], default=repr)


def close(experiment: Experiment) -> None:
    """Its files."""
    if experiment.session.training is not None:
        experiment.cancel_current()
    if experiment.session.store is not None:
        experiment.session.store.close()
    forget_all()


def damaged_checkpoints(experiment: Experiment) -> list[str]:
    """Those in use that are not what was recorded, as a run that needs one is told."""
    found = []
    for one in in_use(experiment.session.state):
        try:
            verify_folder(experiment.folder, one)
        except RFNotebookError as error:
            found.append(str(error))
    return found
