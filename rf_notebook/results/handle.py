"""What does a user see of a run? A live handle, drawn from the experiment's state."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.core.redaction import visible
from rf_notebook.core.run import Progress, RunState, WarmStartReport
from rf_notebook.results.metrics import diverged_at, latest_metrics, shown_metrics
from rf_notebook.results.speed import speed_of
from rf_notebook.results.times import etas

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState, RunRecord
    from rf_notebook.core.values import Json

    pass


class Run:
    """A live view of one run: every attribute is what holds now."""

    def __init__(self, state: ExperimentState, run_id: int, folder: Path) -> None:
        self._state = state
        self._id = run_id
        self._folder = folder

    @property
    def id(self) -> int:
        """1, 2, 3, ... in the order in which runs were added."""
        return self._id

    @property
    def name(self) -> str:
        """What ``Experiment.label`` called it, or "run 3"."""
        return self._state.label(self._id).name or f"run {self._id}"

    @property
    def tags(self) -> tuple[str, ...]:
        """What ``Experiment.label`` gave it."""
        return self._state.label(self._id).tags

    @property
    def note(self) -> str:
        """What ``Experiment.label`` noted of it."""
        return self._state.label(self._id).note

    @property
    def config(self) -> dict[str, Any]:
        """The whole config, nested as in RFModelConfig; a copy."""
        return self._record.config.as_json()

    @property
    def state(self) -> RunState:
        """queued, running, stopped, completed, diverged, failed or deleted."""
        record = self._record
        return (
            RunState.RUNNING
            if record.state is RunState.QUEUED and self._id in self._state.live
            else record.state
        )

    @property
    def steps(self) -> int:
        """Optimizer steps done, those of the chunk in progress included."""
        return self._progress.steps

    @property
    def samples(self) -> int:
        """Rows of the training data seen."""
        return self._progress.samples

    @property
    def progress(self) -> float:
        """Between 0 and 1."""
        return self._progress.fraction

    @property
    def eta(self) -> float | None:
        """Wall seconds until the run is over, taking turns with the others.

        None when nothing is known or to come.
        """
        return etas(self._state).get(self._id)

    @property
    def metrics(self) -> dict[str, float]:
        """The latest value of each metric."""
        return latest_metrics(self._state, self._id)

    @property
    def speed(self) -> dict[str, float]:
        """Tokens and samples a second of training, and seconds trained and evaluated.

        With ``sample_prompts`` also what its model takes to write: "first_token_seconds" and
        "generated_tokens_per_second", one answer alone on the device that trains it.
        """
        return speed_of(self._state.record(self._id))

    @property
    def diverged_at(self) -> int | None:
        """The first step whose loss or gradients were NaN or infinite, while they still are.

        None for a healthy run.
        """
        return diverged_at(self._state, self._id)

    @property
    def parent(self) -> int | None:
        """The run it was cloned from."""
        return self._record.parent_id

    @property
    def edits(self) -> dict[str, Json]:
        """What differs from the parent, by dotted key."""
        return dict(self._record.edits)

    @property
    def warm_start_report(self) -> WarmStartReport | None:
        """What was taken over from the parent's adapter."""
        return self._record.warm_start_report

    @property
    def error(self) -> str | None:
        """Why the run failed, in a sentence."""
        failure = self._record.failure
        return None if failure is None else visible(failure.message)

    @property
    def traceback(self) -> str | None:
        """The full text of the error."""
        failure = self._record.failure
        return None if failure is None else visible(failure.traceback)

    @property
    def checkpoint(self) -> Path | None:
        """Folder of the newest checkpoint."""
        saved = self._record.checkpoints
        return self._folder / saved[-1].folder.path if saved else None

    @property
    def own_bytes(self) -> int:
        """Memory that this run alone keeps while it is parked.

        The weights that it trains, its optimizer's state.
        """
        return self._record.own_bytes

    @property
    def _record(self) -> RunRecord:
        return self._state.record(self._id)

    @property
    def _progress(self) -> Progress:
        live = self._state.live.get(self._id)
        return self._record.progress if live is None else live.progress

    def __repr__(self) -> str:
        telling = shown_metrics([self._record.config.method])
        shown = [f"{name}={value:.4g}" for name, value in self.metrics.items() if name in telling]
        diverged = [] if self.diverged_at is None else [f"diverged at step {self.diverged_at}"]
        name = self._state.label(self._id).name
        named = f" {name!r}" if name else ""
        return f"<Run {self.id}{named}: {', '.join([str(self.state), f'{self.progress:.0%}', *diverged, *shown])}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and other._id == self._id and other._state is self._state

    def __hash__(self) -> int:
        return hash((id(self._state), self._id))
