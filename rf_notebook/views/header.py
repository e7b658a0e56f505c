"""How does the experiment stand, in one line above everything?"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from rf_notebook.core.labels import UNLABELLED, Label
from rf_notebook.core.run import READY, RunState
from rf_notebook.results.times import etas
from rf_notebook.views.document import Node, element
from rf_notebook.views.standing import Kind, standing
from rf_notebook.views.words import duration, number, shortened, size

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState, RunRecord, TrainedTurn
    from rf_notebook.core.status import Status

#: Among the last ones that evaluation logs, one of training.
_FEW_POINTS = 8
#: Over which the devices' use is told: so many turns at most, and those that ended so lately.
_LATEST_TURNS = 100
_LATEST_SECONDS = 600.0
#: Characters of the experiment's note above everything.
_NOTE = 300


def header(name: str, state: ExperimentState, status: Status) -> Node:
    """One line that tells the state of everything."""
    runs = [r for r in list(state.runs.values()) if r.state is not RunState.DELETED]
    ready = [r for r in runs if r.state in READY]
    stats = [
        _stat(f"{len(ready)}", f"of {len(runs)} runs active"),
        *_chunk_stat(ready),
        _stat(duration(max(etas(state).values(), default=None)), "left") if ready else None,
        _stat(number(_throughput(state)), "samples/s"),
        *_tokens_stat(state),
        *_use_stat(state),
        *_memory_stats(status),
        *_cost_stats(state, status.price_per_hour),
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
        _labelled(state.label(None)),
    )


def _labelled(label: Label) -> Node:
    """The experiment's tags and its note."""
    if label == UNLABELLED:
        return ""
    tags = (element("span", shortened(tag, 60), class_="rf-chip") for tag in label.tags)
    return element(
        "div",
        *tags,
        element("span", f" {shortened(label.note, _NOTE)}", title=label.note, class_="rf-dim"),
        class_="rf-label",
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


def _tokens_stat(state: ExperimentState) -> list[Node]:
    """Tokens a second, where the runs count them."""
    records = [r for r in list(state.runs.values()) if r.train_seconds]
    counted = [_newest(record, "num_tokens") for record in records]
    seconds = _seconds(records, state)
    if not seconds or None in counted:
        return []
    return [_stat(number(sum(filter(None, counted)) / seconds), "tokens/s")]


def _newest(record: RunRecord, metric: str) -> float | None:
    """Of the committed points; None where the last few have none."""
    for point in (record.points[-1] if record.points else ())[: -_FEW_POINTS - 1 : -1]:
        value = point.metrics.get(metric)
        if value is not None and math.isfinite(value):
            return value
    return None


def _seconds(records: Iterable[RunRecord], state: ExperimentState) -> float:
    """How long the devices were at work on runs."""
    return _worked(records) / _devices(state)


def _worked(of: Iterable[RunRecord | TrainedTurn]) -> float:
    """Seconds of a device."""
    return sum(one.train_seconds + one.overhead_seconds for one in of)


def _devices(state: ExperimentState) -> int:
    """How many there are; one where runs train in the kernel."""
    return max(1, len(state.devices))


def _use_stat(state: ExperimentState) -> list[Node]:
    """Which part of the time the devices were at work lately; a night between two turns does not count."""
    turns = state.turns[-_LATEST_TURNS:]
    if not turns:
        return []
    since = max(one.ended_at for one in turns) - _LATEST_SECONDS
    turns = [one for one in turns if one.ended_at > since]
    span = max(one.ended_at for one in turns) - min(one.began_at for one in turns)
    devices = _devices(state)
    part = min(1.0, _worked(turns) / (span * devices)) if span else 1.0
    return [
        element(
            "span",
            element("b", f"{100 * part:.0f}%"),
            " of the time at work",
            class_="rf-stat",
            title=f"{'the devices' if devices > 1 else 'the device'}, over the latest {len(turns)} turns",
        )
    ]


def _cost_stats(state: ExperimentState, price: float | None) -> list[Node]:
    """What the devices' hours have cost, and what those to come will."""
    if price is None:
        return []
    hours = _worked(list(state.runs.values())) / 3600
    left = max(etas(state).values(), default=0.0) * _devices(state) / 3600
    told = [_stat(f"{price * hours:,.2f}", "spent")]
    return [*told, _stat(f"{price * left:,.2f}", "to come")] if left else told


def _throughput(state: ExperimentState) -> float | None:
    """Samples a second over the latest turns of all runs."""
    records = list(state.runs.values())
    seconds = _seconds(records, state)
    samples = sum(r.progress.samples for r in records if r.train_seconds)
    return samples / seconds if seconds else None


def _memory_stats(status: Status) -> list[Node]:
    """Memory of each device."""
    if not status.devices:
        return [_memory_stat(status.device, status.memory_bytes, status.memory_total_bytes)]
    return [_memory_stat(one.name, one.used_bytes, one.total_bytes) for one in status.devices]


def _memory_stat(name: str, used: int | None, total: int | None) -> Node:
    text = size(used)
    if total:
        text += f" / {size(total)}"
    return element("span", f"{name} ", element("b", text), class_="rf-stat")
