"""One search over one data set: what a user calls.

It asks the floors below and decides nothing itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from rf_notebook.experiment_operations import ExperimentOperations
from rf_notebook.replay.again import replay_again
from rf_notebook.session.arguments import fit_arguments
from rf_notebook.session.opening import check_alone, fit, open_here, open_session
from rf_notebook.session.registry import latest_session, remove, use
from rf_notebook.session.repairing import repair
from rf_notebook.session.stage import current_stage
from rf_notebook.session.waiting import refresh_display, tell_at_exit, wait, wait_async
from rf_notebook.widgets.front_end import FrontEnd, front_end

if TYPE_CHECKING:
    from rf_notebook.automation import Policy
    from rf_notebook.session.backend import Backend
    from rf_notebook.session.session import Session
    from rf_notebook.widgets.display import ExperimentDisplay

#: The experiments that somebody holds, by what is open behind them: one object each while it
#: trains.
_faces: WeakValueDictionary[Session, Experiment] = WeakValueDictionary()


class Experiment(ExperimentOperations):
    """Trains and compares many configs at once.

    Args:
        experiment_name: Names the folder; an existing name opens what is recorded there.
        mode: "fit".
        experiment_path: The folder of the folder; "rf_experiments" in the working directory when
            omitted.
        num_cpus: RapidFire AI's, for its evaluations. Training uses torch's threads:
            ``torch.set_num_threads``.
        num_gpus: RapidFire AI's place for ``run_fit(num_gpus=...)``.
        storage: Where a cluster's workers have written checkpoints; see ``run_fit``.
        runner: Who trains, for tests of what uses experiments; see
            ``rf_notebook.testing.fake_backend``.

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
        present = open_here(experiment_name, experiment_path) if mode == "fit" else None
        return super().__new__(cls) if present is None else cls.of(present)

    def __init__(
        self,
        experiment_name: str,
        mode: str = "fit",
        experiment_path: str | Path | None = None,
        *,
        num_cpus: int | None = None,
        num_gpus: int | None = None,
        storage: str | Path | None = None,
        runner: Backend | None = None,
    ) -> None:
        if "session" in self.__dict__:  # the living object
            return
        self._show(
            open_session(
                experiment_name,
                experiment_path,
                mode=mode,
                num_cpus=num_cpus,
                num_gpus=num_gpus,
                storage=storage,
                runner=runner,
            )
        )
        self.tell_jupyterlab()

    @classmethod
    def of(cls, session: Session) -> Experiment:
        """The experiment that a session is of."""
        face = _faces.get(session)
        if face is None:
            face = super().__new__(cls)
            face._show(session)
        return face

    @staticmethod
    def remove(experiment_name: str, experiment_path: str | Path | None = None) -> None:
        """Remove a recorded experiment from the disk: its record, checkpoints and figures, for good.

        Args:
            experiment_name: Its name.
            experiment_path: See the class.

        Raises:
            ConfigError: when there is none of this name, or its checkpoints lie in a storage.
            IllegalOperation: when it is open for training here.
            ReadOnlyExperiment: when another process trains it.
        """
        remove(experiment_name, experiment_path)

    def _show(self, session: Session) -> None:
        super().__init__(session)
        _faces[session] = self

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
        num_gpus: int | None = None,
        devices: str | int | list[str] | list[tuple[str, ...]] | None = None,
        cluster: str | None = None,
        storage: str | Path | None = None,
        allow_unauthenticated: bool = False,
        track: str | list[str] | None = None,
        price_per_hour: float | None = None,
    ) -> None:
        """Train all configs side by side, in the background; returns at once.

        Calling it again under the same name with the same arguments continues where the record ends,
        and while the experiment trains it shows the panel again; so running a notebook's cells
        again is always right.

        Args:
            param_config: An RFGridSearch, RFRandomSearch or RFOptuna, or a list of them.
            create_model_fn: Called with a dict (model_name, model_type, model_kwargs, tokenizer,
                tokenizer_kwargs) once for each distinct base model; returns (model, tokenizer). The
                hub's auto classes when omitted.
            train_dataset: A datasets.Dataset, a list of dicts or a pandas frame; a stream with
                max_steps; or a name, "user/name" or {"path": ..., "split": ..., "revision": ...},
                which ``datasets.load_dataset`` loads.
            eval_dataset: In the same forms; every run is evaluated on it at every chunk boundary.
            num_chunks: Chunks a pass over the data. After each, the next run has its turn.
            seed: For configs that set none: of training, data order and adapter initialisation.
            num_shards: The newer name of num_chunks.
            execution: "exact": runs train in turns, and every one gives the very numbers that plain
                TRL gives for its config alone. "fused": runs that share a base model advance in
                joint steps, several times faster on a GPU and equal up to rounding; those that
                cannot (``get_runs_info()`` says why) train in turns. "auto": both are tried for a
                few steps and the faster is taken.
            data_seed: For configs that set none.
            display: Whether a notebook shows the panel, and a script its first line; both do when
                omitted.
            extend: Add configs that the record does not have as new runs.
            keep: Which checkpoints stay: "best" (the newest two and the best), "last" (the newest
                two) or "all".
            fail_on_nan: Whether a run fails whose loss or gradients are NaN or infinite. Otherwise
                it trains on, is shown as diverged, and is never the best.
            sample_prompts: What every run answers at each chunk boundary, to be read side by side:
                texts, or how many rows of the evaluation data to ask. It takes the time of
                generating 64 tokens each.
            policy: Decides at chunk boundaries, as ``Halving()`` does; see ``automate``. A replay
                has its decisions in the record and takes none.
            take_over: Take the experiment from another kernel that is training it.
            num_gpus: RapidFire AI's name for ``devices``; 1 trains in the kernel.
            devices: Divides the runs among worker processes: "auto" is one for every visible GPU, 2
                for two of them, ["cuda:0", "cuda:1"] names them; ["cpu", "cpu"] works, too.
                [("cuda:0", "cuda:1")] is one worker that spreads each model over two GPUs; where a
                config has ``num_gpus=2``, "auto" and numbers make such workers. The
                kernel's own process is left alone: functions and data are sent to the workers, so
                what functions change in the kernel stays as it was. When omitted, runs train in the
                kernel. An experiment may continue on other devices than it began on.
            cluster: The address of a running Ray cluster whose GPUs train, so many as ``devices``
                says: "auto", host:port or ray://host:port. Needs ``rf-notebook[ray]`` here and there.
            storage: Where its workers keep checkpoints: "s3://bucket/folder", or a shared mount.
            allow_unauthenticated: Join a cluster without a token.
            track: Where figures go besides the panel and the record: any of "mlflow", "tensorboard",
                "wandb" and "trackio", each in a folder or database of the experiment's unless the
                tracker's own settings name another place. When omitted: MLflow, and those that the
                configs' ``report_to`` names.
            price_per_hour: Of one device. The panel shows what the runs have cost, and will.

        Raises:
            ConfigError: what cannot work, before any model is loaded.
            ReadOnlyExperiment: when another kernel trains this experiment.
            IllegalOperation: when another experiment trains in this kernel.
            RecordDamaged: when the experiment's record is damaged.
        """
        session = self.session
        given = fit_arguments(
            param_config,
            create_model_fn,
            train_dataset,
            eval_dataset,
            num_chunks=num_chunks,
            num_shards=num_shards,
            num_gpus=session.num_gpus if num_gpus is None else num_gpus,
            devices=devices,
            cluster=cluster,
            storage=storage,
            allow_unauthenticated=allow_unauthenticated,
            seed=seed,
            data_seed=data_seed,
            execution=execution,
            keep=keep,
            fail_on_nan=fail_on_nan,
            sample_prompts=sample_prompts,
            track=track,
            price_per_hour=price_per_hour,
        )
        check_alone(session)
        session.check_sure()  # before the panel moves here
        session.price_per_hour = given.price_per_hour
        with self._preparing(display) as show:
            began = fit(
                session,
                given,
                extend=extend,
                policy=policy,
                take_over=take_over,
                before_import=show,
            )
        if began and front_end() is FrontEnd.SCRIPT:
            tell_at_exit(session)
        stage = current_stage()
        if began and stage is not None:
            stage.began(session)
        if began and display is not False and session.display is None and not sys.stdout.isatty():
            waiting = len(session.state.ready())
            told = f"experiment {session.name!r}: {waiting} of {len(session.state.runs)} runs to train, in {session.folder}"
            if front_end() is FrontEnd.MARIMO:
                told += "\nexperiment.panel() in another cell shows its curves, and newer ones when that cell is run again"
            print(told, flush=True)  # noqa: T201 - a script's first line of progress

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no run wants to train; Ctrl-C ends the waiting, not the training.

        Args:
            timeout: Seconds; forever when omitted.

        Returns:
            Whether all runs are over or stopped.
        """
        over = wait(self.session, timeout)
        refresh_display(self.session)
        self._raise_engine_error()
        return over

    async def wait_async(self) -> bool:
        """Like ``wait``, for ``await``: other coroutines continue."""
        await wait_async(self.session)
        self._raise_engine_error()
        return True

    def end(self, cancel: bool = False) -> None:
        """Wait for the runs, then close.

        Threads end, the base models' memory is free, results stay readable.

        Args:
            cancel: Do not wait; stop at the next step and keep everything.
        """
        self._commands.end(cancel=cancel)

    def cancel_current(self) -> None:
        """Stop now and keep everything; ``run_fit`` with the same arguments continues later."""
        self.end(cancel=True)

    def repair(self) -> Path | None:
        """Continue from the entries before the damage in a record that is damaged.

        Runs continue from the checkpoints that these name, and begin again where none is left; the runs
        and figures after the damage are lost.

        Returns:
            Where the damaged file is kept, in the experiment's folder; None when the record is whole.

        Raises:
            IllegalOperation: when nothing before the damage is left.
            ReadOnlyExperiment: when another process trains the experiment.
        """
        return repair(self.session)

    # ---- once more

    def replay(self, name: str | None = None) -> Experiment:
        """Train everything again from its beginning under another name, and compare.

        Returns at once.

        Every recorded operation comes at the very step at which it was obeyed, whoever asked for
        it; operations of the user's are refused until then. Runs that were left unfinished are
        stopped where they were. At the end, a message says whether all figures are equal, or which
        differs first.

        Args:
            name: The new experiment's name; "<this one>-replay" when omitted.

        Returns:
            The new experiment, which trains.

        Raises:
            IllegalOperation: when this process did not launch the experiment: run its notebook's
                cells first.
            ConfigError: when an experiment of the new name is recorded.
        """
        return Experiment.of(replay_again(self.session, name))

    # ---- showing

    def panel(self) -> ExperimentDisplay:
        """The live panel; the last line of a cell shows it."""
        from rf_notebook.widgets.display import display_of

        return display_of(self.session, self._commands)

    @contextmanager
    def _preparing(self, display: bool | None) -> Iterator[Callable[[], None]]:
        """While the libraries load, the panel is there already.

        When ``run_fit`` is refused after all, it goes again.
        """
        session = self.session

        def show() -> None:
            if display is not False and front_end().is_notebook:
                session.is_preparing = True
                self.panel().show()

        try:
            yield show
        except BaseException:
            if session.is_preparing and session.display is not None:
                session.display.withdraw()
            raise
        finally:
            session.is_preparing = False

    def _ipython_display_(self) -> None:
        if front_end().is_notebook:
            self.panel().show(once_a_cell=True)
        else:
            print(repr(self))  # noqa: T201 - what IPython in a terminal shows of a value

    def _mime_(self) -> tuple[str, str]:
        """What marimo shows."""
        return "text/html", self.panel().html()

    @staticmethod
    def tell_jupyterlab() -> None:
        """Let JupyterLab's sidebar know of this process's experiments.

        Does nothing in other front ends.
        """
        if front_end() is FrontEnd.JUPYTER:
            from rf_notebook.jupyterlab.kernel import KernelExperiments
            from rf_notebook.jupyterlab.link import connect

            connect(KernelExperiments)

    def _raise_engine_error(self) -> None:
        thread = self.session.thread
        if thread is not None and thread.error is not None:
            raise thread.error


def latest_experiment() -> Experiment | None:
    """The one that was trained, or opened by ``%rapidfire open``, last."""
    session = latest_session()
    return None if session is None else Experiment.of(session)


def use_experiment(experiment: Experiment) -> Experiment:
    """Make an experiment the one that ``%rapidfire`` means; returns it."""
    use(experiment.session)
    return experiment
