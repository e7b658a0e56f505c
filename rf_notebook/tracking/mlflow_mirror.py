"""How does an experiment show in MLflow?

One MLflow experiment, one MLflow run a run. Each MLflow run carries the number of the last event
written to it, so nothing is written twice; MLflow itself drops a metric that it has with the same
step, value and time.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from rf_notebook.core.events import (
    ChunkTrained,
    Labelled,
    Recorded,
    RunAdded,
    RunFailed,
    StateChanged,
    WarmStarted,
)
from rf_notebook.core.redaction import redact
from rf_notebook.core.run import MetricPoint, RunState, StoredFolder
from rf_notebook.core.telemetry import without_telemetry
from rf_notebook.core.values import flatten
from rf_notebook.tracking.mirror import Mirror
from rf_notebook.tracking.mlflow_database import own_database, uri_of_user
from rf_notebook.tracking.shown import LONGEST_VALUE, shown_text

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
#: In one call of log_batch, which takes 1000 things in all, 100 of them parameters.
_MOST_METRICS, _MOST_PARAMS = 900, 100
#: Of a tag, which notes are there.
_LONGEST_NOTE = 5000
#: Error codes of what stays refused however often it is tried.
_NEVER_TAKEN = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS")
_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")


class MlflowMirror(Mirror):
    """See Mirror."""

    title = "MLflow"

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
        super().__init__(name, log=log)
        self._folder = folder
        self._name = name
        self._identity = identity
        self._tracking_uri = tracking_uri or uri_of_user()
        """Decided here: another cell may set another one, or change the working directory."""
        self._client: Any = None
        self._experiment_id = ""
        self._runs: dict[int, _MirroredRun] = {}
        self._silenced: list[logging.Handler] = []

    @property
    def run_ids(self) -> dict[int, str]:
        """MLflow's ids of the runs that it has so far, by run."""
        return {run_id: mirrored.mlflow_id for run_id, mirrored in list(self._runs.items())}

    def disconnect(self) -> None:
        """See Mirror."""
        for handler in self._silenced:
            handler.removeFilter(_not_from_mirrors)

    def write(self, recorded: Recorded) -> None:
        """See Mirror; what MLflow will never take is left out, so that the rest arrives."""
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

    def connect(self) -> None:
        """See Mirror."""
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
                tags = {"state": RunState.FAILED, "error": event.failure.message[:LONGEST_VALUE]}
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
            Param(_name(key), shown_text(value))
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


def _groups(items: list[Any], size: int) -> list[list[Any]]:
    """At least one."""
    return [items[start : start + size] for start in range(0, max(len(items), 1), size)]
