"""Where does everything of an experiment lie? Every path below its folder."""

from __future__ import annotations

from pathlib import Path

_RECORD = "experiment.sqlite"


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


def studies(folder: Path) -> Path:
    """Optuna's studies, where a search has some."""
    return folder / "optuna.db"


def data(folder: Path) -> Path:
    """Copies of data that lies in files."""
    return folder / "data"


def run(folder: Path, run_id: int) -> Path:
    """Everything of one run."""
    return folder / "runs" / str(run_id)


def trainer(folder: Path, run_id: int) -> Path:
    """What trl's trainer of a run writes by itself."""
    return run(folder, run_id) / "trainer"


def checkpoint(run_id: int, steps: int) -> str:
    """A run's checkpoint after so many steps, relative to the experiment's folder, with forward slashes."""
    return f"runs/{run_id}/{steps}"


def warm_start(run_id: int) -> str:
    """The adapter that a run starts from, likewise."""
    return f"runs/{run_id}/warm_start"
