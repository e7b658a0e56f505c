"""What does a script show while it waits?

A table that moves in a terminal, plain lines elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rf_notebook.core.redaction import visible, visible_line
from rf_notebook.core.run import RunState
from rf_notebook.core.values import flatten
from rf_notebook.results.frames import varying_knobs
from rf_notebook.results.handle import Run
from rf_notebook.results.metrics import best_runs, latest_metrics, shown_metrics
from rf_notebook.results.times import etas

if TYPE_CHECKING:
    from rich.console import RenderableType

    from rf_notebook.core.state import ExperimentState

_ICONS = {
    RunState.QUEUED: "·",
    RunState.RUNNING: "▶",
    RunState.STOPPED: "■",
    RunState.COMPLETED: "✓",
    RunState.DIVERGED: "△",
    RunState.FAILED: "✗",
    RunState.DELETED: "–",
}
_ALWAYS_SHOWN = ("loss", "eval_loss")
_NOWHERE = Path()


class ConsoleProgress:
    """Shows an experiment's progress, by the thread that waits.

    Remembers what it told, from wait to wait.
    """

    def __init__(self, state: ExperimentState) -> None:
        self._state = state
        self._told: dict[int, tuple[int, RunState]] = {}
        self._told_held_up: str | None = None

    @contextmanager
    def shown(self, stream: TextIO | None) -> Iterator[Callable[[str | None], None]]:
        """While it lasts, the progress is on the screen; the value shows what changed since.

        Args:
            stream: Where to write; None shows nothing, for a panel does.
        """
        if stream is None:
            yield _show_nothing
            return
        if not stream.isatty():

            def write(held_up: str | None = None) -> None:
                for line in self._new_lines(held_up):
                    stream.write(line + "\n")
                stream.flush()

            yield write
            write()
            return
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(file=stream), auto_refresh=False) as live:

            def draw(held_up: str | None = None) -> None:
                live.update(runs_table(self._state, held_up), refresh=True)

            try:
                yield draw
            finally:
                draw()

    def _new_lines(self, held_up: str | None) -> Iterator[str]:
        for record in list(self._state.runs.values()):
            now = (record.progress.chunks, record.state)
            if self._told.get(record.run_id, (0, RunState.QUEUED)) != now:
                self._told[record.run_id] = now
                yield line_of(self._state, record.run_id)
        if held_up is not None and held_up != self._told_held_up:
            yield held_up
        self._told_held_up = held_up


def line_of(state: ExperimentState, run_id: int) -> str:
    """One run in one line of text."""
    run, record = Run(state, run_id, _NOWHERE), state.record(run_id)
    metrics = run.metrics
    parts = [
        f"run {run_id}",
        f"{run.state}",
        f"chunk {record.progress.chunks}/{record.progress.total_chunks or '?'}",
    ]
    parts += [
        f"{name} {metrics[name]:.4f}"
        for name in shown_metrics([record.config.method])
        if name in metrics
    ]
    if run.diverged_at is not None:
        parts.append(f"diverged at step {run.diverged_at}")
    eta = etas(state).get(run_id)
    if eta is not None:
        parts.append(f"about {_duration(eta)} left")
    if run.error:
        parts.append(run.error.splitlines()[0][:200])
    return "  ".join(parts)


def runs_table(state: ExperimentState, held_up: str | None = None) -> RenderableType:
    """All runs as a rich table."""
    from rich.table import Table
    from rich.text import Text

    knobs = varying_knobs(state)[:5]
    best = set(best_runs(state, None).values())
    logged = {name for run_id in list(state.runs) for name in latest_metrics(state, run_id)}
    named = shown_metrics([record.config.method for record in list(state.runs.values())])
    shown = [name for name in named if name in logged or name in _ALWAYS_SHOWN]
    table = Table(caption=Text(visible(held_up)) if held_up else None)
    for title in (
        "",
        "run",
        "state",
        *(knob.rpartition(".")[2] for knob in knobs),
        *shown,
        "progress",
        "left",
    ):
        table.add_column(Text(visible_line(title)))
    left = etas(state)
    for record in list(state.runs.values()):
        run = Run(state, record.run_id, _NOWHERE)
        flat, metrics = flatten(record.config.as_json()), run.metrics
        cells = [
            _ICONS[run.state],
            f"{run.id}{' ★' if run.id in best else ''}{f' ← {run.parent}' if run.parent else ''}",
            str(run.state)
            if run.diverged_at is None
            else f"{run.state}, diverged at step {run.diverged_at}",
            *(str(flat.get(knob)) for knob in knobs),
            *(f"{metrics[name]:.4f}" if name in metrics else "" for name in shown),
            f"{run.progress:.0%}",
            _duration(left[run.id]) if run.id in left else "",
        ]
        table.add_row(*(Text(visible_line(cell)) for cell in cells))
    return table


def table_text(state: ExperimentState, width: int = 120) -> str:
    """All runs as a table of text."""
    from io import StringIO

    from rich.console import Console

    stream = StringIO()
    Console(file=stream, width=width, force_terminal=False).print(runs_table(state))
    return stream.getvalue()


def _show_nothing(held_up: str | None = None) -> None:
    """For a progress that a panel shows."""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
