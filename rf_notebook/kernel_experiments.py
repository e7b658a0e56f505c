"""The process's experiments as JupyterLab's extension sees them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import ConfigError
from rf_notebook.jupyterlab.host import LabHost
from rf_notebook.registry import FOLDER, known_experiments, open_experiments, recorded_experiments, use
from rf_notebook.store import layout
from rf_notebook.store.glance import Glance, Recorded, glance

if TYPE_CHECKING:
    from rf_notebook.experiment import Experiment

#: How often the folder of records is looked through.
_LOOK_SECONDS = 5.0


class KernelExperiments:
    """See lab.host.Experiments."""

    def __init__(self, make: Callable[[str], Experiment]) -> None:
        """Every method may be called from any thread.

        Args:
            make: The class Experiment.
        """
        self._make = make
        self._looked_at = float("-inf")
        self._seen: dict[str, tuple[tuple[int, int], Glance]] = {}

    def known(self) -> Sequence[LabHost]:
        """See Experiments."""
        return [one._host for one in known_experiments() if one._state.started or one._is_preparing]

    def recorded(self) -> Mapping[str, Mapping[str, Any]]:
        """See Experiments."""
        if time.monotonic() - self._looked_at > _LOOK_SECONDS:
            self._looked_at = time.monotonic()
            self._seen = {name: self._glance(name) for name in recorded_experiments()}
        known = {experiment.folder.absolute() for experiment in known_experiments() if experiment._state.started}
        return {
            name: {"standing": str(found.standing), "runs": found.runs}
            for name, (_, found) in self._seen.items()
            if (Path(FOLDER) / name).absolute() not in known
        }

    def open(self, name: str) -> None:
        """See Experiments."""
        if name not in recorded_experiments():
            raise ConfigError(f"no experiment {name!r:.100} is recorded in {Path(FOLDER).absolute()}.")
        use(self._make(name))

    def wait_for_change(self, seen: int, timeout: float) -> int:
        """See Experiments."""
        for experiment in list(open_experiments.values()):
            if experiment._thread is not None and experiment._thread.is_alive:
                return experiment._thread.engine.publisher.wait_for_change(seen, timeout)
        time.sleep(timeout)
        return seen

    def _glance(self, name: str) -> tuple[tuple[int, int], Glance]:
        path = layout.record(Path(FOLDER) / name)
        try:
            stat = path.stat()
        except OSError:
            return (0, 0), Glance(standing=Recorded.UNREADABLE)
        key = (stat.st_mtime_ns, stat.st_size)
        held = self._seen.get(name)
        # Whether a process still trains it is not told by the file's time.
        if held is not None and held[0] == key and held[1].standing is not Recorded.ELSEWHERE:
            return held
        return key, glance(path)
