"""Which experiments does this process know?"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from rf_notebook.store import layout

if TYPE_CHECKING:
    from rf_notebook.experiment import Experiment

#: Where experiments lie when no path is given, in the working directory.
FOLDER = "rf_experiments"

#: The experiments that are open for training in this process, by their folders.
open_experiments: dict[Path, Experiment] = {}
#: An object of every experiment that somebody still holds: the one used last, or else the first.
_known: WeakValueDictionary[Path, Experiment] = WeakValueDictionary()
#: The experiment that was used last, if any.
_latest: deque[Experiment] = deque(maxlen=1)


def remember(experiment: Experiment) -> None:
    """Note an experiment that was made; it is forgotten when nobody holds it any more."""
    _known.setdefault(experiment.folder.absolute(), experiment)


def use(experiment: Experiment) -> Experiment:
    """Make an experiment the one that ``%rapidfire`` means; returns it."""
    _known[experiment.folder.absolute()] = experiment
    _latest.append(experiment)
    return experiment


def latest_experiment() -> Experiment | None:
    """The one that was trained, or opened by ``%rapidfire open``, last."""
    return _latest[-1] if _latest else None


def known_experiments() -> list[Experiment]:
    """Those that this process trains, uses or still holds; the one used last at the end."""
    found = {folder: experiment for folder, experiment in [*_known.items(), *open_experiments.items()]}
    for latest in _latest:
        found.pop(latest.folder.absolute(), None)
        found[latest.folder.absolute()] = latest
    return list(found.values())


def recorded_experiments(path: str | Path | None = None) -> list[str]:
    """Names of the experiments whose record lies in a folder, "rf_experiments" when omitted."""
    return layout.recorded_in(Path(path if path is not None else FOLDER))


def forget_all() -> None:
    """Start as a new process would; for tests."""
    open_experiments.clear()
    _known.clear()
    _latest.clear()
