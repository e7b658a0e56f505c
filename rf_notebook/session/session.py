"""What is open?

One experiment in this process: its folder, its record and state, and what trains it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rf_notebook.core.change import ChangeSignal
from rf_notebook.core.errors import (
    ConfigError,
    IllegalOperation,
    RecordDamaged,
    StoreError,
    UnknownRun,
)
from rf_notebook.core.foreground import watch_cells
from rf_notebook.core.objects import Objects
from rf_notebook.core.ports import CommitObserver, unobserved
from rf_notebook.core.state import ExperimentState
from rf_notebook.core.status import Status
from rf_notebook.engine.requests import Automate
from rf_notebook.results.handle import Run
from rf_notebook.runners.memory_gauge import MemoryGauge
from rf_notebook.session.backend import Libraries
from rf_notebook.session.preparing import check_starts
from rf_notebook.session.recorded import continuation
from rf_notebook.session.stored import provide
from rf_notebook.session.training import Training
from rf_notebook.store import layout
from rf_notebook.store.lease import this_process
from rf_notebook.store.panel_file import read_arrangement, write_arrangement
from rf_notebook.store.secret_digests import keep_secret_names, read_secret_names
from rf_notebook.store.sqlite import SqliteStore
from rf_notebook.tracking.experiment_log import ExperimentLog
from rf_notebook.views.console import ConsoleProgress

if TYPE_CHECKING:
    from rf_notebook.automation.optuna_policy import OptunaPolicy
    from rf_notebook.core.events import Recorded
    from rf_notebook.core.values import Json
    from rf_notebook.engine.autopilot import Autopilot
    from rf_notebook.engine.loop import Engine
    from rf_notebook.engine.script import Script
    from rf_notebook.engine.thread import EngineThread
    from rf_notebook.record.recording import Known
    from rf_notebook.session.backend import Backend
    from rf_notebook.session.cells import Sources
    from rf_notebook.session.launch import Launch

RunLike = int | Run

#: How often an experiment that another kernel trains is looked at.
_LOOK_SECONDS = 2.0
#: While runs train, making the record takes at most this fraction of the time.
_RECORD_SHARE = 0.01
_REMEDY = "Only these are shown, and nothing is written; experiment.repair() continues from them and keeps the damaged file."
_NO_REMEDY = (
    "There is nothing to continue from: take the folder from a backup, or use another name."
)


class Display(Protocol):
    """What a notebook shows of an experiment."""

    @property
    def is_shown(self) -> bool:
        """Whether a notebook shows it, live or not."""

    def refresh(self) -> None:
        """Bring what the saved notebook shows up to date."""

    def refresh_while_waiting(self) -> None:
        """Called again and again by a cell that waits."""

    def withdraw(self) -> None:
        """Take away what was shown last."""


class Session:
    """One experiment as this process has it open; may be read from any thread."""

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        backend: Backend | None = None,
        changes_also: ChangeSignal | None = None,
    ) -> None:
        """Read what is recorded, if anything is.

        Args:
            name: The experiment's name.
            folder: The experiment's folder, absolute.
            backend: Who trains; the libraries when None.
            changes_also: Changes whenever this experiment does.
        """
        self.name = name
        self.folder = folder
        self.backend = backend or Libraries()
        self.state = ExperimentState()
        self.store: SqliteStore | None = None
        self.damage = ""
        """What is wrong with the record, which is shown up to there and not written, and what to do."""
        self.objects = Objects(read_secret_names(folder))
        """Functions and other values behind the names in configs."""
        self.log = ExperimentLog(layout.log(folder), name)
        self.signal = ChangeSignal(also=changes_also)
        self.num_gpus: int | None = None
        """That ``run_fit`` divides its runs among when it is not told; None trains in the kernel."""
        self.price_per_hour: float | None = None
        """Of one device, as the user has told it."""
        self.storage: str | None = None
        """The bucket or mount that the user has named for checkpoints."""
        self.launch: Launch | None = None
        """What ``run_fit`` was given, when this process called it."""
        self.sources: Sources | None = None
        """The cells that it was launched from."""
        self.training: Training | None = None
        """What is at work, between ``run_fit`` and ``end``."""
        self.display: Display | None = None
        """What a notebook shows of it, once something does."""
        self.observer: CommitObserver = unobserved
        """Told of every commit point, for the crash tests."""
        self.progress = ConsoleProgress(self.state)
        """What a waiting script shows."""
        self.is_preparing = False
        """Whether ``run_fit`` is at work: libraries are loaded, configs checked."""
        self._fence: int | None = None
        self._applying = threading.RLock()
        """Held while events of the record are read and applied outside the engine: the panel's
        thread does so, too."""
        self._mlflow_ids: dict[int, str] = {}
        """Of MLflow's runs, as they were known last."""
        self._gauge = MemoryGauge()
        self._looked_at = float("-inf")
        self._known_chunks: Known = {}
        self._record: dict[str, Json] = {}
        self._record_until = float("-inf")
        """Until when the record of an experiment in training is not made again."""
        if layout.record(folder).exists():
            self.open_record()

    # ---- what is known

    @property
    def thread(self) -> EngineThread | None:
        """The engine's; None when nothing is open for training."""
        return None if self.training is None else self.training.thread

    @property
    def engine(self) -> Engine:
        """Obeys requests.

        Raises:
            IllegalOperation: when the experiment is not open for training.
        """
        thread = self.thread
        if thread is None or not thread.is_alive:
            raise IllegalOperation(
                f"experiment {self.name!r} is not open for training here; call run_fit with its arguments first."
            )
        return thread.engine

    @property
    def is_training(self) -> bool:
        """Whether requests are obeyed."""
        thread = self.thread
        return thread is not None and thread.is_alive

    @property
    def is_idle(self) -> bool:
        """Whether no run wants a turn."""
        thread = self.thread
        return thread is None or thread.engine.mailbox.idle.is_set()

    @property
    def is_trained_elsewhere(self) -> bool:
        """Whether another process holds the lease."""
        holder = None if self.store is None else self.store.living_holder()
        return holder is not None and holder != this_process()

    @property
    def mlflow_ids(self) -> Mapping[int, str]:
        """Ids of MLflow's runs, by run, as far as they are known."""
        if self.training is not None:
            self._mlflow_ids = self.training.mlflow_ids
        return self._mlflow_ids

    @property
    def recent_state(self) -> ExperimentState:
        """The state, at most two seconds behind what another kernel records."""
        now = time.monotonic()
        if now - self._looked_at > _LOOK_SECONDS:
            self._looked_at = now
            self.refresh()
        return self.state

    def status(self) -> Status:
        """How the experiment stands, besides its runs."""
        thread = self.thread
        device, used, total = self._gauge.read(is_training=thread is not None)
        if thread is None:
            return Status(
                open=False,
                preparing=self.is_preparing,
                read_only=self.is_trained_elsewhere,
                damage=self.damage,
                device=device,
                memory_bytes=used,
                memory_total_bytes=total,
                price_per_hour=self.price_per_hour,
            )
        engine = thread.engine
        return Status(
            open=thread.is_alive,
            idle=engine.mailbox.idle.is_set(),
            paused=engine.paused,
            held_up=engine.held_up,
            error=None if thread.error is None else str(thread.error),
            waits_for=engine.waits_for,
            device=device,
            memory_bytes=used,
            memory_total_bytes=total,
            devices=engine.devices,
            price_per_hour=self.price_per_hour,
        )

    def arrangement(self) -> Json:
        """How the panel was arranged last; None where that is not known."""
        return read_arrangement(self.folder)

    def keep_arrangement(self, arrangement: Mapping[str, Json]) -> None:
        """Remember how the panel is arranged."""
        if self.state.started is not None:
            write_arrangement(self.folder, arrangement)

    def wait_for_change(self, seen: int, timeout: float) -> int:
        """Wait until something changed since ``seen``, or the seconds are over.

        Returns what to pass next.
        """
        return self.signal.wait(seen, timeout)

    def also_saved(self) -> dict[str, Json]:
        """What a saved output carries besides its pictures.

        The record, from which the experiment is replayed.
        """
        if self.state.started is None:
            return {}
        from rf_notebook.record.record import RECORD_MIME
        from rf_notebook.record.recording import record_of

        began = time.monotonic()
        if self.is_idle or began > self._record_until:
            self._record = {RECORD_MIME: record_of(self.state, self._known_chunks)}
            self._record_until = began + (time.monotonic() - began) / _RECORD_SHARE
        return self._record

    def run_id(self, run: RunLike) -> int:
        """The id of a run that there is.

        Raises:
            ConfigError: for what is not a run.
            UnknownRun: for an id that no run has.
        """
        run_id = run.id if isinstance(run, Run) else run
        if isinstance(run_id, bool) or not isinstance(run_id, int):
            raise ConfigError(f"{run!r} is not a run; give an id such as 3, or a handle.")
        return self.state.record(run_id).run_id

    def handle(self, run_id: int) -> Run:
        """A live view of a run."""
        return Run(self.state, run_id, self.folder)

    # ---- the record

    def open_record(self) -> SqliteStore:
        """The record; begun when there is none yet.

        Raises:
            StoreError: when it cannot be read, or is gone from beside its checkpoints.
        """
        if self.store is None:
            path = layout.record(self.folder)
            is_there = path.exists() and path.stat().st_size > 0
            if not is_there and layout.runs(self.folder).exists():
                raise StoreError(
                    f"{path} is {'empty' if path.exists() else 'gone'}, and checkpoints lie beside it: take it from a "
                    "backup, use another experiment name, or remove the folder."
                )
            self.store = SqliteStore(path, observer=lambda point: self.observer(point))
            self.refresh()
        return self.store

    def refresh(self) -> None:
        """Take in what another kernel recorded; the engine's own events come by themselves."""
        with self._applying:
            if self.store is None or self.is_training or self.damage:
                return
            damage = ""
            try:
                new: Sequence[Recorded] = self.store.read(after=self.state.last_seq)
            except RecordDamaged as error:
                damage, new = str(error), error.sure
            try:
                for recorded in new:
                    self.state.apply(recorded)
            except UnknownRun as error:
                damage = f"the record is damaged: entry {self.state.last_seq}: {error}"
                self.state.last_seq -= 1
            if damage:
                self.damage = f"{damage} {_REMEDY if self.state.started else _NO_REMEDY}"

    def check_sure(self) -> None:
        """Refuse to write a record that is damaged.

        Raises:
            RecordDamaged: with what can be done.
        """
        if self.damage:
            raise RecordDamaged(self.damage)

    # ---- training

    def begin(
        self,
        launch: Launch,
        *,
        extend: bool = False,
        take_over: bool = False,
        sources: Sources | None = None,
        script: Script | None = None,
        autopilot: Autopilot | None = None,
        studies: Sequence[OptunaPolicy] = (),
    ) -> None:
        """Take the lease, record the launch, and train.

        Args:
            launch: Found to be possible.
            extend: Whether configs that are not recorded may be added.
            take_over: Whether to take the experiment from another kernel.
            sources: The cells that it is launched from.
            script: Operations to obey at their steps, in a replay.
            autopilot: The policy at work, if any.
            studies: Of searches that learn while they train.

        Raises:
            ConfigError: when the arguments are not the recorded ones.
            ReadOnlyExperiment: when another kernel trains this experiment.
            StorageFull: when checkpoints lie in a storage that does not answer.
        """
        with self._applying:
            self.refresh()
            self.check_sure()
            check_starts(continuation(self.state, launch, known=self.objects, extend=extend).new)
            store = self.open_record()
            if self.training is not None:  # its thread died of an error
                self.end_training(cancelled=False)
            self._fence = store.acquire(this_process(), take_over=take_over)
            try:
                self.refresh()
                self.check_sure()
                found = continuation(self.state, launch, known=self.objects, extend=extend)
                found.take_names(launch.objects)
                provide(
                    self.folder, self.name, self.state, storage=self.storage, cluster=launch.cluster
                )
                self.objects, self.launch = launch.objects, launch
                keep_secret_names(self.folder, launch.objects.secret_names())
                self.sources = sources
                self.log.open()
                training = Training(
                    self.folder,
                    self.name,
                    launch,
                    found.new,
                    self.state,
                    store,
                    fence=self._fence,
                    script=script,
                    autopilot=autopilot,
                    observer=self.observer,
                    log=self.log,
                    signal=self.signal,
                    backend=self.backend,
                )
            except BaseException:
                store.release(self._fence)
                self._fence = None
                raise
            self.training = training
            watch_cells()
            training.keep_studies(studies)
            training.start()

    def attach(
        self,
        launch: Launch,
        *,
        extend: bool,
        autopilot: Autopilot | None,
        studies: Sequence[OptunaPolicy],
    ) -> None:
        """The launching cell was run again while the experiment trains; see ``begin``.

        Raises:
            ConfigError: also for new configs that need more GPUs than the workers have.
        """
        assert self.training is not None
        found = continuation(self.state, launch, known=self.objects, extend=extend)
        check_starts(found.new)
        gpus = max(facts.gpus for facts in self.engine.fleet.devices())
        needed = max((config.num_gpus for config in found.new), default=1)
        if needed > gpus:
            raise ConfigError(
                f"a new config has num_gpus={needed}, and the experiment trains on workers of {gpus}; "
                f"let it end, then call run_fit with workers of {needed}."
            )
        if autopilot is not None:
            self.engine.mailbox.submit(Automate(policy=autopilot.policy)).result()
        self.training.keep_studies(studies)
        if found.new:
            found.take_names(launch.objects)
            self.objects.update(launch.objects)
            keep_secret_names(self.folder, self.objects.secret_names())
            self.training.add(launch, found.new)

    def end_training(self, *, cancelled: bool) -> BaseException | None:
        """Let the engine's thread end and give the lease back.

        Returns what the thread died of, if it did.
        """
        assert self.training is not None
        assert self.store is not None
        training = self.training
        training.close(cancelled=cancelled)
        self._mlflow_ids = training.mlflow_ids
        if self._fence is not None:
            self.store.release(self._fence)
        self.training, self._fence = None, None
        self.signal.changed()
        return training.thread.error
