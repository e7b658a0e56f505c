"""What do the panel's pages of text and boxes show? Each is a document made from the experiment's state alone."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from rf_notebook.core.events import Noted, OperationObeyed
from rf_notebook.core.run import READY, Generation, RunState
from rf_notebook.results.decisions import PolicyDecision, decisions_of, savings_of
from rf_notebook.results.times import etas
from rf_notebook.views.curves import operation_words
from rf_notebook.views.document import Node, element
from rf_notebook.views.palette import colour
from rf_notebook.views.standing import Kind, standing
from rf_notebook.views.words import ICONS, config_value, duration, knob_name, number, shortened, size

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState, RunRecord
    from rf_notebook.core.status import Refusal, Status
    from rf_notebook.views.runs_table import RunsView

_MOST_MESSAGES = 200
_MOST_TURNS = 400
_MOST_DECISIONS = 200
_SENTENCE = 400


def dot(run_id: int) -> Node:
    """A run's colour as a small disc."""
    return element("span", class_="rf-dot", style=f"background:{colour(run_id)}")


# ---- the header


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
        element("div", status.held_up, class_="rf-warning", role="alert") if status.held_up else None,
    )


def overall_progress(runs: Collection[RunRecord]) -> float:
    """Between 0 and 1: samples done of those to be done. Stopped runs have nothing to come; what failed stays undone."""
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
    return [element("span", "chunk ", element("b", str(now)), f" of {first.progress.total_chunks}", class_="rf-stat")]


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


# ---- lineage


def lineage(state: ExperimentState, metric: str | None, view: RunsView) -> Node:
    """The tree of clones: who came from whom, with which edits."""
    values = {row.run_id: row.latest.get(metric) if metric else None for row in view.rows}
    children: dict[int | None, list[RunRecord]] = {}
    for record in list(state.runs.values()):
        children.setdefault(record.parent_id, []).append(record)

    def branch(record: RunRecord) -> Node:
        inner = [branch(child) for child in children.get(record.run_id, [])]
        edits = [f"{knob_name(key)} → {config_value(value)}" for key, value in record.edits.items()]
        report = record.warm_start_report
        return element(
            "li",
            element(
                "button",
                dot(record.run_id),
                f"run {record.run_id}",
                class_="rf-link",
                data_action=f"select {record.run_id}",
                aria_label=f"select run {record.run_id}",
            ),
            element("span", f" {ICONS[record.state]} {record.state}", class_=f"rf-{record.state}"),
            element("span", f"  {metric} {number(values.get(record.run_id))}", class_="rf-dim") if metric else None,
            element("span", f"  {shortened('; '.join(edits), _SENTENCE)}", class_="rf-edits") if edits else None,
            element("span", f"  {report.sentence()}", class_="rf-dim") if report is not None else None,
            element("ul", *inner) if inner else None,
        )

    roots = [branch(record) for record in children.get(None, [])]
    if len(roots) == len(state.runs):
        hint = element("p", "Clones appear here below their parents.", class_="rf-dim")
        return element("div", hint, element("ul", *roots, class_="rf-tree"))
    return element("ul", *roots, class_="rf-tree")


# ---- schedule


