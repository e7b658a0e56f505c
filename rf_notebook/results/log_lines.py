"""What happened to one run, line by line?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rf_notebook.core.events import Noted, OperationObeyed
from rf_notebook.core.operations import verb
from rf_notebook.results.metrics import points_of

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState

    pass


def log_lines(state: ExperimentState, run_id: int, most: int = 300) -> list[str]:
    """What happened to one run, oldest first.

    Its figures, the operations on it, its notes, its failure.
    """
    lines: list[tuple[float, str]] = []
    for point in points_of(state, run_id):
        figures = "  ".join(f"{name} {value:.5g}" for name, value in point.metrics.items())
        lines.append((point.at, f"step {point.step}  {figures}"))
    for recorded in list(state.operations):
        event = recorded.event
        if isinstance(event, OperationObeyed) and event.operation.run_id == run_id:
            lines.append(
                (
                    recorded.at,
                    f"{verb(event.operation)} obeyed at step {event.steps} ({event.origin})",
                )
            )
    for recorded in list(state.notes):
        if isinstance(recorded.event, Noted) and recorded.event.run_id == run_id:
            lines.append((recorded.at, recorded.event.text))
    lines.sort(key=lambda line: line[0])
    written = [
        f"{time.strftime('%H:%M:%S', time.localtime(at))}  {text}" for at, text in lines[-most:]
    ]
    failure = state.record(run_id).failure
    if failure is not None:
        written += [f"failed: {failure.message}", *failure.traceback.splitlines()]
    return written
