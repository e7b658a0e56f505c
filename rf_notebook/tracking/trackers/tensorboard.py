"""TensorBoard: event files in the experiment's folder, a folder a run.

They are written anew whenever the experiment is opened, so a kill leaves nothing twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from rf_notebook.core.run import MetricPoint, RunState
from rf_notebook.store import layout
from rf_notebook.store.folders import own_folder, remove_folder
from rf_notebook.tracking.trackers.base import Opened, ShownRun, as_in_transformers

_OURS = re.compile(r"run \d+")
#: Columns of TensorBoard's table of hyperparameters, beside the knobs.
_COMPARED = ("train/loss", "eval/loss", "train/reward")


class Shown:
    """See Tracker."""

    def __init__(self, opened: Opened) -> None:
        """See Tracker."""
        self._folder = layout.tensorboard(opened.folder)
        for inside in own_folder(self._folder).iterdir():
            if _OURS.fullmatch(inside.name):  # what else lies there is the user's
                remove_folder(opened.folder, inside.relative_to(opened.folder).as_posix())
        self._writers: dict[int, SummaryWriter] = {}

    def add(self, run: ShownRun) -> None:
        """See Tracker."""
        self._writers[run.run_id] = SummaryWriter(str(self._folder / run.name))
        experiment, start, _ = hparams(run.config, dict.fromkeys(_COMPARED, 0.0))
        self._add_summary(run, experiment)
        self._add_summary(run, start)
        self._describe(run)

    def log(self, run: ShownRun, points: Sequence[MetricPoint], at: float) -> None:
        """See Tracker."""
        writer = self._writers[run.run_id]
        for point in points:
            for name, value in as_in_transformers(point).items():
                writer.add_scalar(name, value, point.step, walltime=at)
        writer.flush()

    def change(self, run: ShownRun) -> None:
        """See Tracker."""
        self._describe(run)
        if run.state == RunState.COMPLETED:
            _, _, end = hparams({}, {})
            self._add_summary(run, end)
        self._writers[run.run_id].flush()

    def close(self) -> None:
        """See Tracker."""
        for writer in self._writers.values():
            writer.close()

    def _add_summary(self, run: ShownRun, summary: Any) -> None:
        files: Any = self._writers[run.run_id].file_writer
        files.add_summary(summary)

    def _describe(self, run: ShownRun) -> None:
        """The run in words; text there is Markdown, so what others wrote is shown as code."""
        told = {
            "name": run.title,
            "state": run.state.value,
            "error": run.error,
            "tags": ", ".join(run.tags),
            "note": run.note,
            "operations": run.operations,
        }
        text = json.dumps({key: value for key, value in told.items() if value}, indent=2)
        as_code = "".join(f"    {line}\n" for line in text.splitlines())
        self._writers[run.run_id].add_text("run", as_code, run.step)