def schedule(state: ExperimentState, *, width: int = 1000) -> Node:
    """Who had the device when: a bar a turn, training in the run's colour, the rest grey."""
    turns = list(state.turns)[-_MOST_TURNS:]
    if not turns:
        return element("p", "Nothing has been trained yet.", class_="rf-dim")
    start = min(t.ended_at - t.train_seconds - t.overhead_seconds for t in turns)
    end = max(t.ended_at for t in turns)
    span = max(end - start, 1e-9)
    lanes = {run_id: lane for lane, run_id in enumerate(sorted({t.run_id for t in turns}))}
    row, left, top = 22, 70, 8
    scale = (width - left - 10) / span
    bars: list[Node] = []
    for run_id, lane in lanes.items():
        y = top + lane * row
        bars.append(element("text", f"run {run_id}", x=8, y=y + 13, class_="rf-svg-text"))
        bars.append(element("line", x1=left, x2=width - 10, y1=y + 18, y2=y + 18, class_="rf-svg-line"))
    for turn in turns:
        y = top + lanes[turn.run_id] * row
        began = turn.ended_at - turn.train_seconds - turn.overhead_seconds
        x = left + (began - start) * scale
        trained, rest = turn.train_seconds * scale, turn.overhead_seconds * scale
        words = (
            f"run {turn.run_id}: trained {turn.train_seconds:.2f} s, evaluated and saved {turn.overhead_seconds:.2f} s"
        )
        bars.append(
            element(
                "g",
                element("title", words),
                element(
                    "rect",
                    x=f"{x:.1f}",
                    y=y,
                    width=f"{max(trained, 1):.1f}",
                    height=14,
                    fill=colour(turn.run_id),
                ),
                element("rect", x=f"{x + trained:.1f}", y=y, width=f"{rest:.1f}", height=14, class_="rf-svg-rest"),
            )
        )
    axis = top + len(lanes) * row + 12
    for part in range(6):
        x = left + part / 5 * (width - left - 10)
        text = element(
            "text", duration(part / 5 * span), x=f"{x:.0f}", y=axis, class_="rf-svg-text", text_anchor="middle"
        )
        bars.append(text)
    trained_seconds = sum(t.train_seconds for t in turns)
    rest_seconds = sum(t.overhead_seconds for t in turns)
    lost = max(span - trained_seconds - rest_seconds, 0.0)
    words = (
        f"{duration(span)} in all: {trained_seconds / span:.1%} training, {rest_seconds / span:.1%} evaluating, saving and "
        f"building (grey), {lost / span:.1%} handing over and waiting."
    )
    picture = element(
        "svg",
        *bars,
        viewBox=f"0 0 {width} {axis + 8}",
        width="100%",
        role="img",
        aria_label=f"Who trained when. {words}",
    )
    return element("div", picture, element("p", words, class_="rf-dim"))


# ---- samples


def samples(state: ExperimentState, selected: Collection[int]) -> Node:
    """What the runs answer to the sample prompts, side by side, and what they wrote in training, with its rewards."""
    written = {run_id: state.written[run_id] for run_id in sorted(state.written) if run_id in state.runs}
    if selected:
        written = {run_id: event for run_id, event in written.items() if run_id in selected} or written
    if not written:
        words = "No samples: give run_fit sample_prompts=3 (rows of the evaluation data) or a list of texts."
        return element("p", words, class_="rf-dim")
    prompts = list(dict.fromkeys(g.prompt for event in written.values() for g in event.generations))
    heads = [
        element("th", dot(run_id), f"run {run_id}, sample {event.samples}", scope="col")
        for run_id, event in written.items()
    ]
    rows = []
    for prompt in prompts:
        answers = []
        for event in written.values():
            answers.append(element("td", *(_written(g) for g in event.generations if g.prompt == prompt)))
        rows.append(element("tr", element("th", prompt, scope="row"), *answers))
    table = element("table", element("thead", element("tr", element("th", "prompt"), *heads)), element("tbody", *rows))
    return element("div", table, class_="rf-samples")


def _written(generation: Generation) -> Node:
    rewards = ", ".join(f"{name} {value:.3g}" for name, value in generation.rewards.items())
    return element("p", generation.text, element("span", f" {rewards}", class_="rf-dim") if rewards else None)


# ---- automation


def automation(state: ExperimentState, status: Status) -> Node:
    """The policy at work and what it waits for, what it spared, what it did and why; undo and pin."""
    decided = decisions_of(state)
    parts: list[Node] = [_policy_line(state, status)]
    if decided:
        parts.append(_savings_line(state))
    alive = [r for r in list(state.runs.values()) if r.state in READY or r.run_id in state.pinned]
    if alive and (state.policy or state.pinned):
        pins = [node for record in alive for node in (_pin(record.run_id, state), "  ")]
        parts.append(element("p", "Pinned runs are left alone:  ", *pins))
    if decided:
        newest = {run_id: place for place, one in enumerate(decided) for run_id in (one.run_id, one.made) if run_id}
        rows = [_decision(place, one, state, newest) for place, one in enumerate(decided)][::-1]
        heads = [element("th", words, scope="col") for words in ("decision", "after", "why", "")]
        parts.append(
            element("table", element("thead", element("tr", *heads)), element("tbody", *rows[:_MOST_DECISIONS]))
        )
    return element("div", *parts, class_="rf-automation")


def _policy_line(state: ExperimentState, status: Status) -> Node:
    if state.policy is None:
        words = "No policy decides. Give run_fit policy=Halving(), or run %rapidfire automate halving."
        return element("p", words, class_="rf-dim")
    waits = f"; it waits for {shortened(status.waits_for, _SENTENCE)}" if status.waits_for and status.open else ""
    wheel = element("button", "Take the wheel", class_="rf-link", data_action="wheel") if status.open else None
    return element(
        "p",
        element("span", "● ", class_="rf-running"),
        element("b", shortened(state.policy, 100)),
        f" decides at chunk boundaries{waits}. ",
        wheel,
    )


