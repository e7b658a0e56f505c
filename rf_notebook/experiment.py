"""One search over one data set: what a user calls. It wires the floors below and decides nothing itself."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rf_notebook import launch as launching
from rf_notebook import once_more
from rf_notebook.automation.policies import Policies
from rf_notebook.automation.policy import evaluates
from rf_notebook.automl.concrete import apply_edits
from rf_notebook.automl.validation import did_you_mean
from rf_notebook.core.errors import ConfigError, IllegalOperation, UnknownRun
from rf_notebook.core.events import Noted, OperationObeyed
from rf_notebook.core.foreground import only_waiting, watch_cells
from rf_notebook.core.metrics import headline
from rf_notebook.core.objects import Objects
from rf_notebook.core.operations import CloneRun, DeleteRun, Operation, ResumeRun, StopRun
from rf_notebook.core.ports import CommitObserver, unobserved
from rf_notebook.core.redaction import private
from rf_notebook.core.state import ExperimentState
from rf_notebook.core.values import Json
from rf_notebook.engine.autopilot import Autopilot
from rf_notebook.engine.loop import Engine
from rf_notebook.engine.mailbox import Receipt
from rf_notebook.engine.script import Script
from rf_notebook.engine.thread import EngineThread
from rf_notebook.host import Host
from rf_notebook.jupyterlab.provenance import Sources, sources_now
from rf_notebook.recorded import Continuation, continuation
from rf_notebook.registry import FOLDER, open_experiments, remember, use
from rf_notebook.rehearsal import current_rehearsal
from rf_notebook.results.decisions import decisions_of
from rf_notebook.results.frames import results_frame, runs_frame
from rf_notebook.results.handle import Run
from rf_notebook.results.metrics import best_runs
from rf_notebook.store import layout
from rf_notebook.store.lease import this_process
from rf_notebook.store.sqlite import SqliteStore
from rf_notebook.tracking.experiment_log import ExperimentLog
from rf_notebook.training_session import TrainingSession, new_functions
from rf_notebook.views.console import Progress, table_text
from rf_notebook.widgets.front_end import FrontEnd, front_end

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects

    from rf_notebook.automation import Policy
    from rf_notebook.automation.optuna_policy import OptunaPolicy
    from rf_notebook.training.base_models import BaseModels
    from rf_notebook.training.trained_model import TrainedModel
    from rf_notebook.widgets.display import ExperimentDisplay

ValueT = TypeVar("ValueT")
RunLike = int | Run

_LOG_TYPES = ("experiment", "main", "training")
_NAME = re.compile(r"[\w][\w .+-]{0,99}")


class Experiment:
    """Trains and compares many configs at once.

    Args:
        experiment_name: Names the folder; an existing name opens what is recorded there.
        mode: "fit".
        experiment_path: The folder of the folder; "rf_experiments" in the working directory when omitted.
        num_cpus: RapidFire AI's, for its evaluations. Training uses torch's threads: ``torch.set_num_threads``.
        num_gpus: 1; more is refused.

    While an experiment trains, constructing it again (a cell run again) gives the same object.
    """

    def __new__(
        cls,
        experiment_name: str,
        mode: str = "fit",
        experiment_path: str | Path | None = None,
        **_of_init: Any,
    ) -> Experiment:
        """See the class: the living object of this name, or a new one."""
        name, path = _staged(experiment_name, experiment_path)
        present = open_experiments.get(_folder_of(name, path).absolute()) if mode == "fit" else None
        return present if present is not None and present._is_training else super().__new__(cls)

    def __init__(
        self,
        experiment_name: str,
        mode: str = "fit",
        experiment_path: str | Path | None = None,
        *,
        num_cpus: int | None = None,
        num_gpus: int | None = None,
    ) -> None:
        if self in open_experiments.values():
            return
        experiment_name, experiment_path = _staged(experiment_name, experiment_path)
        if mode != "fit":
            raise ConfigError(f"Experiment(mode={mode!r}) is not possible; use mode='fit'.")
        launching.check_num_gpus("Experiment", num_gpus)
        if num_cpus is not None:
            warnings.warn(
                f"Experiment(num_cpus={num_cpus!r}) has no effect: training uses torch's threads; torch.set_num_threads sets them.",
                stacklevel=2,
            )
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
        self._folder = _folder_of(experiment_name, experiment_path)
        self._state = ExperimentState()
        self._progress = Progress(self._state)
        self._store: SqliteStore | None = None
        self._session: TrainingSession | None = None
        self._fence: int | None = None
        self._objects = Objects()
        self._models: BaseModels | None = None
        self._create_model: Callable[[dict[str, Any]], tuple[Any, Any]] | None = None
        self._log = ExperimentLog(layout.log(self._folder), experiment_name)
        self._observer: CommitObserver = unobserved
        self._host = Host(self)
        self._display: ExperimentDisplay | None = None
        self._is_preparing = False
        self._applying = threading.RLock()
        """Held while events of the record are read and applied outside the engine: the panel's thread does so, too."""
        self._mlflow_ids: dict[int, str] = {}
        """Of MLflow's runs, as they were known last."""
        self._launch: launching.Launch | None = None
        """What ``run_fit`` was given, when this process called it."""
        self._sources: Sources | None = None
        """The cells that it was launched from."""
        if layout.record(self._folder).exists():
            self._open_store()
        remember(self)
        self.tell_jupyterlab()

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
        sample_prompts: int | list[str] = 0,
        policy: Policy | None = None,
        take_over: bool = False,
        num_gpus: int = 1,
    ) -> None:
        """Train all configs side by side, in the background; returns at once.

        Calling it again under the same name with the same arguments goes on where the record ends, and while the
        experiment trains it shows the panel again; so running a notebook's cells again is always right.

        Args:
            param_config: An RFGridSearch, RFRandomSearch or RFOptuna, or a list of them.
            create_model_fn: Called with a dict (model_name, model_type, model_kwargs, tokenizer, tokenizer_kwargs) once
                for each distinct base model; returns (model, tokenizer). The hub's auto classes when omitted.
            train_dataset: A datasets.Dataset, a list of dicts or a pandas frame; a stream with max_steps.
            eval_dataset: Likewise; every run is evaluated on it at every chunk boundary.
            num_chunks: Chunks a pass over the data. After each, the next run has its turn.
            seed: For configs that set none: of training, data order and adapter initialisation.
            num_shards: The newer name of num_chunks.
            execution: "exact": runs train in turns, and every one gives the very numbers that plain TRL gives for its
                config alone. "fused": runs that share a base model advance in joint steps, several times faster on a GPU
                and equal up to rounding; those that cannot (``get_runs_info()`` says why) train in turns. "auto": both
                are tried for a few steps and the faster is taken.
            data_seed: For configs that set none.
            display: Whether a notebook shows the panel, and a script its first line; both do when omitted.
            extend: Add configs that the record does not have as new runs.
            keep: Which checkpoints stay: "best" (the newest two and the best), "last" (the newest two) or "all".
            fail_on_nan: Whether a run fails whose loss or gradients are NaN or infinite. Otherwise it trains on, is shown
                as diverged, and is never the best.
            sample_prompts: What every run answers at each chunk boundary, to be read side by side: texts, or how many
                rows of the evaluation data to ask. It takes the time of generating 64 tokens each.
            policy: Decides at chunk boundaries, as ``Halving()`` does; see ``automate``. A replay has its decisions in
                the record and takes none.
            take_over: Take the experiment from another kernel that is training it.
            num_gpus: 1; more is refused.

        Raises:
            ConfigError: what cannot work, before any model is loaded.
            ReadOnlyExperiment: when another kernel trains this experiment.
            IllegalOperation: when another experiment trains in this kernel.
        """
        rehearsal, sources = current_rehearsal(), sources_now()
        autopilot = None if policy is None or rehearsal is not None else self._autopilot(policy)
        studies: list[OptunaPolicy] = []
        self._check_alone()
        with self._preparing(display) as show:
            launch = launching.prepare(
                self._folder,
                self.experiment_name,
                param_config,
                create_model_fn,
                train_dataset,
                eval_dataset,
                num_chunks=num_chunks,
                num_shards=num_shards,
                num_gpus=num_gpus,
                seed=seed,
                data_seed=data_seed,
                execution=execution,
                keep=keep,
                fail_on_nan=fail_on_nan,
                sample_prompts=sample_prompts,
                known=self._objects,
                cells=() if sources is None else sources.cells,
                before_import=show,
            )
            told = list(launch.warnings)
            if autopilot is not None:
                has_eval = launch.data.evaluation is not None
                told += autopilot.check(launch.configs, evaluates=has_eval, sources=launch.functions())
            for text in told:
                warnings.warn(text, stacklevel=2)
            if rehearsal is None:
                studies = launch.studies(self._wait)
            if studies:
                policies = [*studies] if autopilot is None else [autopilot.policy, *studies]
                autopilot = self._autopilot(policies[0] if len(policies) == 1 else Policies(policies))
            if self._is_training:
                self._attach(launch, extend=extend, autopilot=autopilot, studies=studies)
                return
            script = None
            if rehearsal is not None:
                launch = rehearsal.as_recorded(launch)
                script = rehearsal.script_for(launch)
            with self._applying:
                self._begin(
                    launch, extend=extend, take_over=take_over, script=script, autopilot=autopilot, studies=studies
                )
            open_experiments[self._folder.absolute()] = self
            use(self)
        if rehearsal is not None:
            rehearsal.began(self)
        if display is not False and self._display is None and not sys.stdout.isatty():
            print(self._opening_line(), flush=True)  # noqa: T201 - a script's first line of progress

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no run wants to train; Ctrl-C ends the waiting, not the training.

        Args:
            timeout: Seconds; forever when omitted.

        Returns:
            Whether all runs are over or stopped.
        """
        over = self._wait(timeout)
        self._refresh_display()
        self._raise_engine_error()
        return over

    def _wait(self, timeout: float | None = None) -> bool:
        thread = self._thread
        if thread is None:
            return True
        until = None if timeout is None else time.monotonic() + timeout
        publisher, mailbox = thread.engine.publisher, thread.engine.mailbox
        quiet = self._display is not None and self._display.is_shown
        # Whoever looks in now and then does something else in between.
        at_rest = only_waiting() if timeout is None else nullcontext()
        with at_rest, self._progress.shown(None if quiet else sys.stdout) as show:
            seen = -1
            while not mailbox.idle.is_set():
                left = 0.5 if until is None else min(0.5, until - time.monotonic())
                if left <= 0:
                    return False
                now = publisher.wait_for_change(seen, left)
                if now != seen:
                    show(thread.engine.held_up or ("paused" if thread.engine.paused else None))
                    seen = now
                if self._display is not None:
                    self._display.refresh_while_waiting()
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
        self._refresh_display()

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

    def resume(self, run: RunLike | Iterable[RunLike] | None = None) -> Receipt[Any]:
        """Put a stopped run back, exactly where it was. See ``stop``.

        Args:
            run: An id, a handle, or several; omitted, a paused experiment goes on.
        """
        if run is None:
            return self._set_paused(False)
        return self._ask(run, lambda run_id: ResumeRun(run_id=run_id))

    def pause(self) -> Receipt[Any]:
        """Give no run a turn until ``resume()``: the device is free, everything stays in memory, no run is stopped."""
        return self._set_paused(True)

    def delete(self, run: RunLike | Iterable[RunLike]) -> Receipt[Any]:
        """Remove a run, its memory and its checkpoints; its figures stay. See ``stop``."""
        return self._ask(run, lambda run_id: DeleteRun(run_id=run_id))

    def clone(self, run: RunLike | Iterable[RunLike], edits: Any = None, warm_start: bool = False) -> Receipt[Any]:
        """Add a run with the config of another and edits.

        Args:
            run: The parent, or several.
            edits: A dict by dotted key (``{"training_args.learning_rate": 5e-5}``), a nested dict, or a config; an
                RFDPOConfig or RFGRPOConfig makes the clone of an SFT run one of that method.
            warm_start: Start from the parent's adapter as it is now, instead of from scratch.

        Returns:
            A receipt; its ``result()`` is the new run's handle.

        Raises:
            ConfigError: for edits that cannot be.
        """
        return self._ask(run, lambda run_id: self._cloning(run_id, edits, warm_start))

    def retry(self, run: RunLike) -> Receipt[Any]:
        """Add a clone of a run that ran out of memory, with half its batch and twice its accumulation.

        Returns:
            A receipt; its ``result()`` is the new run's handle.

        Raises:
            IllegalOperation: for a run that did not fail so, or whose batch is one example.
        """
        self._refresh()
        record = self._state.record(self._id_of(run))
        if record.failure is None or not record.failure.out_of_memory:
            raise IllegalOperation(
                f"cannot retry run {record.run_id}: it did not run out of memory; clone it with edits."
            )
        if not record.failure.retry:
            raise IllegalOperation(
                f"cannot retry run {record.run_id}: its batch cannot be halved; clone it with a smaller max_length or "
                "gradient_checkpointing=True."
            )
        return self.clone(run, dict(record.failure.retry))

    # ---- automation

    def automate(self, policy: Policy | None) -> Receipt[None]:
        """Let a policy decide at chunk boundaries from now on; None takes the wheel back.

        Its decisions are operations like a user's: recorded with its name and a reason, replayed at their steps, and
        undone by ``undo`` or ``resume``. Runs that are pinned, or that somebody resumed, are left alone. A policy that
        raises is set aside with a message.

        Args:
            policy: ``Halving()``, ``MedianStop()``, ``StopRules(...)``, several as ``Policies([...])``, or an object of
                yours with a ``name`` and ``decide(view)``, which gives ``Stop``, ``Resume`` and ``Clone``. Callbacks in
                the style of RapidFire AI (``register_runs``, ``on_chunk_complete``, ``finalize``) work, too.

        Raises:
            ConfigError: when it is not a policy, or decides by a metric that no run logs.
        """
        if policy is None:
            return self._automate(None)
        self._refresh()
        autopilot, state = self._autopilot(policy), self._state
        configs = [record.config for record in state.runs.values()]
        logged = {name for run in self.runs for name in run.metrics}
        for text in autopilot.check(configs, evaluates=evaluates(state), sources=state.functions, logged=logged):
            warnings.warn(text, stacklevel=2)
        return self._automate(autopilot)

    def pin(self, run: RunLike | Iterable[RunLike]) -> Receipt[Any]:
        """Let policies leave a run, or several, alone."""
        return self._pin(run, True)

    def unpin(self, run: RunLike | Iterable[RunLike]) -> Receipt[Any]:
        """The inverse of ``pin``."""
        return self._pin(run, False)

    def undo(self, run: RunLike) -> Receipt[Any]:
        """Take back what a policy did last to a run: one that it stopped is resumed, a clone that it made is stopped.

        Raises:
            IllegalOperation: when no policy did anything to the run.
        """
        self._refresh()
        run_id = self._id_of(run)
        done = [one for one in decisions_of(self._state) if run_id in (one.run_id, one.made)]
        if not done:
            raise IllegalOperation(f"cannot undo anything of run {run_id}: no policy did anything to it.")
        return self.stop(run_id) if done[-1].made == run_id else self.resume(run_id)

    @property
    def decisions(self) -> pd.DataFrame:
        """What policies did and why: a row per decision."""
        import pandas as pd

        self._refresh()
        rows = [
            {
                "policy": one.policy,
                "what": one.what,
                "run_id": one.run_id,
                "made": one.made,
                "samples": one.samples,
                "reason": one.reason,
            }
            for one in decisions_of(self._state)
        ]
        return pd.DataFrame(rows, columns=["policy", "what", "run_id", "made", "samples", "reason"])

    def _autopilot(self, policy: Policy) -> Autopilot:
        return Autopilot(policy, lambda config, edits: apply_edits(config, edits, self._objects))

    def _automate(self, autopilot: Autopilot | None) -> Receipt[None]:
        engine = self._engine
        return Receipt([engine.mailbox.submit(lambda: engine.automate(autopilot))], lambda _done: None)

    def _pin(self, run: RunLike | Iterable[RunLike], pinned: bool) -> Receipt[Any]:
        given: list[RunLike] = [run] if isinstance(run, int | Run) else list(run)
        self._refresh()
        engine, ids = self._engine, [self._id_of(one) for one in given]

        def work() -> None:
            for run_id in ids:
                engine.pin(run_id, pinned)

        return Receipt([engine.mailbox.submit(work)], lambda _done: None)

    # ---- once more

    def replay(self, name: str | None = None) -> Experiment:
        """Train everything again from its beginning under another name, and compare; returns at once.

        Every recorded operation comes at the very step at which it was obeyed, whoever asked for it; operations of the
        user's are refused until then. Runs that were left unfinished are stopped where they were. At the end, a message
        says whether all figures are equal, or which differs first.

        Args:
            name: Of the new experiment; "<this one>-replay" when omitted.

        Returns:
            The new experiment, which trains.

        Raises:
            IllegalOperation: when this process did not launch the experiment: run its notebook's cells first.
            ConfigError: when an experiment of the new name is recorded.
        """
        return once_more.replay(self, name)

    def compare(self, other: Experiment) -> pd.DataFrame:
        """Whether another experiment gave the same, figure by figure: a row per run, with the first difference."""
        return once_more.compare(self, other)

    def record(self) -> dict[str, Json]:
        """The experiment as it travels: what defines it, what was done to it and what it gave, as JSON.

        The schema is ``rf_notebook/record/record.schema.json``. Secrets and the home folder are taken out.

        Raises:
            IllegalOperation: when nothing is recorded yet.
        """
        return once_more.record(self)

    def export_notebook(self, path: str | Path) -> Path:
        """Write the experiment for somebody else: the cells that made it, its curves, what was done to it, its record.

        The cells are those that the kernel had run when it launched the experiment; secrets in them are taken out.

        Args:
            path: A new file: a notebook (``.ipynb``), a page (``.html``), a zip of everything (``.zip``), or, without
                such an ending, a folder of everything.

        Returns:
            The path.

        Raises:
            IllegalOperation: when nothing is recorded yet.
            ConfigError: when the path is there already.
        """
        return once_more.export(self, Path(path))

    # ---- results

    @property
    def folder(self) -> Path:
        """Where everything of the experiment lies."""
        return self._folder

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

    def best(self, metric: str | None = None, mode: str | None = None, among: Iterable[RunLike] | None = None) -> Run:
        """The run with the best latest value of a metric; never one that failed, diverged or was deleted.

        Args:
            metric: When omitted, what tells how good runs of their method are: "loss" for SFT, "rewards/accuracies" for
                DPO, "reward" for GRPO, each with "eval_" before it as soon as there was an evaluation.
            mode: "min" or "max"; "min" for losses, errors and distances, and "max" for others when omitted.
            among: Ids or handles of the runs that are compared; all when omitted.

        Raises:
            UnknownRun: when no run has the metric, or none of those that have it can be the best.
            ConfigError: when the metric lies on several scales, such as the loss of SFT and of DPO.
        """
        self._refresh()
        if mode not in (None, "min", "max"):
            raise ConfigError(f"best(mode={mode!r}): mode is 'min' or 'max'.")
        compared = [self.run(one) for one in among] if among is not None else self.runs
        names = sorted({name for run in compared for name in run.metrics})
        metric = metric or headline({run.config["trainer_type"] for run in compared}, names)
        found = best_runs(self._state, metric, mode, [run.id for run in compared])
        if not found and metric in names:
            out = [run for run in compared if metric in run.metrics]
            told = ", ".join(f"run {run.id} {run.state if run.diverged_at is None else 'diverged'}" for run in out)
            raise UnknownRun(f"no run can be the best by {metric!r}: {told}.")
        if not found:
            raise UnknownRun(f"no run has the metric {metric!r} yet; there are: {', '.join(names) or 'none'}.")
        if len(found) > 1:
            raise ConfigError(
                f"{metric!r} of {' and '.join(found)} runs cannot be compared; say which runs are meant with among=[...]."
            )
        return Run(self._state, next(iter(found.values())), self._folder)

    def get_results(self) -> pd.DataFrame:
        """A row per run and logged step: run_id, step, samples, epoch, chunk, and every metric."""
        self._refresh()
        return results_frame(self._state)

    def get_runs_info(self) -> pd.DataFrame:
        """A row per run: its state, its progress, RapidFire AI's columns, and its config by dotted key."""
        self._refresh()
        if self._session is not None:
            self._mlflow_ids = self._session.mlflow_ids
        return runs_frame(self._state, self._mlflow_ids)

    def get_log_file_path(self, log_type: str | None = None) -> Path:
        """The experiment's log.

        Args:
            log_type: "experiment", "main" or "training", which are one file here: runs train in the process that they are
                started from.

        Raises:
            ConfigError: for another type.
        """
        if log_type is not None and str(log_type).lower() not in _LOG_TYPES:
            hint = did_you_mean(str(log_type), _LOG_TYPES)
            raise ConfigError(f"get_log_file_path(log_type={log_type!r}): there is no such log; {hint}")
        return self._log.path

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
        return self._trained(run, create_model_fn, lambda trained: trained.model)

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

        def write(trained: TrainedModel) -> None:
            from rf_notebook.training.trained_model import export_model

            export_model(trained, target, merge=merge)

        self._trained(run, create_model_fn, write)
        return target

    def generate(
        self,
        run: RunLike | Iterable[RunLike],
        prompts: str | Iterable[str],
        *,
        create_model_fn: Callable[[dict[str, Any]], tuple[Any, Any]] | None = None,
        **settings: Any,
    ) -> pd.DataFrame:
        """What the models of runs write now, side by side; training goes on afterwards as if nothing had been asked.

        Args:
            run: An id, a handle, or several. A run in training answers as it stands, others from their checkpoint.
            prompts: What is asked; put into the chat template for runs that trained on messages.
            create_model_fn: As for ``load``.
            settings: Arguments of ``generate``, such as ``max_new_tokens`` (64) and ``temperature`` (which means
                sampling), and ``seed`` (0): the same seed gives the same texts.

        Returns:
            A row for each prompt, a column for each run.

        Raises:
            IllegalOperation: for a run that has no model yet.
        """
        import pandas as pd

        asked = [prompts] if isinstance(prompts, str) else list(prompts)
        if not asked or not all(isinstance(one, str) for one in asked):
            raise ConfigError("generate(prompts=...) takes a text or a list of texts, at least one.")
        given: list[RunLike] = [run] if isinstance(run, int | Run) else list(run)
        if self._is_training:
            run_ids = [self._id_of(one) for one in given]
            engine = self._engine
            written = engine.mailbox.submit(lambda: engine.generate(run_ids, asked, settings)).result()
        else:
            from rf_notebook.training.base_models import BaseModels
            from rf_notebook.training.generation import sample_texts, texts_of

            def write(trained: TrainedModel) -> list[str]:
                texts = sample_texts(asked, (), trained.tokenizer, is_chat=trained.is_chat)
                return texts_of(trained.model, trained.tokenizer, texts, settings, is_chat=trained.is_chat)

            models = BaseModels(create_model_fn or self._create_model)
            written = [self._trained(one, create_model_fn, write, models) for one in given]
            run_ids = [self._id_of(one) for one in given]
        columns = {f"run {run_id}": texts for run_id, texts in zip(run_ids, written, strict=True)}
        return pd.DataFrame(columns, index=pd.Index(asked, name="prompt"))

    # ---- showing

    def panel(self) -> ExperimentDisplay:
        """The live panel; the last line of a cell shows it."""
        if self._display is None:
            from rf_notebook.widgets.display import ExperimentDisplay

            self._display = ExperimentDisplay(self._host)
        return self._display

    def figure(
        self, metric: str | None = None, x: str = "samples", smoothing: float = 0.0, log_scale: bool = False
    ) -> plotly.graph_objects.Figure:
        """The curves as an ordinary plotly Figure, all points in it.

        Args:
            metric: When omitted, the one by which ``best()`` compares.
            x: "samples", "step", "epoch" or "wall time".
            smoothing: 0 to 0.99, weight of what came before.
            log_scale: Of the y axis.

        Raises:
            ConfigError: for a metric or an x axis that there is not.
        """
        from rf_notebook.views.plotly_figure import experiment_figure

        self._refresh()
        return experiment_figure(self._state, metric, x=x, smoothing=smoothing, log_scale=log_scale)

    @contextmanager
    def _preparing(self, display: bool | None) -> Iterator[Callable[[], None]]:
        """While the libraries load, the panel is there already; when ``run_fit`` is refused after all, it goes again."""
        shows = display is not False and front_end().is_notebook

        def show() -> None:
            if shows:
                self._is_preparing = True
                self.panel().show()

        try:
            yield show
        except BaseException:
            if self._is_preparing and self._display is not None:
                self._display.withdraw()
            raise
        finally:
            self._is_preparing = False

    def _refresh_display(self) -> None:
        if self._display is not None:
            self._display.refresh()

    def _ipython_display_(self) -> None:
        if front_end().is_notebook:
            self.panel().show(once_a_cell=True)
        else:
            print(repr(self))  # noqa: T201 - what IPython in a terminal shows of a value

    def __repr__(self) -> str:
        self._refresh()
        if not self._state.runs:
            return f"<Experiment {self.experiment_name!r}: nothing recorded; call run_fit>"
        return f"Experiment {self.experiment_name!r}\n{table_text(self._state)}"

    @classmethod
    def tell_jupyterlab(cls) -> None:
        """Let JupyterLab's sidebar know of this process's experiments; does nothing in other front ends."""
        if front_end() is FrontEnd.JUPYTER:
            from rf_notebook.jupyterlab.link import connect
            from rf_notebook.kernel_experiments import KernelExperiments

            connect(lambda: KernelExperiments(cls))

    # ---- wiring

    @property
    def _thread(self) -> EngineThread | None:
        return None if self._session is None else self._session.thread

    @property
    def _is_training(self) -> bool:
        thread = self._thread
        return thread is not None and thread.is_alive

    @property
    def _is_idle(self) -> bool:
        thread = self._thread
        return thread is None or thread.engine.mailbox.idle.is_set()

    def _is_trained_elsewhere(self) -> bool:
        holder = None if self._store is None else self._store.living_holder()
        return holder is not None and holder != this_process()

    def _open_store(self) -> SqliteStore:
        if self._store is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._store = SqliteStore(layout.record(self._folder), observer=self._observer)
            self._refresh()
        return self._store

    def _refresh(self) -> None:
        """Take in what another kernel recorded; the engine's own events come by themselves."""
        with self._applying:
            if self._store is not None and not self._is_training:
                for recorded in self._store.read(after=self._state.last_seq):
                    self._state.apply(recorded)

    def _check_alone(self) -> None:
        for other in list(open_experiments.values()):
            if other is not self and other._is_training and not other._is_idle:
                raise IllegalOperation(
                    f"experiment {other.experiment_name!r} is training in this kernel; wait() for it or end() it first."
                )

    def _begin(
        self,
        launch: launching.Launch,
        *,
        extend: bool,
        take_over: bool,
        script: Script | None = None,
        autopilot: Autopilot | None = None,
        studies: Sequence[OptunaPolicy] = (),
    ) -> None:
        self._refresh()
        launching.check_starts(continuation(self._state, launch, known=self._objects, extend=extend).new)
        store = self._open_store()
        if self._session is not None:  # its thread died of an error
            self._end_session(cancelled=False)
        self._fence = store.acquire(this_process(), take_over=take_over)
        try:
            self._refresh()
            found = continuation(self._state, launch, known=self._objects, extend=extend)
            self._take_names(launch, found)
            self._objects, self._create_model, self._launch = launch.objects, launch.create_model, launch
            self._sources = sources_now() if script is None else None  # a replay's cells are not this notebook's
            self._log.open()
            session = TrainingSession(
                self._folder,
                self.experiment_name,
                launch,
                found.new,
                self._state,
                store,
                fence=self._fence,
                script=script,
                autopilot=autopilot,
                observer=self._observer,
                log=self._log,
            )
        except BaseException:
            store.release(self._fence)
            self._fence = None
            raise
        self._models, self._session = session.models, session
        watch_cells()
        session.keep_studies(studies)
        session.start()

    def _attach(
        self,
        launch: launching.Launch,
        *,
        extend: bool,
        autopilot: Autopilot | None,
        studies: Sequence[OptunaPolicy],
    ) -> None:
        """The launching cell was run again while the experiment trains."""
        assert self._session is not None
        found = continuation(self._state, launch, known=self._objects, extend=extend)
        new = found.new
        launching.check_starts(new)
        if autopilot is not None:
            self._automate(autopilot).result()
        self._session.keep_studies(studies)
        if new:
            self._take_names(launch, found)
            self._objects.update(launch.objects)
            self._session.add(launch, new, self._state)

    def _take_names(self, launch: launching.Launch, found: Continuation) -> None:
        """Let recorded configs refer to the objects that were given now, and say what could not be compared."""
        for name, value in found.names.items():
            launch.objects.put(name, value)
        for text in found.warnings:
            warnings.warn(text, stacklevel=4)

    def _opening_line(self) -> str:
        started = self._state.started
        assert started is not None
        waiting = len(self._state.ready())
        return f"experiment {self.experiment_name!r}: {waiting} of {len(self._state.runs)} runs to train, in {self._folder}"

    def _close(self, *, cancelled: bool) -> None:
        error = self._end_session(cancelled=cancelled)
        open_experiments.pop(self._folder.absolute(), None)
        once_more.keep_record(self)
        self._log.close()
        if error is not None:
            raise error

    def _end_session(self, *, cancelled: bool) -> BaseException | None:
        """Returns what the engine's thread died of, if it did."""
        session, store = self._session, self._store
        assert session is not None
        assert store is not None
        session.close(cancelled=cancelled)
        self._mlflow_ids = session.mlflow_ids
        if self._fence is not None:
            store.release(self._fence)
        self._session, self._fence = None, None
        return session.thread.error

    def _raise_engine_error(self) -> None:
        if self._thread is not None and self._thread.error is not None:
            raise self._thread.error

    def _id_of(self, run: RunLike) -> int:
        run_id = run.id if isinstance(run, Run) else run
        if isinstance(run_id, bool) or not isinstance(run_id, int):
            raise ConfigError(f"{run!r} is no run; give an id such as 3, or a handle.")
        return self._state.record(run_id).run_id

    def _cloning(self, run_id: int, edits: Any, warm_start: bool) -> Operation:
        config, changed = apply_edits(self._state.record(run_id).config, edits, self._objects)
        engine = self._engine
        brought = {name: private(source) for name, source in self._objects.sources().items()}
        events = new_functions(brought, self._state)
        if events:
            engine.mailbox.submit(lambda: engine.commit(events))
        return CloneRun(run_id=run_id, config=config, edits=changed, warm_start=warm_start)

    def _ask(self, run: RunLike | Iterable[RunLike], make: Callable[[int], Operation]) -> Receipt[Any]:
        given: list[RunLike] = [run] if isinstance(run, int | Run) else list(run)
        self._refresh()
        operations = [make(self._id_of(one)) for one in given]
        return self._submit(operations, single=isinstance(run, int | Run))

    def _submit(self, operations: Iterable[Operation], *, single: bool, origin: str = "python") -> Receipt[Any]:
        mailbox = self._engine.mailbox
        futures = [mailbox.submit(operation, origin) for operation in operations]

        def handles(ids: list[int]) -> Any:
            runs = [Run(self._state, run_id, self._folder) for run_id in ids]
            return runs[0] if single else runs

        return Receipt(futures, handles)

    def _set_paused(self, paused: bool) -> Receipt[Any]:
        engine = self._engine
        return Receipt([engine.mailbox.submit(lambda: engine.pause(paused))], lambda _done: None)

    @property
    def _engine(self) -> Engine:
        thread = self._thread
        if thread is None or not thread.is_alive:
            raise IllegalOperation(
                f"experiment {self.experiment_name!r} is not open for training here; call run_fit with its arguments first."
            )
        return thread.engine

    def _trained(
        self,
        run: RunLike,
        create_model_fn: Callable[[dict[str, Any]], tuple[Any, Any]] | None,
        use: Callable[[TrainedModel], ValueT],
        models: BaseModels | None = None,
    ) -> ValueT:
        self._refresh()
        record = self._state.record(self._id_of(run))
        if not record.checkpoints:
            raise IllegalOperation(f"run {record.run_id} has no checkpoint yet; wait for its first chunk.")
        from rf_notebook.training.base_models import BaseModels
        from rf_notebook.training.trained_model import trained_model

        def work() -> ValueT:
            resident = models or (self._models if self._is_training else None)
            resident = resident or BaseModels(create_model_fn or self._create_model)
            newest = self._state.record(record.run_id).checkpoints[-1].folder
            return use(trained_model(resident, self._folder, self._objects, record.config, newest))

        if self._is_training:
            assert self._thread is not None
            result: ValueT = self._thread.engine.mailbox.submit(work).result()
            return result
        return work()


def _staged(name: str, path: str | Path | None) -> tuple[str, str | Path | None]:
    """The name and the place that a cell asked for, or those of the replay for which it is run."""
    rehearsal = current_rehearsal()
    return (name, path) if rehearsal is None else rehearsal.place_of(name)


def _folder_of(name: object, path: str | Path | None) -> Path:
    return (Path(path if path is not None else FOLDER) / str(name)).absolute()
