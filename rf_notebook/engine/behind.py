"""What becomes of results whose checkpoints are written behind the turns that gave them?

They are committed when their checkpoints are there; until then the run counts as far on as its
result says. What cannot be written is void, and the run is saved where it stands.

Where a policy is at work they are committed all at once: it would decide otherwise if a kill left
some of the runs that came to a boundary together at the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from rf_notebook.core.run import READY

if TYPE_CHECKING:
    from rf_notebook.core.events import Event
    from rf_notebook.core.runner import ChunkResult, Saved
    from rf_notebook.core.state import ExperimentState, RunRecord
    from rf_notebook.engine.journal import Journal


class Committing(Protocol):
    """As much of ``Turns`` as is needed here."""

    @property
    def is_open(self) -> bool:
        """Whether a turn is under way."""

    def interrupt(self) -> None:
        """See Turns."""

    def listen(self) -> bool:
        """Wait for a message, or a while; False when the process that trains is gone."""

    def events_of(self, record: RunRecord, result: ChunkResult) -> list[Event]:
        """What a result gives."""

    def commit(self, events: Sequence[Event]) -> None:
        """See Turns."""

    def remove_superseded(self, events: Sequence[Event]) -> None:
        """Delete the checkpoints that committed events take out of use."""

    def save(self, record: RunRecord) -> list[Event]:
        """See Turns."""

    def release(self, *run_ids: int) -> None:
        """See Turns."""


class Behind:
    """Of one device."""

    def __init__(self, turns: Committing, journal: Journal) -> None:
        """Nothing is being written.

        Args:
            turns: Commits and saves.
            journal: Is told where runs stand that are being saved.
        """
        self._turns = turns
        self._journal = journal
        self._unsaved: dict[int, ChunkResult] = {}
        """By run."""
        self._told: dict[tuple[int, int], Saved] = {}
        """Of checkpoints, by run and steps; also before the result that they belong to."""

    @property
    def runs(self) -> set[int]:
        """Whose results are not committed yet."""
        return set(self._unsaved)

    def add(self, result: ChunkResult) -> None:
        """A turn gave a result whose checkpoint is being written."""
        self._unsaved[result.run_id] = result
        self._journal.saving[result.run_id] = result.progress

    def hear(self, saved: Saved) -> None:
        """A checkpoint was written, or could not be; also while a turn is open, between two steps."""
        self._told[saved.run_id, saved.steps] = saved
        if saved.error is not None:
            self._turns.interrupt()
        elif self._turns.is_open:
            self.commit()

    def foreseen(self) -> ExperimentState:
        """The experiment as it is going to be when all is committed."""
        state = self._journal.state
        if not self._unsaved:
            return state
        return state.after(
            event
            for result in self._unsaved.values()
            for event in self._turns.events_of(state.record(result.run_id), result)
        )

    def commit(self) -> None:
        """Commit the results whose checkpoints are written; what cannot be now stays."""
        state = self._journal.state
        written = self._told_of(lambda saved: saved.checkpoint is not None)
        is_early = state.policy is not None and len(written) < len(self._unsaved)
        if is_early or not written:
            return
        events: list[Event] = []
        for result, saved in written:
            whole = replace(result, checkpoint=saved.checkpoint, is_being_saved=False)
            events += self._turns.events_of(state.record(result.run_id), whole)
        if not self._turns.is_open:
            self._turns.commit(events)
        elif self._journal.commit_at_once(events):
            self._turns.remove_superseded(events)
        else:
            return
        for result, _ in written:
            self._forget(result)

    def settle(self, *, waits: bool, without: Collection[int] = ()) -> None:
        """Commit what is written; between turns.

        Args:
            waits: Whether to wait until all is.
            without: Runs whose next result is there: it holds what could not be saved.
        """
        while self._unsaved:
            self.commit()
            for result, saved in self._told_of(lambda saved: saved.error is not None):
                self._save_again(result, saved, is_needed=result.run_id not in without)
            if not waits or not self._unsaved or not self._turns.listen():
                return

    def lose(self) -> None:
        """The process that writes is gone."""
        self.commit()
        for result in list(self._unsaved.values()):
            self._forget(result)
        self._told.clear()

    def _told_of(self, is_asked: Callable[[Saved], bool]) -> list[tuple[ChunkResult, Saved]]:
        pairs = [
            (result, self._told.get((run_id, result.progress.steps)))
            for run_id, result in self._unsaved.items()
        ]
        return [(result, saved) for result, saved in pairs if saved is not None and is_asked(saved)]

    def _save_again(self, result: ChunkResult, saved: Saved, *, is_needed: bool) -> None:
        """Save the run where it stands now."""
        run_id = result.run_id
        self._journal.log.warning("run %d: its checkpoint was not written: %s", run_id, saved.error)
        self._forget(result)
        record = self._journal.state.record(run_id)
        if is_needed and record.state in READY:
            self._journal.inside.setdefault(run_id, result.progress)
            self._turns.commit(self._turns.save(record))
            if self._journal.state.record(run_id).state not in READY:
                self._turns.release(run_id)

    def _forget(self, result: ChunkResult) -> None:
        self._told.pop((result.run_id, result.progress.steps), None)
        self._unsaved.pop(result.run_id, None)
        self._journal.saving.pop(result.run_id, None)
