"""Which recorded operation is due?

A replay's script: operations come at the very steps at which they were obeyed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rf_notebook.core.run import READY, RunState

if TYPE_CHECKING:
    from rf_notebook.core.events import OperationObeyed
    from rf_notebook.core.state import ExperimentState


@dataclass(frozen=True, slots=True)
class UntilChunk:
    """Where a replay ends and the user continues."""

    run_id: int
    chunk: int

    def is_reached(self, state: ExperimentState) -> bool:
        """Whether the run has trained that chunk."""
        record = state.runs.get(self.run_id)
        return record is not None and record.progress.chunks >= self.chunk


class Script:
    """The operations that are still to come, in their order.

    A run waits at the step of the next operation about it until all operations before that one were
    obeyed; so the order is the recorded one, and with it the ids of clones and the adapters that
    warm starts take over.
    """

    def __init__(
        self,
        operations: Iterable[OperationObeyed],
        verdict: Callable[[ExperimentState], str],
        *,
        until: UntilChunk | None = None,
    ) -> None:
        """A script at its beginning.

        Args:
            operations: As recorded.
            verdict: What to tell when all runs are over, from the replay's state.
            until: Where it ends early; the operations after that are left out.
        """
        self._until = until
        self._coming = deque(operations)
        self._verdict: Callable[[ExperimentState], str] | None = verdict

    @property
    def is_over(self) -> bool:
        """Whether nothing is to come."""
        return not self._coming

    def due(self, state: ExperimentState, steps_of: Callable[[int], int]) -> OperationObeyed | None:
        """The next operation, when its run is where it was.

        Also when that run will not advance any more.
        """
        if not self._coming:
            return None
        first = self._coming[0]
        record = state.runs.get(first.operation.run_id)
        is_going = record is not None and record.state in READY
        if is_going and (
            first.run_state is RunState.FAILED or steps_of(first.operation.run_id) < first.steps
        ):
            return None
        return first

    def take(self) -> None:
        """The next operation is being obeyed."""
        self._coming.popleft()

    def next_steps(self, run_id: int) -> int | None:
        """Where a run has to wait; None when nothing is to come for it, or only after it failed."""
        first = next((one for one in self._coming if one.operation.run_id == run_id), None)
        return None if first is None or first.run_state is RunState.FAILED else first.steps

    def take_end(self, state: ExperimentState) -> str | None:
        """Whether the place is reached where the user continues: what to tell then, once."""
        until = self._until
        if until is None or not until.is_reached(state):
            return None
        left = len(self._coming)
        self._until, self._verdict = None, None
        self._coming.clear()
        more = f"; {left} recorded operations after that are left out" if left else ""
        return f"the replay has come to chunk {until.chunk} of run {until.run_id}{more}. It is paused and yours: operate, then resume()."

    def take_verdict(self, state: ExperimentState) -> str | None:
        """What to tell at the end, once."""
        if self._coming or self._verdict is None:
            return None
        verdict, self._verdict = self._verdict, None
        return verdict(state)
