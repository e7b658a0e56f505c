"""What should the user know? Messages, failures, and the log of runs."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from rf_notebook.core.events import Noted, OperationObeyed
from rf_notebook.views.curves import operation_words
from rf_notebook.views.document import Node, element
from rf_notebook.views.marks import dot
from rf_notebook.views.words import run_name, shortened

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState, RunRecord
    from rf_notebook.core.status import Refusal

_MOST_MESSAGES = 200


_SENTENCE = 400


def messages(state: ExperimentState, refusals: Collection[Refusal]) -> Node:
    """What happened that a person should know, newest first.

    Operations, refusals, failures, notes.
    """
    lines: list[tuple[float, Node]] = []
    for recorded in list(state.operations):
        if isinstance(recorded.event, OperationObeyed):
            lines.append(
                (
                    recorded.at,
                    _line("●", "rf-running", recorded.at, operation_words(recorded.event)),
                )
            )
    for recorded in list(state.notes):
        if isinstance(recorded.event, Noted):
            lines.append((recorded.at, _line("!", "rf-stopped", recorded.at, recorded.event.text)))
    lines.extend(
        (refusal.at, _line("✕", "rf-failed", refusal.at, refusal.text)) for refusal in refusals
    )
    newest = sorted(lines, key=lambda line: line[0], reverse=True)[:_MOST_MESSAGES]
    failures = [
        failure_line(record) for record in list(state.runs.values()) if record.failure is not None
    ]
    if not newest and not failures:
        return element("p", "Nothing to tell yet.", class_="rf-dim")
    return element("div", *failures, *(node for _, node in newest), class_="rf-messages")


def failure_line(record: RunRecord) -> Node:
    """Why a run failed, and what to do next; its traceback folded."""
    failure = record.failure
    assert failure is not None
    saved = record.checkpoints[-1].folder.steps if record.checkpoints else 0
    last = f"Its last checkpoint is at step {saved}." if saved else "It has no checkpoint."
    summary = f"Run {record.run_id} failed at step {record.progress.steps}: {shortened(failure.message, _SENTENCE)} {last}"
    return element(
        "div",
        element("span", "▲ ", class_="rf-failed"),
        summary + " ",
        element(
            "button", "Clone with edits", class_="rf-link", data_action=f"clone {record.run_id}"
        ),
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


def log_of(
    state: ExperimentState, selected: Collection[int], lines: Mapping[int, list[str]]
) -> Node:
    """The log of each selected run, or of all."""
    chosen = [run_id for run_id in lines if not selected or run_id in selected]
    parts: list[Node] = []
    for run_id in chosen:
        text = "\n".join(lines[run_id]) or "nothing yet"
        parts.append(
            element(
                "details",
                element("summary", dot(run_id), run_name(state, run_id)),
                element("pre", text, tabindex=0),
                open=run_id in selected or len(chosen) == 1,
            )
        )
    return (
        element("div", *parts, class_="rf-log")
        if parts
        else element("p", "No runs yet.", class_="rf-dim")
    )
