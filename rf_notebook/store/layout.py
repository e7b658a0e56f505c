"""Where does everything of an experiment lie? Every path below its folder."""

from __future__ import annotations

import re
from pathlib import Path

_RECORD = "experiment.sqlite"
_OF_A_RUN = re.compile(r"(\d+|warm_start)(-\d+\.\d+)?")


def record(folder: Path) -> Path:
    """The event log, by which an experiment is known."""
    return folder / _RECORD


def recorded_in(path: Path) -> list[str]:
    """Names of the experiments whose folders lie in one folder, sorted."""
    return sorted(found.parent.name for found in path.glob(f"*/{_RECORD}"))


def log(folder: Path) -> Path:
    """What happened, in lines of text."""
    return folder / "experiment.log"


def tracking(folder: Path) -> Path:
    """MLflow's database, where the user has not set a tracking server."""
    return folder / "mlflow.db"


def tensorboard(folder: Path) -> Path:
    """TensorBoard's event files, where the user wants them."""
    return folder / "tensorboard"


def wandb(folder: Path) -> Path:
    """What Weights & Biases writes on this machine, where the user wants it."""
    return folder / "wandb"


def trackio(folder: Path) -> Path:
    """Trackio's database, where the user wants it."""
    return folder / "trackio"


def studies(folder: Path) -> Path:
    """Optuna's studies, where a search has some."""
    return folder / "optuna.db"


def secrets(folder: Path) -> Path:
    """Salted digests of the secrets that configs hold, where they hold some."""
    return folder / "secrets.json"


def storage(folder: Path) -> Path:
    """Which bucket or mount holds checkpoints, where one does."""
    return folder / "storage.json"


def panel(folder: Path) -> Path:
    """How the user has arranged the panel."""
    return folder / "panel.json"


def data(folder: Path) -> Path:
    """Copies of data that lies in files."""
    return folder / "data"


def worker_data(folder: Path) -> Path:
    """Data that lies in the kernel's memory, for a worker process to map."""
    return data(folder) / "worker"


def runs(folder: Path) -> Path:
    """The checkpoints of every run."""
    return folder / "runs"


def run(folder: Path, run_id: int) -> Path:
    """Everything of one run."""
    return runs(folder) / str(run_id)


def trainer(folder: Path, run_id: int) -> Path:
    """What trl's trainer of a run writes by itself."""
    return run(folder, run_id) / "trainer"


def checkpoint(run_id: int, steps: int, fence: int, attempt: int) -> str:
    """A run's checkpoint, relative to the experiment's folder, with forward slashes.

    The fence and the attempt are in its name, so that a kernel that has lost the experiment and
    does not know it yet never writes where its successor has written. Version 0.1.0 named
    checkpoints by their steps alone.

    Args:
        run_id: The run.
        steps: That it has trained.
        fence: Of the lease under which it is written.
        attempt: Which no other checkpoint under that lease has.
    """
    return f"runs/{run_id}/{steps}-{fence}.{attempt}"


def warm_start(run_id: int, fence: int, attempt: int) -> str:
    """The adapter that a run starts from; see ``checkpoint``."""
    return f"runs/{run_id}/warm_start-{fence}.{attempt}"


def is_of_a_run(name: str) -> bool:
    """Whether a folder's name is one that ``checkpoint`` or ``warm_start`` gives or gave."""
    return _OF_A_RUN.fullmatch(name) is not None