def _savings_line(state: ExperimentState) -> Node:
    saved = savings_of(state)
    share = saved.samples / saved.of_samples if saved.of_samples else 0.0
    return element(
        "p",
        "Spared so far: ",
        element("b", f"{saved.samples:,} samples"),
        f" ({share:.0%} of training every run in full) and about ",
        element("b", f"{saved.seconds / 60:.1f} device-minutes"),
        ".",
    )


def _pin(run_id: int, state: ExperimentState) -> Node:
    pinned = run_id in state.pinned
    return element(
        "button",
        dot(run_id),
        f"{'unpin' if pinned else 'pin'} run {run_id}",
        class_="rf-link",
        data_action=f"{'unpin' if pinned else 'pin'} {run_id}",
    )


def _decision(place: int, one: PolicyDecision, state: ExperimentState, newest: Mapping[int, int]) -> Node:
    about = one.made or one.run_id
    record = state.runs.get(about)
    words = f"{one.what} run {one.run_id}" + (f" → run {one.made}" if one.made else "")
    undoable = record is not None and newest.get(about) == place
    if undoable and record is not None:
        undoable = record.state is RunState.STOPPED if one.what == "stop" else record.state in READY
    undo = element("button", "Undo", class_="rf-link", data_action=f"undo {about}") if undoable else None
    return element(
        "tr",
        element("td", dot(about), words),
        element("td", f"{one.samples:,} samples"),
        element(
            "td", element("span", f"{shortened(one.policy, 60)}: ", class_="rf-dim"), shortened(one.reason, _SENTENCE)
        ),
        element("td", undo),
    )


# ---- messages and the log


def messages(state: ExperimentState, refusals: Collection[Refusal]) -> Node:
    """What happened that a person should know, newest first: operations, refusals, failures, notes."""
    lines: list[tuple[float, Node]] = []
    for recorded in list(state.operations):
        if isinstance(recorded.event, OperationObeyed):
            lines.append((recorded.at, _line("●", "rf-running", recorded.at, operation_words(recorded.event))))
    for recorded in list(state.notes):
        if isinstance(recorded.event, Noted):
            lines.append((recorded.at, _line("!", "rf-stopped", recorded.at, recorded.event.text)))
    lines.extend((refusal.at, _line("✕", "rf-failed", refusal.at, refusal.text)) for refusal in refusals)
    newest = sorted(lines, key=lambda line: line[0], reverse=True)[:_MOST_MESSAGES]
    failures = [failure_line(record) for record in list(state.runs.values()) if record.failure is not None]
    if not newest and not failures:
        return element("p", "Nothing to tell yet.", class_="rf-dim")
    return element("div", *failures, *(node for _, node in newest), class_="rf-messages")


def failure_line(record: RunRecord) -> Node:
    """Why a run failed, and what to do next; its traceback folded."""
    failure = record.failure
    assert failure is not None
    saved = record.checkpoints[-1].folder.steps if record.checkpoints else 0
    last = f"Its last checkpoint is at step {saved}." if saved else "It has no checkpoint."
    summary = (
        f"Run {record.run_id} failed at step {record.progress.steps}: {shortened(failure.message, _SENTENCE)} {last}"
    )
    return element(
        "div",
        element("span", "▲ ", class_="rf-failed"),
        summary + " ",
        element("button", "Clone with edits", class_="rf-link", data_action=f"clone {record.run_id}"),
        element(
            "details",
            element("summary", "traceback"),
            element("pre", f"{failure.message}\n\n{failure.traceback}"),
        ),
        class_="rf-message",
    )


def _line(icon: str, class_: str, at: float, text: str) -> Node:
    clock = time.strftime("%H:%M:%S", time.localtime(at))
    return element(
        "div",
        element("span", f"{icon} ", class_=class_),
        element("span", f"{clock} ", class_="rf-dim"),
        text,
        class_="rf-message",
    )


def log_of(selected: Collection[int], lines: Mapping[int, list[str]]) -> Node:
    """The log of each selected run, or of all."""
    chosen = [run_id for run_id in lines if not selected or run_id in selected]
    parts: list[Node] = []
    for run_id in chosen:
        text = "\n".join(lines[run_id]) or "nothing yet"
        parts.append(
            element(
                "details",
                element("summary", dot(run_id), f"run {run_id}"),
                element("pre", text, tabindex=0),
                open=run_id in selected or len(chosen) == 1,
            )
        )
    return element("div", *parts, class_="rf-log") if parts else element("p", "No runs yet.", class_="rf-dim")
