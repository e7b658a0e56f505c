"""One search over one data set: what a user calls. It wires the floors below and decides nothing itself."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from rf_notebook import launch as launching
from rf_notebook.automl.concrete import apply_edits
from rf_notebook.automl.encoding import Objects
from rf_notebook.console import Progress, in_notebook, table_text
from rf_notebook.core.errors import ConfigError, IllegalOperation, RFNotebookError, UnknownRun
from rf_notebook.core.events import (
    Event,
    ExperimentContinued,
    Noted,
    OperationObeyed,
    Recorded,
    RunAdded,
)
from rf_notebook.core.operations import CloneRun, DeleteRun, Operation, ResumeRun, StopRun
from rf_notebook.core.ports import CommitObserver, unobserved
from rf_notebook.core.redaction import redact
from rf_notebook.core.state import ExperimentState
from rf_notebook.engine.keep import Keep
from rf_notebook.engine.loop import Engine
from rf_notebook.engine.mailbox import Receipt
from rf_notebook.engine.thread import EngineThread
from rf_notebook.runs import Run, best_run, results_frame, runs_frame
from rf_notebook.store.lease import this_process
from rf_notebook.store.sqlite import SqliteStore
from rf_notebook.tracking.mlflow_mirror import MlflowMirror

if TYPE_CHECKING:
    import pandas as pd

    from rf_notebook.training.base_models import BaseModels

ValueT = TypeVar("ValueT")
RunLike = int | Run

_NAME = re.compile(r"[\w][\w .+-]{0,99}")
_MIRROR_CLOSE_SECONDS = 20.0
#: The experiment that trains in this process, if any.
_training: Experiment | None = None


class Experiment:
    """Trains and compares many configs at once.

    Args:
        experiment_name: Names the folder; an existing name opens what is recorded there.
        mode: "fit".
        experiment_path: The folder of the folder; "rf_experiments" in the working directory when omitted.
    """

    def __init__(self, experiment_name: str, mode: str = "fit", experiment_path: str | Path | None = None) -> None:
        if mode != "fit":
            raise ConfigError(f"Experiment(mode={mode!r}) is not possible; use mode='fit'.")
        if (
            not isinstance(experiment_name, str)
            or not _NAME.fullmatch(experiment_name)
            or experiment_name.endswith(".")
        ):
            raise ConfigError(
                f"Experiment(experiment_name={experiment_name!r}): a name has up to 100 letters, digits, spaces and . _ + - "
                "and begins with a letter, digit or _."
            )
        self.experiment_name = experiment_name
        self._folder = Path(experiment_path if experiment_path is not None else "rf_experiments") / experiment_name
        self._state = ExperimentState()
        self._progress = Progress(self._state)
        self._store: SqliteStore | None = None
        self._thread: EngineThread | None = None
        self._mirror: MlflowMirror | None = None
        self._fence: int | None = None
        self._objects = Objects()
        self._models: BaseModels | None = None
        self._create_model: Callable[[dict[str, Any]], tuple[Any, Any]] | None = None
        self._log = logging.Logger(f"rf_notebook.{experiment_name}")
        self._observer: CommitObserver = unobserved
        if (self._folder / "experiment.sqlite").exists():
            self._open_store()

    # ---- training

    def run_fit(
        self,
        param_config: Any,
        create_model_fn: Callable[[dict[str, Any]], tuple[Any, Any]] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        num_chunks: int = 4,
        seed: int = 42,
        *,
        num_shards: int | None = None,
        execution: str = "exact",
        data_seed: int | None = None,
        display: bool | None = None,
        extend: bool = False,
        keep: str = "best",
        fail_on_nan: bool = False,
        take_over: bool = False,
    ) -> None:
        """Train all configs in turns, in the background; returns at once.

        Calling it again under the same name with the same arguments goes on where the record ends, so running a
        notebook's cells again is always right.

        Args:
            param_config: An RFGridSearch or RFRandomSearch.
            create_model_fn: Called with a dict (model_name, model_type, model_kwargs, tokenizer, tokenizer_kwargs) once
                for each distinct base model; returns (model, tokenizer). The hub's auto classes when omitted.
            train_dataset: A datasets.Dataset, a list of dicts or a pandas frame; a stream with max_steps.
            eval_dataset: Likewise; every run is evaluated on it at every chunk boundary.
            num_chunks: Chunks a pass over the data. After each, the next run has its turn.
            seed: For configs that set none: of training, data order and adapter initialisation.
            num_shards: The newer name of num_chunks.
            execution: "exact": every run gives the very numbers that plain TRL gives for its config alone.
            data_seed: For configs that set none.
            display: Whether to show the panel; by default in notebooks.
            extend: Add configs that the record does not have as new runs.
            keep: Which checkpoints stay: "best" (the newest two and the best), "last" (the newest two) or "all".
            fail_on_nan: Whether a run whose loss is no number fails.
            take_over: Take the experiment from another kernel that is training it.

        Raises:
            ConfigError: what cannot work, before any model is loaded.
            ReadOnlyExperiment: when another kernel trains this experiment.
            IllegalOperation: when another experiment trains in this kernel.
        """
        global _training
        if self._is_training:
            raise IllegalOperation(
                f"experiment {self.experiment_name!r} is open already; clone runs to add some, or end() it first."
            )
        other = _training
        if other is not None and other._is_training and not other._is_idle:
            raise IllegalOperation(
                f"experiment {other.experiment_name!r} is training in this kernel; wait() for it or end() it first."
            )
        launch = launching.prepare(
            self._folder,
            self.experiment_name,
            param_config,
            create_model_fn,
            train_dataset,
            eval_dataset,
            num_chunks=num_chunks,
            num_shards=num_shards,
            seed=seed,
            data_seed=data_seed,
            execution=execution,
            keep=keep,
            fail_on_nan=fail_on_nan,
        )
        self._refresh()
        launching.additions(self._state, launch, extend=extend)
        store = self._open_store()
        self._fence = store.acquire(this_process(), take_over=take_over)
        try:
            self._refresh()
            new = launching.additions(self._state, launch, extend=extend)
            self._start(launch, new, store)
        except BaseException:
            store.release(self._fence)
            self._fence = None
            raise
        _training = self
        if display is not False and not in_notebook() and not sys.stdout.isatty():
            print(self._opening_line(), flush=True)  # noqa: T201 - a script's first line of progress

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no run wants to train; Ctrl-C ends the waiting, not the training.

        Args:
            timeout: Seconds; forever when omitted.

        Returns:
            Whether all runs are over or stopped.
        """
        over = self._wait(timeout)
        self._raise_engine_error()
        return over

    def _wait(self, timeout: float | None = None) -> bool:
        thread = self._thread
        if thread is None:
            return True
        until = None if timeout is None else time.monotonic() + timeout
        publisher, mailbox = thread.engine.publisher, thread.engine.mailbox
        with self._progress.shown(sys.stdout) as show:
            seen = -1
            while not mailbox.idle.is_set():
                left = 0.5 if until is None else min(0.5, until - time.monotonic())
                if left <= 0:
                    return False
                now = publisher.wait_for_change(seen, left)
                if now != seen:
                    show(thread.engine.held_up)
                    seen = now
        return True

    async def wait_async(self) -> bool:
        """Like ``wait``, for ``await``: other coroutines go on."""
        thread = self._thread
        while thread is not None and not thread.engine.mailbox.idle.is_set():
            await asyncio.sleep(0.05)
        self._raise_engine_error()
        return True

    def end(self, cancel: bool = False) -> None:
        """Wait for the runs, then close: threads end, the base models' memory is free, results stay readable.

        Args:
            cancel: Do not wait; stop at the next step and keep everything.
        """
        if self._thread is None:
            return
        if not cancel:
            self._wait()
        self._close(cancelled=cancel)

    def cancel_current(self) -> None:
        """Stop now and keep everything; ``run_fit`` with the same arguments goes on later."""
        self.end(cancel=True)

    # ---- operations

    def stop(self, run: RunLike | Iterable[RunLike]) -> Receipt[Any]:
        """Take a run out of the rotation at its next step; nothing of it is lost.

        Args:
            run: An id, a handle, or several.

        Returns:
            A receipt; its ``result()`` is the run's handle, or a list of them for several.
        """
        return self._ask(run, lambda run_id: StopRun(run_id=run_id))

    def resume(self, run: RunLike | Iterable[RunLike]) -> Receipt[Any]:
        """Put a stopped run back, exactly where it was. See ``stop``."""
        return self._ask(run, lambda run_id: ResumeRun(run_id=run_id))

    def delete(self, run: RunLike | Iterable[RunLike]) -> Receipt[Any]:
        """Remove a run, its memory and its checkpoints; its figures stay. See ``stop``."""
        return self._ask(run, lambda run_id: DeleteRun(run_id=run_id))

    def clone(self, run: RunLike | Iterable[RunLike], edits: Any = None, warm_start: bool = False) -> Receipt[Any]:
        """Add a run with the config of another and edits.

        Args:
            run: The parent, or several.
            edits: A dict by dotted key (``{"training_args.learning_rate": 5e-5}``), a nested dict, or a config.
            warm_start: Start from the parent's adapter as it is now, instead of from scratch.

        Returns:
            A receipt; its ``result()`` is the new run's handle.

        Raises:
            ConfigError: for edits that cannot be.
        """

        def operation(run_id: int) -> Operation:
            config, changed = apply_edits(self._state.record(run_id).config, edits, self._objects)
            return CloneRun(run_id=run_id, config=config, edits=changed, warm_start=warm_start)

        return self._ask(run, operation)

    # ---- results

    @property
    def runs(self) -> list[Run]:
        """A live handle for each run, in the order of their ids."""
        self._refresh()
        return [Run(self._state, run_id, self._folder) for run_id in sorted(self._state.runs)]

    def run(self, run: RunLike) -> Run:
        """The live handle of one run.

        Raises:
            UnknownRun: naming the runs that there are.
        """
        self._refresh()
        return Run(self._state, self._id_of(run), self._folder)

    def best(self, metric: str | None = None, mode: str | None = None) -> Run:
        """The run with the best latest value of a metric.

        Args:
            metric: "eval_loss" when omitted, or "loss" where nothing was evaluated.
            mode: "min" or "max"; "min" for losses and "max" for others when omitted.

        Raises:
            UnknownRun: when no run has the metric.
        """
        self._refresh()
        names = sorted({name for run in self.runs for name in run.metrics})
        metric = metric or ("eval_loss" if "eval_loss" in names else "loss")
        mode = mode or ("min" if "loss" in metric or "perplexity" in metric else "max")
        if mode not in ("min", "max"):
            raise ConfigError(f"best(mode={mode!r}): mode is 'min' or 'max'.")
        found = best_run(self._state, metric, mode)
        if found is None:
            raise UnknownRun(f"no run has the metric {metric!r} yet; there are: {', '.join(names) or 'none'}.")
        return Run(self._state, found, self._folder)

    def get_results(self) -> pd.DataFrame:
        """A row per run and logged step: run_id, step, samples, epoch, chunk, and every metric."""
        self._refresh()
        return results_frame(self._state)

    def get_runs_info(self) -> pd.DataFrame:
        """A row per run: its state, its progress, and its config by dotted key."""
        self._refresh()
        return runs_frame(self._state)

    def get_log_file_path(self) -> Path:
        """The experiment's log."""
        return self._folder / "experiment.log"

    @property
    def messages(self) -> list[str]:
        """What the user should know, oldest first."""
        return [r.event.text for r in self._state.notes if isinstance(r.event, Noted)]

    @property
    def operations(self) -> list[tuple[OperationObeyed, float]]:
        """Every operation that was obeyed, with its wall time in seconds since 1970."""
        return [(r.event, r.at) for r in self._state.operations if isinstance(r.event, OperationObeyed)]

    def load(self, run: RunLike, create_model_fn: Callable[[dict[str, Any]], tuple[Any, Any]] | None = None) -> Any:
        """A run's trained model, ready for inference; its newest checkpoint is what counts.

        Args:
            run: An id or a handle.
            create_model_fn: For an experiment that this kernel did not train; the hub's auto classes when omitted.
        """
        return self._trained(run, create_model_fn, lambda model, _tokenizer: model)

    def export(
        self,
        run: RunLike,
        path: str | Path,
        merge: bool = False,
        create_model_fn: Callable[[dict[str, Any]], tuple[Any, Any]] | None = None,
    ) -> Path:
        """Write a run's adapter and tokenizer to a folder of the user's.

        Args:
            run: An id or a handle.
            path: A new or empty folder.
            merge: Write whole weights with the adapter folded in.
            create_model_fn: As for ``load``.
        """
        target = Path(path)

        def write(model: Any, tokenizer: Any) -> None:
            from rf_notebook.training.trained_model import export_model

            export_model(model, tokenizer, target, merge=merge)

        self._trained(run, create_model_fn, write)
        return target

    def __repr__(self) -> str:
        self._refresh()
        if not self._state.runs:
            return f"<Experiment {self.experiment_name!r}: nothing recorded; call run_fit>"
        return f"Experiment {self.experiment_name!r}\n{table_text(self._state)}"

    # ---- wiring

    @property
    def _is_training(self) -> bool:
        return self._thread is not None and self._thread.is_alive

    @property
    def _is_idle(self) -> bool:
        return self._thread is None or self._thread.engine.mailbox.idle.is_set()

    def _open_store(self) -> SqliteStore:
        if self._store is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._store = SqliteStore(self._folder / "experiment.sqlite", observer=self._observer)
            self._refresh()
        return self._store

    def _refresh(self) -> None:
        """Take in what another kernel recorded; the engine's own events come by themselves."""
        if self._store is not None and not self._is_training:
            for recorded in self._store.read(after=self._state.last_seq):
                self._state.apply(recorded)

    def _start(self, launch: launching.Launch, new: list[Any], store: SqliteStore) -> None:
        from rf_notebook.training.checkpoints import remove_orphans
        from rf_notebook.training.openmp import release_workers
        from rf_notebook.training.quiet import library_messages_to
        from rf_notebook.training.runner import KernelRunner

        assert self._fence is not None
        self._open_log()
        fence = self._fence
        self._objects, self._create_model = launch.objects, launch.create_model
        runner = KernelRunner(
            self._folder,
            launch.data,
            launch.objects,
            launch.create_model,
            num_chunks=launch.started.num_chunks,
            fail_on_nan=launch.fail_on_nan,
            observer=self._observer,
            log=self._log,
        )
        self._models = runner.models

        def make_engine(wait_for_room: Callable[[], bool]) -> Engine:
            return Engine(
                store,
                runner,
                self._state,
                fence=fence,
                keep=Keep(launch.started.keep),
                observer=self._observer,
                wait_for_room=wait_for_room,
                log=self._log,
            )

        thread = EngineThread(
            make_engine,
            runner,
            store,
            fence=fence,
            name=self.experiment_name,
            surroundings=lambda: library_messages_to(self._log),
            log=self._log,
        )
        engine = thread.engine
        runner.listener = engine.on_live
        engine.commit(self._opening_events(launch, new))
        assert self._state.started is not None
        mirror = MlflowMirror(self._folder, self.experiment_name, self._state.started.identity, log=self._log)
        remove_orphans(self._folder, _folders_in_use(self._state))
        engine.publisher.subscribe(mirror.notify)
        engine.publisher.subscribe(self._log_events)
        mirror.start(store.read())
        self._thread, self._mirror = thread, mirror
        release_workers()
        thread.start()

    def _opening_events(self, launch: launching.Launch, new: list[Any]) -> list[Event]:
        first = self._state.started is None
        events: list[Event] = [launch.started if first else ExperimentContinued(versions=launch.started.versions)]
        start = max(self._state.runs, default=0) + 1
        events += [RunAdded(run_id=start + i, config=config) for i, config in enumerate(new)]
        return events

    def _opening_line(self) -> str:
        started = self._state.started
        assert started is not None
        waiting = len(self._state.ready())
        return f"experiment {self.experiment_name!r}: {waiting} of {len(self._state.runs)} runs to train, in {self._folder}"

    def _close(self, *, cancelled: bool) -> None:
        thread, mirror, store = self._thread, self._mirror, self._store
        assert thread is not None
        assert store is not None
        if thread.is_alive:
            engine = thread.engine
            ended = engine.mailbox.submit(lambda: engine.close_experiment(cancelled=cancelled))
            _quietly_wait(ended)
            thread.end()
        if mirror is not None and not mirror.close(_MIRROR_CLOSE_SECONDS):
            self._log.warning("MLflow is behind; the rest is written when the experiment is continued")
        if self._fence is not None:
            store.release(self._fence)
        self._thread, self._mirror, self._fence = None, None, None
        self._close_log()
        if thread.error is not None:
            raise thread.error

    def _raise_engine_error(self) -> None:
        if self._thread is not None and self._thread.error is not None:
            raise self._thread.error

    def _id_of(self, run: RunLike) -> int:
        run_id = run.id if isinstance(run, Run) else run
        if isinstance(run_id, bool) or not isinstance(run_id, int):
            raise ConfigError(f"{run!r} is no run; give an id such as 3, or a handle.")
        return self._state.record(run_id).run_id

    @overload
    def _ask(self, run: RunLike, make: Callable[[int], Operation]) -> Receipt[Run]: ...
    @overload
    def _ask(self, run: Iterable[RunLike], make: Callable[[int], Operation]) -> Receipt[list[Run]]: ...
    def _ask(self, run: RunLike | Iterable[RunLike], make: Callable[[int], Operation]) -> Receipt[Any]:
        single = isinstance(run, int | Run)
        given: list[RunLike] = [run] if isinstance(run, int | Run) else list(run)
        self._refresh()
        operations = [make(self._id_of(one)) for one in given]
        thread = self._thread
        if thread is None or not thread.is_alive:
            raise IllegalOperation(
                f"experiment {self.experiment_name!r} is not open for training here; call run_fit with its arguments first."
            )
        futures = [thread.engine.mailbox.submit(operation) for operation in operations]

        def handles(ids: list[int]) -> Any:
            runs = [Run(self._state, run_id, self._folder) for run_id in ids]
            return runs[0] if single else runs

        return Receipt(futures, handles)

    def _trained(
        self,
        run: RunLike,
        create_model_fn: Callable[[dict[str, Any]], tuple[Any, Any]] | None,
        use: Callable[[Any, Any], ValueT],
    ) -> ValueT:
        self._refresh()
        record = self._state.record(self._id_of(run))
        if not record.checkpoints:
            raise IllegalOperation(f"run {record.run_id} has no checkpoint yet; wait for its first chunk.")
        from rf_notebook.training.base_models import BaseModels
        from rf_notebook.training.trained_model import trained_model

        def work() -> ValueT:
            models = self._models if self._is_training and self._models is not None else None
            models = models or BaseModels(create_model_fn or self._create_model)
            newest = self._state.record(record.run_id).checkpoints[-1].folder
            return use(*trained_model(models, self._folder, self._objects, record.config, newest))

        if self._is_training:
            assert self._thread is not None
            result: ValueT = self._thread.engine.mailbox.submit(work).result()
            return result
        return work()

    # ---- the log

    def _open_log(self) -> None:
        self._close_log()
        handler = logging.FileHandler(self.get_log_file_path(), encoding="utf-8", delay=True)
        handler.setFormatter(_RedactingFormatter("%(asctime)s %(levelname)s %(message)s"))
        self._log.addHandler(handler)

    def _close_log(self) -> None:
        for handler in list(self._log.handlers):
            self._log.removeHandler(handler)
            handler.close()

    def _log_events(self, recorded: Iterable[Recorded]) -> None:
        for one in recorded:
            self._log.info("%s", _event_line(one.event))


class _RedactingFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


def _event_line(event: Event) -> str:
    from rf_notebook.core.events import ChunkTrained, RunFailed, StateChanged

    match event:
        case ChunkTrained():
            at = event.progress
            return f"run {event.run_id}: step {at.steps}/{at.total_steps}, chunk {at.chunks}/{at.total_chunks}"
        case StateChanged():
            return f"run {event.run_id}: {event.state}"
        case RunFailed():
            return f"run {event.run_id} failed: {event.failure.message}\n{event.failure.traceback}"
        case OperationObeyed():
            return f"obeyed: {type(event.operation).__name__} on run {event.operation.run_id} at step {event.steps}"
        case Noted():
            return event.text
        case _:
            return type(event).__name__


def _folders_in_use(state: ExperimentState) -> set[str]:
    used = set()
    for record in state.runs.values():
        used |= {saved.folder.path for saved in record.checkpoints}
        if record.warm_start is not None:
            used.add(record.warm_start.path)
    return used


def _quietly_wait(future: Future[Any]) -> None:
    try:
        future.result()
    except RFNotebookError:
        return  # shown by whoever asks for the engine's error
