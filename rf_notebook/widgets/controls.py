"""Which buttons act on the selected runs, and why is one disabled?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rf_notebook.core.errors import RFNotebookError
from rf_notebook.core.operations import BY_VERB, CloneRun, Operation, check_allowed
from rf_notebook.core.run import RunState

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState
    from rf_notebook.core.status import Status

#: The buttons in their order, with their words.
VERBS = {
    "stop": "■ Stop",
    "resume": "▶ Resume",
    "clone": "Clone…",
    "warm start": "Warm start…",
    "label": "✎ Label…",
    "export": "⇩ Export…",
    "delete": "✕ Delete…",
}

#: What is asked of runs as they are looked at.
VIEW_VERBS = {
    "open": "Open its page",
    "hide": "Hide, or show again",
    "keep on top": "Keep on top",
    "baseline": "Compare others to it",
}
#: By key, while a row has the focus.
KEYS = {
    "open": "o",
    "hide": "h",
    "keep on top": "t",
    "baseline": "b",
    "stop": "s",
    "resume": "r",
    "clone": "c",
    "warm start": "w",
    "label": "l",
    "export": "e",
    "delete": "Delete",
}


def why_not(
    verb: str, run_ids: Sequence[int], state: ExperimentState, status: Status
) -> str | None:
    """Why a button is disabled, in a sentence; None when it may be clicked.

    Args:
        verb: A key of VERBS.
        run_ids: The selected runs.
        state: The experiment's state.
        status: The experiment's status.
    """
    if not run_ids:
        return f"select runs in the table to {verb} them"
    runs = [state.runs[run_id] for run_id in run_ids if run_id in state.runs]
    if verb == "export":
        missing = [str(r.run_id) for r in runs if not r.checkpoints]
        if len(runs) > 1:
            return "select one run to export it"
        return f"run {missing[0]} has no checkpoint yet" if missing else None
    if verb == "label" and not status.damage:
        words = "another kernel trains the experiment; label runs there"
        return words if status.read_only else None
    if status.damage:
        return "the experiment's record is damaged; experiment.repair() continues from before that"
    if not status.open:
        return "the experiment is not training; run its cell again to continue"
    if verb in ("clone", "warm start") and len(run_ids) > 1:
        return f"select one run to {verb} it"
    reasons = []
    for record in runs:
        live = state.live.get(record.run_id)
        steps = (record.progress if live is None else live.progress).steps
        operation: Operation
        if verb in BY_VERB:
            operation = BY_VERB[verb](run_id=record.run_id)
        else:
            operation = CloneRun(
                run_id=record.run_id,
                config=record.config,
                edits={},
                warm_start=verb == "warm start",
            )
        try:
            check_allowed(operation, record.state, steps_done=steps)
        except RFNotebookError as error:
            reasons.append(str(error))
    return reasons[0] if len(reasons) == len(runs) else None


def allowed_runs(
    verb: str, run_ids: Sequence[int], state: ExperimentState, status: Status
) -> list[int]:
    """Those of the selected runs on which a button acts.

    Of several, the ones that it is allowed on.
    """
    return [run_id for run_id in run_ids if why_not(verb, [run_id], state, status) is None]


def selection_words(run_ids: Sequence[int], state: ExperimentState) -> str:
    """The selection in words, such as: 3 runs selected: 1, 4, 5."""
    alive = [i for i in run_ids if i in state.runs and state.runs[i].state is not RunState.DELETED]
    if not alive:
        return "No run selected"
    if len(alive) == 1:
        return f"Run {alive[0]} selected"
    few = ", ".join(map(str, alive[:8])) + (" …" if len(alive) > 8 else "")
    return f"{len(alive)} runs selected: {few}"
