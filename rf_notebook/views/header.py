"""How does the experiment stand, in one line above everything?"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from rf_notebook.core.run import READY, RunState
from rf_notebook.results.times import etas
from rf_notebook.views.document import Node, element
from rf_notebook.views.standing import Kind, standing
from rf_notebook.views.words import duration, number, shortened, size

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState, RunRecord
    from rf_notebook.core.status import Status


def header(name: str, state: ExperimentState, status: Status) -> Node:
    """One line that tells the state of everything."""
    runs = [r for r in list(state.runs.values()) if r.state is not RunState.DELETED]
    ready = [r for r in runs if r.state in READY]
    stats = [
        _stat(f"{len(ready)}", f"of {len(runs)} runs active"),
        *_chunk_stat(ready),
        _stat(duration(max(etas(state).values(), default=None)), "left") if ready else None,
        _stat(number(_throughput(state)), "samples/s"),
        _memory_stat(status),
    ]
    done = overall_progress(runs)
    return element(
        "div",
        element(
            "div",
            element("b", shortened(name, 60), class_="rf-name", title=name),
            element("span", *_chip(state, status), class_="rf-chip", role="status"),
            *stats,
            class_="rf-head",
        ),
        element(
            "div",
            element("div", class_="rf-bar-done", style=f"width:{100 * done:.1f}%"),
            class_="rf-bar",
            role="progressbar",
            aria_label="Progress of the experiment",
            aria_valuemin=0,
            aria_valuemax=100,
            aria_valuenow=round(100 * done),
        ),
        element("div", status.held_up, class_="rf-warning", role="alert")
        if status.held_up
        else None,
    )


def overall_progress(runs: Collection[RunRecord]) -> float:
    """Between 0 and 1: samples done of those to be done.

    Stopped runs have nothing to come; what failed stays undone.
    """
    known = max((r.progress.total_samples for r in runs), default=0)
    total = done = 0
    for record in runs:
        done += record.progress.samples
        is_out = record.state is RunState.STOPPED
        total += record.progress.samples if is_out else record.progress.total_samples or known
    return done / total if total else 0.0


#: The sign and the colour of a standing.
_CHIPS = {
    Kind.ERROR: ("▲", "failed"),
    Kind.PREPARING: ("◌", "running"),
    Kind.PAUSED: ("❚❚", "stopped"),
    Kind.IDLE: ("✓", "completed"),
    Kind.FAILED: ("▲", "failed"),
    Kind.TRAINING: ("●", "running"),
}


def _chip(state: ExperimentState, status: Status) -> list[Node]:
    now = standing(state, status)
    if now.kind not in _CHIPS:
        return [now.words]
    sign, style = _CHIPS[now.kind]
    return [element("span", sign, class_=f"rf-{style}"), f" {now.words}"]


def _stat(value: str, words: str) -> Node:
    return element("span", element("b", value), f" {words}", class_="rf-stat")


def _chunk_stat(ready: list[RunRecord]) -> list[Node]:
    known = [r for r in ready if r.progress.total_chunks]
    if not known:
        return []
    first = min(known, key=lambda r: r.progress.samples)
    now = min(first.progress.chunks + 1, first.progress.total_chunks)
    return [
        element(
            "span",
            "chunk ",
            element("b", str(now)),
            f" of {first.progress.total_chunks}",
            class_="rf-stat",
        )
    ]


def _throughput(state: ExperimentState) -> float | None:
    """Samples a second over the latest turns of all runs."""
    records = list(state.runs.values())
    seconds = sum(r.train_seconds + r.overhead_seconds for r in records)
    samples = sum(r.progress.samples for r in records if r.train_seconds)
    return samples / seconds if seconds else None


def _memory_stat(status: Status) -> Node:
    text = size(status.memory_bytes)
    if status.memory_total_bytes:
        text += f" / {size(status.memory_total_bytes)}"
    return element("span", f"{status.device} ", element("b", text), class_="rf-stat")
