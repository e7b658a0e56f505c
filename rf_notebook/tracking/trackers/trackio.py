"""Trackio: one of its runs a run, in the experiment's folder or where the user keeps them.

``TRACKIO_DIR``, ``TRACKIO_SPACE_ID`` and ``TRACKIO_SERVER_URL`` are heeded. What is asked of runs, and
how they end, are alerts there.
"""

from __future__ import annotations

import contextvars
import os
import re
from collections.abc import Sequence
from typing import Any

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.run import READY, MetricPoint, RunState
from rf_notebook.store import layout
from rf_notebook.store.folders import own_folder
from rf_notebook.tracking.trackers.base import Opened, ShownRun, as_in_transformers

_PLACES = ("TRACKIO_DIR", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")


class Shown:
    """See Tracker."""

    def __init__(self, opened: Opened) -> None:
        """See Tracker."""
        if not any(os.environ.get(name) for name in _PLACES):
            folder = own_folder(layout.trackio(opened.folder))
            for inside in folder.rglob("*"):
                if inside.is_symlink():
                    raise ConfigError(f"{inside} is a link, and nothing is written through one.")
            os.environ["TRACKIO_DIR"] = str(folder)
        import trackio  # it looks at the environment while it is imported

        self._trackio: Any = trackio
        self._opened = opened
        self._project = re.sub(r"[^\w\-. ]", "_", opened.name)
        self._runs: dict[int, Any] = {}
        self._starting_steps: dict[int, int] = {}
        """The first step that trackio does not have from before, by run."""
        self._alerted: dict[int, set[tuple[str, str]]] = {}

    def add(self, run: ShownRun) -> None:
        """See Tracker."""
        # init ends the run that it finds in its context
        shown = self._runs[run.run_id] = contextvars.Context().run(
            self._trackio.init,
            self._project,
            name=f"{run.name} ({self._opened.identity[:6]})",
            group=self._opened.name,
            config=run.config,
            resume="allow",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
        self._starting_steps[run.run_id] = shown._next_step  # noqa: SLF001 - how far a resumed run is, trackio tells nobody
        self._alerted[run.run_id] = self._alerts_before(shown.name)

    def log(self, run: ShownRun, points: Sequence[MetricPoint], at: float) -> None:
        """See Tracker."""
        shown = self._runs[run.run_id]
        for point in points:
            if point.step >= self._starting_steps[run.run_id]:
                shown.log(as_in_transformers(point), step=point.step)

    def change(self, run: ShownRun) -> None:
        """See Tracker."""
        for operation in run.operations:
            self._alert(run, operation, "", "INFO")
        named = ", ".join(filter(None, (run.label.name and run.title, *run.tags, run.note)))
        if named:
            self._alert(run, "labelled", named, "INFO")
        if run.state not in READY:
            bad = run.state in (RunState.FAILED, RunState.DIVERGED)
            self._alert(run, run.state.value, run.error, "ERROR" if bad else "INFO")

    def close(self) -> None:
        """See Tracker."""
        for shown in self._runs.values():
            shown.finish()

    def _alert(self, run: ShownRun, title: str, text: str, level: str) -> None:
        alerted = self._alerted[run.run_id]
        if (title, text) not in alerted:
            alerted.add((title, text))
            level = self._trackio.AlertLevel[level]
            self._runs[run.run_id].alert(title, text or None, level=level)

    def _alerts_before(self, name: str) -> set[tuple[str, str]]:
        try:
            alerts = self._trackio.Api().alerts(self._project, run=name)
        except ValueError:  # the project is new, or elsewhere
            return set()
        return {(alert["title"], alert["text"] or "") for alert in alerts}
