"""How does an experiment show in MLflow?

One MLflow experiment, one MLflow run a run, written by a thread of its own.

The mirror follows the event log: what could not be written because a server was slow, locked or
away is written later, and what a kill left out is written by the next kernel. Each MLflow run
carries the number of the last event written to it, so nothing is written twice; MLflow itself drops
a metric that it has with the same step, value and time.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.events import (
    ChunkTrained,
    Labelled,
    Recorded,
    RunAdded,
    RunFailed,
    StateChanged,
    WarmStarted,
)
from rf_notebook.core.redaction import REDACTED, redact
from rf_notebook.core.run import MetricPoint, RunState, StoredFolder
from rf_notebook.core.values import Json, flatten
from rf_notebook.tracking.mlflow_database import own_database, uri_of_user, without_telemetry

_TAG_IDENTITY, _TAG_RUN = "rf_notebook.experiment", "rf_notebook.run_id"
_TAG_SEQ, _TAG_STEP = "rf_notebook.seq", "rf_notebook.step"
_STATUS = {
    RunState.QUEUED: "SCHEDULED",
    RunState.RUNNING: "RUNNING",
    RunState.STOPPED: "KILLED",
    RunState.COMPLETED: "FINISHED",
    RunState.DIVERGED: "FAILED",
    RunState.FAILED: "FAILED",
    RunState.DELETED: "KILLED",
}
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 0.5, 30.0
#: In one call of log_batch, which takes 1000 things in all, 100 of them parameters.
_MOST_METRICS, _MOST_PARAMS = 900, 100
_LONGEST_VALUE = 500
#: Of a tag, which notes are there.
_LONGEST_NOTE = 5000
#: After this many tries ``close`` does not wait for MLflow.
_MOST_REFUSALS = 2
#: Error codes of what stays refused however often it is tried.
_NEVER_TAKEN = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS")
_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")


class MlflowMirror:
    """Follows one experiment's log. ``notify`` may be called by any thread and costs nothing."""

    def __init__(
        self,
        folder: Path,
        name: str,
        identity: str,
        *,
        log: logging.Logger,
        tracking_uri: str | None = None,
    ) -> None:
        """Nothing is imported or written before ``start``.

        Args:
            folder: The experiment's; holds the database unless the user set a tracking URI.
            name: The MLflow experiment's name.
            identity: Tells its runs from those of another experiment of that name.
            log: The experiment's.
            tracking_uri: For tests; otherwise the user's, or a database in the folder.
        """
        self._folder = folder
        self._name = name
        self._identity = identity
        self._log = log
        self._tracking_uri = tracking_uri or uri_of_user()
        """Decided here: another cell may set another one, or change the working directory."""
        self._waiting: deque[Recorded] = deque()
        self._arrived = threading.Condition()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._main, name=f"rf-mlflow-{name}", daemon=True)
        self._client: Any = None
        self._experiment_id = ""
        self._runs: dict[int, _MirroredRun] = {}
        self._complained = False
        self.refusals = 0
        """Tries one after another that failed."""
        self._silenced: list[logging.Handler] = []

    def start(self, recorded: Sequence[Recorded]) -> None:
        """Begin with everything that the log holds."""
        self._waiting.extend(recorded)
        self._thread.start()

    @property
    def is_behind(self) -> bool:
        """Whether events wait to be written."""
        return bool(self._waiting)

    def has_ended(self, timeout: float) -> bool:
        """Wait until its thread has ended, or the seconds are over; returns whether it has."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def notify(self, recorded: Sequence[Recorded]) -> None:
        """Further events were committed."""
        with self._arrived:
            self._waiting.extend(recorded)
            self._arrived.notify_all()

    def close(self, timeout: float) -> bool:
        """Write what is waiting for at most ``timeout`` seconds, then end.

        Returns whether all was written.

        While MLflow refuses everything, nothing is gained by waiting for it.
        """
        with self._arrived:
            drained = self._arrived.wait_for(
                lambda: (
                    not self._waiting
                    or not self._thread.is_alive()
                    or self.refusals > _MOST_REFUSALS
                ),
                timeout,
            )
            self._ending.set()
            self._arrived.notify_all()
        self._thread.join(timeout=1.0)
        return drained and not self._waiting

    @property
    def run_ids(self) -> dict[int, str]:
        """MLflow's ids of the runs that it has so far, by run."""
        return {run_id: mirrored.mlflow_id for run_id, mirrored in list(self._runs.items())}

    # ---- the thread

    def _main(self) -> None:
        try:
            self._follow()
        finally:
            for handler in self._silenced:
                handler.removeFilter(_not_from_mirrors)
            with self._arrived:
                self._arrived.notify_all()

    def _follow(self) -> None:
        delay = _FIRST_RETRY_SECONDS
        while not self._ending.is_set():
            try:
                if self._client is None:
                    self._connect()
                self._write_waiting()
            except (ImportError, ConfigError) as error:
                self._log.warning("MLflow is not written: %s", error)
                return
            except BaseException as error:  # noqa: BLE001 - whatever a tracking server does, training continues
                self.refusals += 1
                delay = (
                    _FIRST_RETRY_SECONDS
                    if self.refusals == 1
                    else min(delay * 2, _LAST_RETRY_SECONDS)
                )
                if not self._complained:
                    self._log.warning(
                        "MLflow is behind and will catch up: %s", redact(f"{error}"[:300])
                    )
                    self._complained = True
                with self._arrived:
                    self._arrived.notify_all()
                self._client = None  # the experiment may be gone, or the server another
                self._ending.wait(delay)

    def _write_waiting(self) -> None:
        while not self._ending.is_set():
            with self._arrived:
                if not self._waiting:
                    self._arrived.notify_all()
                    self._arrived.wait(5.0)
                    continue
                first = self._waiting[0]
            self._write_one(first)
            self.refusals = 0
            with self._arrived:
                self._waiting.popleft()
                self._arrived.notify_all()

    def _write_one(self, recorded: Recorded) -> None:
        """One event; what MLflow will never take is left out, so that the rest arrives."""
        from mlflow.exceptions import MlflowException

        try:
            self._write(recorded)
        except MlflowException as error:
            run_id = getattr(recorded.event, "run_id", 0)
            mirrored = self._runs.get(run_id)
            if self._experiment_is_deleted():
                raise  # and its runs with it; connecting again restores both
            if mirrored is not None and self._is_deleted(mirrored):
                self._log.warning(
                    "run %d was deleted in MLflow and is not written there any more", run_id
                )
                mirrored.is_deleted = True
            elif error.error_code in _NEVER_TAKEN:
                self._log.warning(
                    "MLflow does not take a part of run %d: %s", run_id, redact(f"{error}"[:300])
                )
            else:
                raise

    def _is_deleted(self, mirrored: _MirroredRun) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return str(self._client.get_run(mirrored.mlflow_id).info.lifecycle_stage) == "deleted"
        except MlflowException as error:
            return error.error_code == "RESOURCE_DOES_NOT_EXIST"  # ``mlflow gc`` was at work

    def _experiment_is_deleted(self) -> bool:
        return str(self._client.get_experiment(self._experiment_id).lifecycle_stage) == "deleted"

    def _connect(self) -> None:
        with without_telemetry():
            import mlflow
        for name in () if self._silenced else ("mlflow", "alembic", ""):
            for handler in logging.getLogger(name).handlers:
                handler.addFilter(_not_from_mirrors)
                self._silenced.append(handler)
        uri = self._tracking_uri or own_database(self._folder)
        client = mlflow.MlflowClient(tracking_uri=uri)
        known = client.get_experiment_by_name(self._name)
        if known is not None:
            self._experiment_id = known.experiment_id
            if str(known.lifecycle_stage) == "deleted":
                # MLflow keeps the name of a deleted experiment, so there is no other to write to.
                self._log.warning(
                    "the experiment was deleted in MLflow; it is restored, since it trains on"
                )
                client.restore_experiment(self._experiment_id)
        else:
            ours = uri.startswith("sqlite:")  # a database has no place of its own for artifacts
            artifacts = (self._folder / "mlflow_artifacts").resolve().as_uri() if ours else None
            self._experiment_id = client.create_experiment(self._name, artifact_location=artifacts)
        from mlflow.entities import ViewType

        mine = f"tags.`{_TAG_IDENTITY}` = '{self._identity}'"
        self._runs.clear()
        for run in client.search_runs(
            [self._experiment_id], filter_string=mine, run_view_type=ViewType.ALL, max_results=5000
        ):
            tags = run.data.tags
            if _TAG_RUN in tags:
                self._runs[int(tags[_TAG_RUN])] = _MirroredRun(
                    run.info.run_id,
                    int(tags.get(_TAG_SEQ, 0)),
                    int(tags.get(_TAG_STEP, 0)),
                    status=str(run.info.status),
                    is_deleted=str(run.info.lifecycle_stage) == "deleted",
                )
        self._client = client

    def _write(self, recorded: Recorded) -> None:
        event = recorded.event
        run_id = getattr(event, "run_id", None)
        if run_id is None:
            if isinstance(event, Labelled):
                for key, value in _label_tags(event).items():
                    self._client.set_experiment_tag(self._experiment_id, key, value)
            return
        mirrored = self._runs.get(run_id)
        if isinstance(event, RunAdded):
            if mirrored is None:
                mirrored = self._runs[run_id] = self._create(recorded, event)
            if (
                recorded.seq > mirrored.seq and not mirrored.is_deleted
            ):  # also of a run that was created just before a kill
                self._describe(mirrored, recorded, event)
            return
        if mirrored is None or mirrored.is_deleted or recorded.seq <= mirrored.seq:
            return
        tags: dict[str, str] = {}
        points: tuple[MetricPoint, ...] = ()
        match event:
            case ChunkTrained():
                points = tuple(point for point in event.points if point.step > mirrored.step)
                tags = {"state": RunState.RUNNING, "progress": f"{event.progress.fraction:.1%}"}
                self._set_status(mirrored, "RUNNING")
                if (
                    event.checkpoint is not None
                    and event.progress.steps == event.progress.total_steps
                ):
                    self._log_adapter(mirrored.mlflow_id, event.checkpoint)
            case StateChanged():
                tags = {"state": event.state}
                self._set_status(mirrored, _STATUS[event.state], recorded.at)
            case RunFailed():
                tags = {"state": RunState.FAILED, "error": event.failure.message[:_LONGEST_VALUE]}
                self._set_status(mirrored, _STATUS[RunState.FAILED], recorded.at)
            case Labelled():
                name = redact(event.label.name) or _run_name(event.run_id)
                self._client.update_run(mirrored.mlflow_id, name=name)
                tags = _label_tags(event)
            case WarmStarted():
                tags = {"warm_start_report": event.report.sentence()}
            case _:
                pass
        self._log_batch(mirrored, recorded, points, tags)

    def _create(self, recorded: Recorded, event: RunAdded) -> _MirroredRun:
        tags = {
            _TAG_IDENTITY: self._identity,
            _TAG_RUN: str(event.run_id),
            "state": RunState.QUEUED.value,
            "parent": "" if event.parent_id is None else str(event.parent_id),
            "warm_start": str(event.warm_start is not None).lower(),
        }
        started = int(recorded.at * 1000)
        run = self._client.create_run(
            self._experiment_id, start_time=started, tags=tags, run_name=_run_name(event.run_id)
        )
        return _MirroredRun(run.info.run_id, 0, 0, status=str(run.info.status))

    def _describe(self, mirrored: _MirroredRun, recorded: Recorded, event: RunAdded) -> None:
        """Write a run's parameters; writing them again changes nothing."""
        from mlflow.entities import Param, RunTag

        params = [
            Param(_name(key), _text(value))
            for key, value in flatten(event.config.as_json()).items()
        ]
        *groups, last = _groups(params, _MOST_PARAMS)
        for group in groups:
            self._client.log_batch(mirrored.mlflow_id, params=group)
        seq = RunTag(_TAG_SEQ, str(recorded.seq))  # MLflow writes tags after all else
        self._client.log_batch(mirrored.mlflow_id, params=last, tags=[seq])
        self._set_status(mirrored, "SCHEDULED")
        mirrored.seq = recorded.seq

    def _log_batch(
        self,
        mirrored: _MirroredRun,
        recorded: Recorded,
        points: tuple[MetricPoint, ...],
        tags: dict[str, str],
    ) -> None:
        from mlflow.entities import Metric, RunTag

        at = int(recorded.at * 1000)
        metrics = [
            Metric(_name(name), value, at, point.step)
            for point in points
            for name, value in point.metrics.items()
        ]
        step = max((point.step for point in points), default=mirrored.step)
        *groups, last = _groups(metrics, _MOST_METRICS)
        for group in groups:
            self._client.log_batch(mirrored.mlflow_id, metrics=group)
        # MLflow writes the tags last: if the process dies before, the metrics are sent again and
        # MLflow drops the repetition.
        tags |= {_TAG_SEQ: str(recorded.seq), _TAG_STEP: str(step)}
        self._client.log_batch(
            mirrored.mlflow_id,
            metrics=last,
            tags=[RunTag(key, str(value)) for key, value in tags.items()],
        )
        mirrored.seq, mirrored.step = recorded.seq, step

    def _set_status(self, mirrored: _MirroredRun, status: str, at: float = 0.0) -> None:
        """Writing a status takes MLflow as long as two batches: only one that is another."""
        if status == mirrored.status:
            return
        if status in ("FINISHED", "FAILED", "KILLED"):
            end = int(at * 1000)
            self._client.set_terminated(mirrored.mlflow_id, status=status, end_time=end)
        else:
            self._client.update_run(mirrored.mlflow_id, status=status)
        mirrored.status = status

    def _log_adapter(self, mlflow_id: str, checkpoint: StoredFolder) -> None:
        for name in _ADAPTER_FILES:
            file = self._folder / checkpoint.path / name
            if file.exists():
                self._client.log_artifact(mlflow_id, str(file), artifact_path="adapter")


