"""Who decides, what was decided, and what did it spare?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rf_notebook.core.run import READY, RunState
from rf_notebook.results.decisions import PolicyDecision, decisions_of, savings_of
from rf_notebook.views.document import Node, element
from rf_notebook.views.marks import dot
from rf_notebook.views.words import shortened

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState
    from rf_notebook.core.status import Status

_MOST_DECISIONS = 200


_SENTENCE = 400


def automation(state: ExperimentState, status: Status) -> Node:
    """The policy at work and what it waits for, what it spared, what it did and why.

    Undo and pin.
    """
    decided = decisions_of(state)
    parts: list[Node] = [_policy_line(state, status)]
    if decided:
        parts.append(_savings_line(state))
    alive = [r for r in list(state.runs.values()) if r.state in READY or r.run_id in state.pinned]
    if alive and (state.policy or state.pinned):
        pins = [node for record in alive for node in (_pin(record.run_id, state), "  ")]
        parts.append(element("p", "Pinned runs are left alone:  ", *pins))
    if decided:
        newest = {
            run_id: place
            for place, one in enumerate(decided)
            for run_id in (one.run_id, one.made)
            if run_id
        }
        rows = [_decision(place, one, state, newest) for place, one in enumerate(decided)][::-1]
        heads = [element("th", words, scope="col") for words in ("decision", "after", "why", "")]
        parts.append(
            element(
                "table",
                element("thead", element("tr", *heads)),
                element("tbody", *rows[:_MOST_DECISIONS]),
            )
        )
    return element("div", *parts, class_="rf-automation")


def _policy_line(state: ExperimentState, status: Status) -> Node:
    if state.policy is None:
        words = (
            "No policy decides. Give run_fit policy=Halving(), or run %rapidfire automate halving."
        )
        return element("p", words, class_="rf-dim")
    waits = (
        f"; it waits for {shortened(status.waits_for, _SENTENCE)}"
        if status.waits_for and status.open
        else ""
    )
    wheel = (
        element("button", "Take the wheel", class_="rf-link", data_action="wheel")
        if status.open
        else None
    )
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


def _decision(
    place: int, one: PolicyDecision, state: ExperimentState, newest: Mapping[int, int]
) -> Node:
    about = one.made or one.run_id
    record = state.runs.get(about)
    words = f"{one.what} run {one.run_id}" + (f" → run {one.made}" if one.made else "")
    undoable = record is not None and newest.get(about) == place
    if undoable and record is not None:
        undoable = record.state is RunState.STOPPED if one.what == "stop" else record.state in READY
    undo = (
        element("button", "Undo", class_="rf-link", data_action=f"undo {about}")
        if undoable
        else None
    )
    return element(
        "tr",
        element("td", dot(about), words),
        element("td", f"{one.samples:,} samples"),
        element(
            "td",
            element("span", f"{shortened(one.policy, 60)}: ", class_="rf-dim"),
            shortened(one.reason, _SENTENCE),
        ),
        element("td", undo),
    )
