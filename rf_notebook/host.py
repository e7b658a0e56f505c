"""The experiment as its panels see it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.automl.concrete import apply_edits
from rf_notebook.core.operations import BY_VERB
from rf_notebook.core.run import RunConfig
from rf_notebook.core.state import ExperimentState
from rf_notebook.core.status import HostStatus
from rf_notebook.core.values import Json
from rf_notebook.engine.mailbox import Receipt
from rf_notebook.jupyterlab.provenance import Sources
from rf_notebook.record.record import RECORD_MIME
from rf_notebook.record.recording import Known, record_of

if TYPE_CHECKING:
    from rf_notebook.experiment import Experiment

#: How often an experiment that another kernel trains is looked at.
_LOOK_SECONDS = 2.0
#: While runs train, making the record takes at most one in so many seconds.
_RECORD_SHARE = 100


class Host:
    """See widgets.host.PanelHost and lab.host.LabHost."""

    def __init__(self, experiment: Experiment) -> None:
        """Every method may be called from any thread.

        Args:
            experiment: What is shown.
        """
        self._experiment = experiment
        self._looked_at = 0.0
        self._known_chunks: Known = {}
        self._record: dict[str, Json] = {}
        self._record_until = float("-inf")
        """Until when the record of an experiment in training does."""
        self._measured_at = float("-inf")
        self._measured: tuple[str, int | None, int | None] = ("memory", None, None)

    @property
    def experiment_name(self) -> str:
        """See PanelHost."""
        return self._experiment.experiment_name

    @property
    def folder(self) -> Path:
        """See LabHost."""
        return self._experiment.folder.absolute()

    @property
    def log_path(self) -> Path:
        """See LabHost."""
        return self._experiment.get_log_file_path().absolute()

    @property
    def sources(self) -> Sources | None:
        """See LabHost."""
        return self._experiment._sources

    def retry(self, run_id: int) -> Receipt[Any]:
        """See LabHost."""
        return self._experiment.retry(run_id)

    def replay(self) -> str:
        """See LabHost."""
        return self._experiment.replay().experiment_name

    def export_notebook(self, path: str) -> Path:
        """See LabHost."""
        return self._experiment.export_notebook(path)

    def also_saved(self) -> dict[str, Json]:
        """See PanelHost: the record, from which the experiment is replayed."""
        state = self._experiment._state
        if state.started is None:
            return {}
        began = time.monotonic()
        if self._experiment._is_idle or began > self._record_until:
            self._record = {RECORD_MIME: record_of(state, self._known_chunks)}
            self._record_until = began + (time.monotonic() - began) * _RECORD_SHARE
        return self._record

    @property
    def saved_seq(self) -> int:
        """See LabHost."""
        display = self._experiment._display
        return display.saved_seq if display is not None and display.is_shown else 0

    def saved_bundle(self) -> dict[str, Json]:
        """See LabHost."""
        return self._experiment.panel().saved_bundle()

    def panel_model(self) -> str:
        """See LabHost."""
        return str(self._experiment.panel().panel.widget.model_id)

    def clone_form_model(self, run_id: int, *, warm: bool) -> str:
        """See LabHost."""
        form = self._experiment.panel().panel.clone_form
        form.open(run_id, warm=warm)
        return str(form.box.model_id)

    @property
    def panel_state(self) -> ExperimentState:
        """See PanelHost."""
        now = time.monotonic()
        if now - self._looked_at > _LOOK_SECONDS:
            self._looked_at = now
            self._experiment._refresh()
        return self._experiment._state

    def panel_status(self) -> HostStatus:
        """See PanelHost."""
        experiment, thread = self._experiment, self._experiment._thread
        device, used, total = self._memory(is_training=thread is not None)
        if thread is None:
            return HostStatus(
                open=False,
                preparing=experiment._is_preparing,
                read_only=experiment._is_trained_elsewhere(),
                device=device,
                memory_bytes=used,
                memory_total_bytes=total,
            )
        engine = thread.engine
        return HostStatus(
            open=thread.is_alive,
            idle=engine.mailbox.idle.is_set(),
            paused=engine.paused,
            held_up=engine.held_up,
            error=None if thread.error is None else str(thread.error),
            waits_for=engine.waits_for,
            device=device,
            memory_bytes=used,
            memory_total_bytes=total,
        )

    def _memory(self, *, is_training: bool) -> tuple[str, int | None, int | None]:
        """As ``_memory``, measured anew every few seconds only: it costs more than all else that a panel shows."""
        now = time.monotonic()
        if now - self._measured_at > _LOOK_SECONDS:
            self._measured_at, self._measured = now, _memory(is_training=is_training)
        return self._measured

    def wait_for_change(self, seen: int, timeout: float) -> int:
        """See PanelHost."""
        thread = self._experiment._thread
        if thread is None:
            time.sleep(timeout)
            return seen
        return thread.engine.publisher.wait_for_change(seen, timeout)

    def operate(self, verb: str, run_ids: Sequence[int], origin: str) -> Receipt[Any]:
        """See PanelHost."""
        return self._experiment._submit([BY_VERB[verb](run_id=i) for i in run_ids], single=False, origin=origin)

    def clone_all(self, run_id: int, edits: Sequence[Mapping[str, Any]], warm_start: bool, origin: str) -> Receipt[Any]:
        """See PanelHost."""
        operations = [self._experiment._cloning(run_id, dict(edit), warm_start) for edit in edits]
        return self._experiment._submit(operations, single=False, origin=origin)

    def check_edits(self, run_id: int, edits: Mapping[str, Any]) -> tuple[RunConfig, dict[str, Json]]:
        """See PanelHost."""
        config = self._experiment._state.record(run_id).config
        return apply_edits(config, dict(edits), self._experiment._objects.scratch())

    def set_paused(self, paused: bool) -> Receipt[Any]:
        """See PanelHost."""
        return self._experiment._set_paused(paused)

    def undo(self, run_id: int) -> Receipt[Any]:
        """See PanelHost."""
        return self._experiment.undo(run_id)

    def pin(self, run_id: int, pinned: bool) -> Receipt[Any]:
        """See PanelHost."""
        return self._experiment._pin(run_id, pinned)

    def take_wheel(self) -> Receipt[Any]:
        """See PanelHost."""
        return self._experiment.automate(None)

    def export(self, run: int, path: str | Path) -> Path:
        """See PanelHost."""
        return self._experiment.export(run, path)

    def end_soon(self, on_done: Callable[[BaseException | None], None]) -> None:
        """See PanelHost."""

        def end() -> None:
            try:
                self._experiment.end(cancel=True)
            except BaseException as error:  # noqa: BLE001 - told in the panel, where the end was asked for
                on_done(error)
            else:
                on_done(None)

        threading.Thread(target=end, name="rf-end", daemon=True).start()


def _memory(*, is_training: bool) -> tuple[str, int | None, int | None]:
    """The device's name, the bytes in use on it, and how many it has; loads no torch for it."""
    torch = sys.modules.get("torch")
    if is_training and torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        free, total = torch.cuda.mem_get_info(0)  # of the device that runs train on
        return "GPU", total - free, total
    import psutil

    return "memory", psutil.Process().memory_info().rss, psutil.virtual_memory().total
