"""Which experiments does this process know?"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from rf_notebook.core.change import ChangeSignal
from rf_notebook.core.errors import ConfigError, IllegalOperation
from rf_notebook.session.session import Session
from rf_notebook.store import layout
from rf_notebook.store.disposal import remove_folder

if TYPE_CHECKING:
    from rf_notebook.session.backend import Backend

#: Where experiments lie when no path is given, in the working directory.
FOLDER = "rf_experiments"

#: Changes whenever something worth looking at changes in any experiment of this process.
signal = ChangeSignal()
#: The experiments that are open for training in this process, by their folders.
open_sessions: dict[Path, Session] = {}
#: Every experiment that somebody still holds.
_known: WeakValueDictionary[Path, Session] = WeakValueDictionary()
#: The experiment that was used last, if any.
_latest: deque[Session] = deque(maxlen=1)


def session_of(
    name: str, path: str | Path | None = None, backend: Backend | None = None
) -> Session:
    """The experiment of a name as this process has it open.

    Read from the disk when it is not open yet.

    Args:
        name: The experiment's name.
        path: The folder of its folder; "rf_experiments" in the working directory when omitted.
        backend: Who trains; the libraries when omitted.
    """
    folder = folder_of(name, path)
    present = open_sessions.get(folder)
    if present is not None and present.is_training:
        return present
    session = Session(name, folder, backend=backend, changes_also=signal)
    _known.setdefault(folder, session)
    return session


def folder_of(name: object, path: str | Path | None = None) -> Path:
    """Where an experiment lies, absolute. See ``session_of``."""
    return (Path(path if path is not None else FOLDER) / str(name)).absolute()


def opened(session: Session) -> Session:
    """An experiment begins to train: it is kept, and is the one that is used; returns it."""
    open_sessions[session.folder] = session
    return use(session)


def closed(session: Session) -> None:
    """An experiment no longer trains: it is forgotten when it is not held any more."""
    open_sessions.pop(session.folder, None)


def use(session: Session) -> Session:
    """Make an experiment the one that ``%rapidfire`` means; returns it."""
    _known[session.folder] = session
    _latest.append(session)
    signal.changed()
    return session


def latest_session() -> Session | None:
    """The one that was trained, or opened by ``%rapidfire open``, last."""
    return _latest[-1] if _latest else None


def known_sessions() -> list[Session]:
    """Those that this process trains, uses or still holds; the one used last at the end."""
    found = {folder: session for folder, session in [*_known.items(), *open_sessions.items()]}
    for latest in _latest:
        found.pop(latest.folder, None)
        found[latest.folder] = latest
    return list(found.values())


def recorded_experiments(path: str | Path | None = None) -> list[str]:
    """Names of the experiments whose record lies in a folder, "rf_experiments" when omitted."""
    return layout.recorded_in(Path(path if path is not None else FOLDER))


def remove(name: str, path: str | Path | None = None) -> None:
    """Remove an experiment from the disk, its record, checkpoints and figures.

    Args:
        name: The experiment's name.
        path: See ``session_of``.

    Raises:
        ConfigError: when there is none of this name.
        IllegalOperation: when it is open for training in this process.
        ReadOnlyExperiment: when another process trains it.
        StoreError: when it cannot be removed.
    """
    if name not in recorded_experiments(path):
        known = ", ".join(recorded_experiments(path)) or "none"
        raise ConfigError(f"no experiment {name!r:.100} is recorded here; there are: {known:.300}.")
    folder = folder_of(name, path)
    session = open_sessions.get(folder) or _known.get(folder)
    if session is not None and session.training is not None:
        raise IllegalOperation(
            f"experiment {name!r} is open for training here; end it first, as in experiment.end()."
        )
    if session is not None and session.store is not None:
        session.store.close()
        session.store = None
    remove_folder(folder)
    _known.pop(folder, None)
    if _latest and _latest[-1].folder == folder:
        _latest.clear()
    signal.changed()


def forget_all() -> None:
    """Start as a new process would; for tests."""
    open_sessions.clear()
    _known.clear()
    _latest.clear()
