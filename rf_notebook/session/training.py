"""What is at work while an experiment trains in this process.

The engine's thread, and those who follow its record.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.automl.concrete import apply_edits
from rf_notebook.core.errors import RFNotebookError
from rf_notebook.core.events import DevicesChosen, Event, ExperimentContinued, Noted
from rf_notebook.core.fleet import KERNEL
from rf_notebook.engine.journal import new_functions
from rf_notebook.engine.keep import Keep
from rf_notebook.engine.loop import Engine
from rf_notebook.engine.publisher import Publisher
from rf_notebook.engine.requests import AddRuns, CloseExperiment
from rf_notebook.engine.thread import EngineThread
from rf_notebook.planning.fusion import Execution, suggestions
from rf_notebook.session.stored import in_use
from rf_notebook.store import layout
from rf_notebook.store.folders import remove_folder, remove_orphans
from rf_notebook.tracking.mlflow_mirror import MlflowMirror

if TYPE_CHECKING:
    from rf_notebook.automation.optuna_policy import OptunaPolicy
    from rf_notebook.core.change import ChangeSignal
    from rf_notebook.core.ports import CommitObserver
    from rf_notebook.core.run import RunConfig
    from rf_notebook.core.state import ExperimentState
    from rf_notebook.engine.autopilot import Autopilot
    from rf_notebook.engine.script import Script
    from rf_notebook.session.backend import Backend
    from rf_notebook.session.launch import Launch
    from rf_notebook.store.sqlite import SqliteStore
    from rf_notebook.tracking.experiment_log import ExperimentLog
    from rf_notebook.tracking.mirror import Mirror
    from rf_notebook.tracking.study_file import StudyFile

_CLOSE_SECONDS = 20.0
"""For the followers of the record to write the rest."""
_CANCEL_SECONDS = 5.0
"""The same, for somebody who does not want to wait."""


class Training:
    """From one ``run_fit`` to the end of the experiment, or of the kernel."""

    def __init__(
        self,
        folder: Path,
        name: str,
        launch: Launch,
        new: Iterable[RunConfig],
        state: ExperimentState,
        store: SqliteStore,
        *,
        fence: int,
        script: Script | None,
        autopilot: Autopilot | None,
        observer: CommitObserver,
        log: ExperimentLog,
        signal: ChangeSignal,
        backend: Backend,
    ) -> None:
        """The launch and its runs are recorded; nothing trains before ``start``.

        Args:
            folder: The experiment's folder.
            name: The experiment's name.
            launch: Found to be possible.
            new: Configs of the launch that are not recorded yet.
            state: The experiment's state, up to date.
            store: Its record.
            fence: Of the lease that this process holds on it.
            script: Operations to obey at their steps, in a replay.
            autopilot: The policy at work, if any.
            observer: Told of every commit.
            log: The experiment's, open.
            signal: Changes with the experiment.
            backend: Who trains.
        """
        self._folder, self._name, self._log = folder, name, log.logger
        self._backend = backend
        self._studies: Sequence[OptunaPolicy] = ()
        self._study_file: StudyFile | None = None
        self._has_worker = bool(launch.devices)
        fleet = backend.fleet(folder, launch, observer, self._log)
        rules = backend.rules(
            folder,
            launch.data,
            launch.objects,
            launch.create_model,
            launch.started.num_chunks,
            launch.devices,
        )

        def make_engine(wait_for_room: Callable[[], bool]) -> Engine:
            return Engine(
                store,
                fleet,
                state,
                fence=fence,
                folder=folder,
                rules=rules,
                publisher=Publisher(signal),
                execution=launch.started.execution,
                keep=Keep(launch.started.keep),
                observer=observer,
                wait_for_room=wait_for_room,
                script=script,
                apply_edits=lambda config, edits: apply_edits(config, edits, launch.objects),
                log=self._log,
            )

        self.thread = EngineThread(
            make_engine,
            store,
            fence=fence,
            name=name,
            surroundings=lambda: backend.messages_to(self._log),
            log=self._log,
        )
        try:
            new, notes = list(new), list(launch.warnings)
            is_spread = any(facts.gpus > 1 for facts in launch.devices)
            is_exact = launch.started.execution == Execution.EXACT
            if state.started is None and is_exact and not is_spread:
                notes += suggestions(rules.fusibility(config).key for config in new)
            if state.started is None and is_spread and not is_exact:
                notes.append(
                    f"execution={str(launch.started.execution)!r}: over a model on several GPUs there are no joint steps; "
                    "runs fill its GPUs together, each exactly as alone."
                )
            gpus = 1 if launch.devices else backend.gpu_count()
            if state.started is None and gpus > 1 and len(new) > 1:
                notes.append(
                    f"{gpus} GPUs are visible, and these runs share one: run_fit(..., devices='auto') divides them among all."
                )
            self._mirrors = self._open(
                launch, new, notes, state, store, autopilot=autopilot, log=log
            )
        except BaseException:
            fleet.abandon()
            fleet.close()
            raise

    def start(self) -> None:
        """Begin to train."""
        self._backend.release_threads()
        self.thread.start()

    def _open(
        self,
        launch: Launch,
        new: Iterable[RunConfig],
        notes: Sequence[str],
        state: ExperimentState,
        store: SqliteStore,
        *,
        autopilot: Autopilot | None,
        log: ExperimentLog,
    ) -> list[Mirror]:
        """Record the launch, and let others follow the record.

        The arguments are the constructor's; ``notes`` are to be read at once.
        """
        engine = self.thread.engine
        fleet = engine.fleet
        opened: list[Event] = [launch.started, launch.recorded()]
        if state.started is not None:
            opened = [ExperimentContinued(versions=launch.started.versions)]
        opened += new_functions(launch.functions(), state)
        devices = {facts.name: facts.described for facts in fleet.devices() if facts.name != KERNEL}
        if devices != state.devices:
            opened.append(DevicesChosen(devices=devices))
        engine.commit([*opened, *engine.new_runs(new), *(Noted(text=text) for text in notes)])
        engine.automate(autopilot)
        assert state.started is not None
        remove_orphans(self._folder, {folder.path for folder in in_use(state)})
        mirrors = [self._mirror_of(name, state.started.identity) for name in launch.trackers]
        recorded = store.read()
        for mirror in mirrors:
            engine.publisher.subscribe(mirror.notify)
            mirror.start(recorded)
        engine.publisher.subscribe(log.take)
        return mirrors

    def _mirror_of(self, tracker: str, identity: str) -> Mirror:
        if tracker == "mlflow":
            return MlflowMirror(self._folder, self._name, identity, log=self._log)
        from rf_notebook.tracking.tracker_mirror import TrackerMirror

        return TrackerMirror(tracker, self._folder, self._name, identity, log=self._log)

    def add(self, launch: Launch, new: Iterable[RunConfig]) -> None:
        """Record configs of a launch next to those that train, and wait until that is done."""
        self.thread.engine.mailbox.submit(
            AddRuns(configs=tuple(new), functions=launch.functions())
        ).result()

    def keep_studies(self, studies: Sequence[OptunaPolicy]) -> None:
        """Let Optuna's tools read the studies of searches, from a file that follows them.

        Args:
            studies: New ones when the cell is run again, which the same file follows.
        """
        if not studies:
            return
        self._studies = studies
        if self._study_file is not None:
            return
        from rf_notebook.tracking.study_file import StudyFile

        def now() -> dict[str, Any]:
            numbered = enumerate(self._studies, start=1)
            return {
                self._name if len(self._studies) == 1 else f"{self._name} {n}": one.study
                for n, one in numbered
            }

        self._study_file = StudyFile(layout.studies(self._folder), now, log=self._log)
        self.thread.engine.publisher.subscribe(self._study_file.notify)
        self._study_file.start()

    @property
    def mlflow_ids(self) -> dict[int, str]:
        """Of MLflow's runs, by run: those that it has so far."""
        mlflow = (mirror for mirror in self._mirrors if isinstance(mirror, MlflowMirror))
        return next((mirror.run_ids for mirror in mlflow), {})

    def close(self, *, cancelled: bool) -> None:
        """End the training, and give the followers of the record time to write the rest."""
        if self.thread.is_alive:
            ended = self.thread.engine.mailbox.submit(CloseExperiment(cancelled=cancelled))
            with contextlib.suppress(
                RFNotebookError
            ):  # shown to whoever asks for the thread's error
                ended.result()
            self.thread.end()
        if self._has_worker:
            remove_folder(
                self._folder, layout.worker_data(self._folder).relative_to(self._folder).as_posix()
            )
        seconds = _CANCEL_SECONDS if cancelled else _CLOSE_SECONDS
        until = time.monotonic() + seconds
        for mirror in self._mirrors:
            if not mirror.close(max(until - time.monotonic(), 0.0)):
                self._log.warning(
                    "%s is behind; the rest is written when the experiment is continued",
                    mirror.title,
                )
        if self._study_file is not None and not self._study_file.close(seconds):
            self._log.warning(
                "optuna.db is behind; it is written again when the experiment is continued"
            )
