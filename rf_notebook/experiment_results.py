"""What an experiment has recorded, as a user asks for it: runs, figures, messages and decisions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rf_notebook.automl.validation import did_you_mean
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.events import Noted, OperationObeyed
from rf_notebook.core.redaction import brief, visible, visible_json
from rf_notebook.results.best import best_run
from rf_notebook.results.decisions import decisions_of
from rf_notebook.results.frames import devices_frame, results_frame, runs_frame
from rf_notebook.store.plain_files import path_given
from rf_notebook.views.console import table_text

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects

    from rf_notebook.core.ports import CommitObserver
    from rf_notebook.core.values import Json
    from rf_notebook.engine.thread import EngineThread
    from rf_notebook.results.handle import Run
    from rf_notebook.session.session import RunLike, Session
    from rf_notebook.store.sqlite import SqliteStore

_LOG_TYPES = ("experiment", "main", "training")


class ExperimentResults:
    """The part of an ``Experiment`` that only reads."""

    def __init__(self, session: Session) -> None:
        self.session = session
        """What is open behind it: the record, the engine, what a notebook shows. Not for everyday
        use."""
        self._state = session.state

    @property
    def experiment_name(self) -> str:
        """As given."""
        return self.session.name

    @property
    def folder(self) -> Path:
        """Where everything of the experiment lies."""
        return self.session.folder

    @property
    def tags(self) -> tuple[str, ...]:
        """What ``label`` gave the experiment."""
        self.session.refresh()
        return self._state.label(None).tags

    @property
    def note(self) -> str:
        """What ``label`` noted of the experiment."""
        self.session.refresh()
        return self._state.label(None).note

    @property
    def runs(self) -> list[Run]:
        """A live handle for each run, in the order of their ids."""
        self.session.refresh()
        return [self.session.handle(run_id) for run_id in sorted(self._state.runs)]

    def run(self, run: RunLike) -> Run:
        """The live handle of one run.

        Raises:
            UnknownRun: naming the runs that there are.
        """
        self.session.refresh()
        return self.session.handle(self.session.run_id(run))

    def best(
        self,
        metric: str | None = None,
        mode: str | None = None,
        among: Iterable[RunLike] | None = None,
    ) -> Run:
        """The run with the best latest value of a metric.

        Never one that failed, diverged or was deleted.

        Args:
            metric: When omitted, what tells how good runs of their method are: "loss" for SFT,
                "rewards/accuracies" for DPO, "reward" for GRPO, each with "eval_" before it as soon
                as there was an evaluation.
            mode: "min" or "max"; "min" for losses, errors and distances, and "max" for others when
                omitted.
            among: Ids or handles of the runs that are compared; all when omitted.

        Raises:
            UnknownRun: when no run has the metric, or none of those that have it can be the best.
            ConfigError: when the metric lies on several scales, such as the loss of SFT and of DPO.
        """
        self.session.refresh()
        compared_ids = None if among is None else [self.session.run_id(one) for one in among]
        return self.session.handle(best_run(self._state, metric, mode, compared_ids))

    def get_results(self, *, speed: bool = False) -> pd.DataFrame:
        """A row per run and logged step: run_id, step, samples, epoch, chunk, and every metric.

        Args:
            speed: Add ``Run.speed`` to the newest row of each run: figures of the clock, which no
                two runs of a notebook have alike.
        """
        self.session.refresh()
        return results_frame(self._state, speed=speed)

    def get_runs_info(self) -> pd.DataFrame:
        """A row per run: state, progress, RapidFire AI's columns, and the config by dotted key."""
        self.session.refresh()
        return runs_frame(self._state, self.session.mlflow_ids)

    def get_devices(self) -> pd.DataFrame:
        """A row for each device of worker processes: what it trains, which runs it holds, memory.

        No rows when runs train in the kernel.
        """
        self.session.refresh()
        return devices_frame(self._state, self.session.status().devices)

    def get_log_file_path(self, log_type: str | None = None) -> Path:
        """The experiment's log.

        Args:
            log_type: "experiment", "main" or "training", which are one file here: runs train in the
                process that they are started from.

        Raises:
            ConfigError: for another type.
        """
        if log_type is not None and str(log_type).lower() not in _LOG_TYPES:
            hint = did_you_mean(str(log_type), _LOG_TYPES)
            raise ConfigError(
                f"get_log_file_path(log_type={log_type!r}): there is no such log; {hint}"
            )
        return self.session.log.path

    @property
    def messages(self) -> list[str]:
        """What the user should know, oldest first."""
        return [visible(r.event.text) for r in self._state.notes if isinstance(r.event, Noted)]

    @property
    def operations(self) -> list[tuple[OperationObeyed, float]]:
        """Every operation that was obeyed, with its wall time in seconds since 1970."""
        return [
            (r.event, r.at) for r in self._state.operations if isinstance(r.event, OperationObeyed)
        ]

    @property
    def decisions(self) -> pd.DataFrame:
        """What policies did and why: a row per decision."""
        import pandas as pd

        self.session.refresh()
        columns = ["policy", "what", "run_id", "made", "samples", "reason"]
        rows = [{name: getattr(one, name) for name in columns} for one in decisions_of(self._state)]
        return pd.DataFrame(visible_json(rows), columns=columns)

    def figure(
        self,
        metric: str | None = None,
        x: str = "samples",
        smoothing: float = 0.0,
        log_scale: bool = False,
    ) -> plotly.graph_objects.Figure:
        """The curves as an ordinary plotly Figure, all points in it.

        Args:
            metric: When omitted, the one by which ``best()`` compares.
            x: "samples", "step", "epoch" or "wall time".
            smoothing: 0 to 0.99, weight of what came before.
            log_scale: Whether the y axis is logarithmic.

        Raises:
            ConfigError: for a metric or an x axis that there is not.
        """
        from rf_notebook.views.plotly_figure import experiment_figure

        self.session.refresh()
        return experiment_figure(self._state, metric, x=x, smoothing=smoothing, log_scale=log_scale)

    def compare(self, other: ExperimentResults) -> pd.DataFrame:
        """Whether another experiment gave the same, figure by figure.

        A row per run, with the first difference.
        """
        from rf_notebook.replay.again import compared

        if not isinstance(other, ExperimentResults):
            raise ConfigError(f"compare({brief(other)}): give another Experiment.")
        return compared(self.session, other.session)

    def record(self) -> dict[str, Json]:
        """The experiment as it travels.

        What defines it, what was done to it and what it gave, as JSON.

        The schema is ``rf_notebook/record/record.schema.json``. Secrets and the home folder are
        taken out.

        Raises:
            IllegalOperation: when nothing is recorded yet.
        """
        from rf_notebook.replay.sharing import record_now

        return record_now(self.session)

    def export_notebook(self, path: str | Path) -> Path:
        """Write the experiment for somebody else.

        The cells that made it, its curves, what was done to it, its record.

        The cells are those that the kernel had run when it launched the experiment; secrets in them
        are taken out.

        Args:
            path: A new file: a notebook (``.ipynb``), a page (``.html``), a zip of everything
                (``.zip``), or, without such an ending, a folder of everything.

        Returns:
            The path.

        Raises:
            IllegalOperation: when nothing is recorded yet.
            ConfigError: when the path is there already.
        """
        from rf_notebook.replay.sharing import export_to

        return export_to(self.session, path_given("export_notebook(path)", path))

    def __repr__(self) -> str:
        self.session.refresh()
        damage = self.session.damage
        if not self._state.runs:
            why = damage or "nothing recorded; call run_fit"
            return f"<Experiment {self.experiment_name!r}: {why}>"
        told = f"{damage}\n" if damage else ""
        return f"Experiment {self.experiment_name!r}\n{told}{table_text(self._state)}"

    # Short ways to what is open, for scripts that look inside.

    @property
    def _thread(self) -> EngineThread | None:
        return self.session.thread

    @property
    def _store(self) -> SqliteStore | None:
        return self.session.store

    @property
    def _folder(self) -> Path:
        return self.session.folder

    @property
    def _observer(self) -> CommitObserver:
        return self.session.observer

    @_observer.setter
    def _observer(self, observer: CommitObserver) -> None:
        self.session.observer = observer
