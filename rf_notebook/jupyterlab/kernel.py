"""The experiments of this kernel, as JupyterLab's extension sees them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import ConfigError
from rf_notebook.jupyterlab.recorded import recorded_words
from rf_notebook.replay.again import replay_again
from rf_notebook.replay.sharing import export_to
from rf_notebook.session import registry
from rf_notebook.session.commands import Commands
from rf_notebook.session.registry import (
    FOLDER,
    known_sessions,
    recorded_experiments,
    session_of,
    use,
)
from rf_notebook.store import layout
from rf_notebook.store.glance import Glance, Recorded, glance
from rf_notebook.widgets.display import ExperimentDisplay, display_of

if TYPE_CHECKING:
    from rf_notebook.core.values import Json
    from rf_notebook.session.cells import Sources
    from rf_notebook.session.session import Session

#: How often the folder of records is looked through.
_LOOK_SECONDS = 5.0


class KernelExperiment:
    """See protocols.LabExperiment."""

    def __init__(self, session: Session) -> None:
        """Every method may be called from any thread.

        Args:
            session: What is open.
        """
        self.session = session
        self.commands = Commands(session)

    @property
    def folder(self) -> Path:
        """See LabExperiment."""
        return self.session.folder

    @property
    def log_path(self) -> Path:
        """See LabExperiment."""
        return self.session.log.path.absolute()

    @property
    def sources(self) -> Sources | None:
        """See LabExperiment."""
        return self.session.sources

    @property
    def saved_seq(self) -> int:
        """See LabExperiment."""
        display = self.session.display
        return self._display.saved_seq if display is not None and display.is_shown else 0

    def replay(self) -> str:
        """See LabExperiment."""
        return replay_again(self.session, None).name

    def export_notebook(self, path: str) -> Path:
        """See LabExperiment."""
        return export_to(self.session, Path(path))

    def saved_bundle(self) -> dict[str, Json]:
        """See LabExperiment."""
        return self._display.saved_bundle()

    def panel_model(self) -> str:
        """See LabExperiment."""
        return str(self._display.panel.widget.model_id)

    def panel_bundle(self) -> dict[str, Json]:
        """See LabExperiment."""
        return self._display.live_bundle()

    def clone_form_model(self, run_id: int, *, warm: bool) -> str:
        """See LabExperiment."""
        form = self._display.panel.clone_form
        form.open(run_id, warm=warm)
        return str(form.box.model_id)

    @property
    def _display(self) -> ExperimentDisplay:
        return display_of(self.session, self.commands)


class KernelExperiments:
    """See protocols.Experiments."""

    def __init__(self) -> None:
        """Every method may be called from any thread."""
        self._looked_at = float("-inf")
        self._seen: dict[str, tuple[tuple[int, int], Glance, str]] = {}

    def known(self) -> Sequence[KernelExperiment]:
        """See Experiments."""
        return [
            KernelExperiment(one)
            for one in known_sessions()
            if one.state.started or one.is_preparing
        ]

    def recorded(self) -> Mapping[str, Mapping[str, Any]]:
        """See Experiments."""
        if time.monotonic() - self._looked_at > _LOOK_SECONDS:
            self._looked_at = time.monotonic()
            self._seen = {name: self._glance(name) for name in recorded_experiments()}
        known = {session.folder for session in known_sessions() if session.state.started}
        return {
            name: {"standing": str(found.standing), "runs": found.runs, "words": words}
            for name, (_, found, words) in self._seen.items()
            if (Path(FOLDER) / name).absolute() not in known
        }

    def open(self, name: str) -> None:
        """See Experiments."""
        if name not in recorded_experiments():
            raise ConfigError(
                f"no experiment {name!r:.100} is recorded in {Path(FOLDER).absolute()}."
            )
        use(session_of(name))

    def remove(self, name: str) -> None:
        """See Experiments."""
        registry.remove(name)
        self._looked_at = float("-inf")
        registry.signal.changed()

    def wait_for_change(self, seen: int, timeout: float) -> int:
        """See Experiments."""
        return registry.signal.wait(seen, timeout)

    def _glance(self, name: str) -> tuple[tuple[int, int], Glance, str]:
        path = layout.record(Path(FOLDER) / name)
        try:
            stat = path.stat()
        except OSError:
            return (0, 0), Glance(standing=Recorded.UNREADABLE), ""
        key = (stat.st_mtime_ns, stat.st_size)
        held = self._seen.get(name)
        # Whether a process still trains it is not told by the file's time.
        if held is not None and held[0] == key and held[1].standing is not Recorded.ELSEWHERE:
            return held
        return key, glance(path), recorded_words(path.parent, stat.st_mtime)