class _MirroredRun:
    """What MLflow has of a run."""

    __slots__ = ("is_deleted", "mlflow_id", "seq", "status", "step")

    def __init__(
        self, mlflow_id: str, seq: int, step: int, *, status: str, is_deleted: bool = False
    ) -> None:
        self.mlflow_id, self.seq, self.step = mlflow_id, seq, step
        self.status, self.is_deleted = status, is_deleted


def _not_from_mirrors(record: logging.LogRecord) -> bool:
    """MLflow reports the creation of its tables on stderr, under whichever cell ran last."""
    return not (record.threadName or "").startswith("rf-mlflow")


def _run_name(run_id: int | None) -> str:
    return f"run {run_id}"


def _label_tags(event: Labelled) -> dict[str, str]:
    """``mlflow.note.content`` is what MLflow shows as the description."""
    label = event.label
    return {
        "tags": redact(", ".join(label.tags)),
        "mlflow.note.content": redact(label.note)[:_LONGEST_NOTE],
    }


def _name(key: str) -> str:
    return re.sub(r"[^\w\-. /]", "_", key)[:250]


def _text(value: Json) -> str:
    if isinstance(value, dict) and "$secret" in value:
        return REDACTED
    if isinstance(value, dict) and "$object" in value:
        value = value["$object"]
    return redact(str(value))[:_LONGEST_VALUE]


def _groups(items: list[Any], size: int) -> list[list[Any]]:
    """At least one."""
    return [items[start : start + size] for start in range(0, max(len(items), 1), size)]
