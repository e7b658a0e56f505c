"""Where does MLflow write?"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.redaction import redact
from rf_notebook.store import layout

#: Descriptors of folders whose names have what an address cannot hold. Never closed: MLflow
#: remembers what it opened by address, and another folder must not come to have the same one.
_directories: dict[Path, int] = {}


def tracking_uri_of_user() -> str | None:
    """The tracking server that the user set, secrets left out.

    None when each experiment has its own database.
    """
    given = uri_of_user()
    return None if given is None else redact(given)


def uri_of_user() -> str | None:
    """The tracking server that the user has set.

    A database named by a relative path as it is seen from here, now.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow = sys.modules.get("mlflow")
    if given is None and mlflow is not None:
        from mlflow.tracking._tracking_service.utils import is_tracking_uri_set

        given = mlflow.get_tracking_uri() if is_tracking_uri_set() else None
    scheme, slashes, path = (given or "").partition(":///")
    is_relative = (
        scheme.startswith("sqlite")
        and slashes
        and path not in ("", ":memory:")
        and not path.startswith("/")
    )
    return f"{scheme}:///{Path(path).absolute()}" if is_relative else given


def own_database(folder: Path) -> str:
    """The URI of the database in the experiment's folder.

    MLflow 3.17 cannot use a database whose creation was cut off ("table already exists", for
    ever), so it is created next to its place and renamed.
    """
    import mlflow

    folder = folder.resolve()
    if any(sign in str(folder) for sign in "%?"):
        folder = _as_plain_path(folder)
    database = layout.tracking(folder)
    if not database.exists():
        unfinished = database.with_name(f".{database.name}.unfinished")
        unfinished.unlink(missing_ok=True)
        mlflow.MlflowClient(tracking_uri=f"sqlite:///{unfinished}").search_experiments(
            max_results=1
        )
        unfinished.rename(database)
    return f"sqlite:///{database}"


def _as_plain_path(folder: Path) -> Path:
    """The folder by another name.

    In a database's address % and ? mean something else, escaped ones, too, to MLflow.

    Source: mlflow 3.17, ``store/db/utils.py``: parents of the address as it stands are created.
    """
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        raise ConfigError(f"its database cannot lie in a folder with % or ? in its name: {folder}.")
    if folder not in _directories:
        _directories[folder] = os.open(folder, os.O_RDONLY)
    return descriptors / str(_directories[folder])
