"""Weights & Biases: one of its runs a run, in one group.

It is online or offline as the user has set it (``WANDB_MODE``, ``WANDB_API_KEY``, ``wandb login``).
Online it knows what it has from before. Offline it takes nothing into a run of before, so the run is
written anew and its older folder removed, unless it was synced.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb
from wandb.errors import AuthenticationError, UsageError

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.run import READY, MetricPoint, RunState
from rf_notebook.store import layout
from rf_notebook.store.folders import own_folder, remove_folder
from rf_notebook.tracking.trackers.base import Opened, ShownRun, as_in_transformers

_LONGEST_PROJECT = 128
_FAILED = (RunState.FAILED, RunState.DIVERGED)


class Shown:
    """See Tracker."""

    def __init__(self, opened: Opened) -> None:
        """See Tracker."""
        self._opened = opened
        self._project = os.environ.get("WANDB_PROJECT") or _sanitised(opened.name)
        self._folder = own_folder(layout.wandb(opened.folder))
        own_folder(self._folder / "wandb")
        for name in ("CACHE", "DATA"):  # else both are in the user's home
            os.environ.setdefault(f"WANDB_{name}_DIR", str(own_folder(self._folder / name.lower())))
        self._before = sorted(self._folder.glob("wandb/offline-run-*"))
        self._open: dict[int, Any] = {}
        self._states: dict[int, RunState] = {}

    def add(self, run: ShownRun) -> None:
        """See Tracker."""
        self._opened_run(run)

    def log(self, run: ShownRun, points: Sequence[MetricPoint], at: float) -> None:
        """See Tracker."""
        shown = self._opened_run(run)
        for point in points:
            if point.step >= shown.starting_step:
                shown.log(as_in_transformers(point), step=point.step)
        self.change(run)

    def change(self, run: ShownRun) -> None:
        """See Tracker."""
        shown = self._opened_run(run)
        if shown.name != run.title:
            shown.name = run.title
        if shown.tags != run.tags:
            shown.tags = run.tags
        if (shown.notes or "") != run.note:
            shown.notes = run.note
        told = {"state": run.state.value, "progress": run.progress, "operations": run.operations}
        shown.summary.update(told | ({"error": run.error} if run.error else {}))
        self._states[run.run_id] = run.state
        if run.state not in READY and not shown.offline:
            self._finish(run.run_id)

    def close(self) -> None:
        """See Tracker."""
        for run_id in list(self._open):
            self._finish(run_id)

    def _finish(self, run_id: int) -> None:
        failed = self._states.get(run_id) in _FAILED
        self._open.pop(run_id).finish(exit_code=1 if failed else 0)

    def _opened_run(self, run: ShownRun) -> Any:
        """W&B's run; one that has ended there is opened again."""
        if run.run_id not in self._open:
            self._open[run.run_id] = self._init(run)
        return self._open[run.run_id]

    def _init(self, run: ShownRun) -> Any:
        name = f"{self._opened.identity}-{run.run_id}"
        settings = wandb.Settings(
            console="off",
            disable_git=True,
            save_code=False,
            silent=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        try:
            shown = wandb.init(
                project=self._project,
                id=name,
                name=run.title,
                group=self._opened.name,
                config=run.config,
                dir=str(self._folder),
                resume="allow",
                reinit="create_new",
                settings=settings,
            )
        except (AuthenticationError, UsageError) as error:
            raise ConfigError(
                f"{str(error).splitlines()[0]} Run wandb login, or set WANDB_MODE=offline, and call run_fit again."
            ) from None
        if shown.offline:
            self._remove_before(name)
        return shown

    def _remove_before(self, name: str) -> None:
        """Of the offline run what was written before, all of which is written anew."""
        for folder in self._before:
            if folder.name.endswith(f"-{name}") and not any(folder.glob("*.synced")):
                root: Path = self._opened.folder
                remove_folder(root, folder.relative_to(root).as_posix())


def _sanitised(name: str) -> str:
    """A project's name has none of these."""
    return re.sub(r"[/\\#?%:]", "_", name)[:_LONGEST_PROJECT]
