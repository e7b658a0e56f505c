"""What becomes of results whose checkpoints are written behind the turns that gave them?

They are committed when their checkpoints are there; until then the run counts as far on as its
result says. What cannot be written is void, and the run is saved where it stands.

Where a policy is at work they are committed all at once: it would decide otherwise if a kill left
some of the runs that came to a boundary together at the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from rf_notebook.core.run import READY

if TYPE_CHECKING:
    from rf_notebook.core.events import Event
    from rf_notebook.core.runner import ChunkResult, Saved
    from rf_notebook.core.state import ExperimentState, RunRecord
    from rf_notebook.engine.devices import Device, Devices
    from rf_notebook.engine.journal import Journal


class Committing(Protocol):
    """As much of ``Taking`` as is needed here."""

    def events_of(self, record: RunRecord, result: ChunkResult) -> list[Event]:
        """What a result gives."""

    def commit(self, events: Sequence[Event]) -> None:
        """See Taking."""

    def remove_superseded(self, events: Sequence[Event]) -> None:
        """Delete the checkpoints that committed events take out of use."""

    def save(self, record: RunRecord) -> list[Event]:
        """See Taking."""

    def release(self, *run_ids: int) -> None:
        """See Taking."""


class Behind:
    """Of all devices."""

    def __init__(self, taking: Committing, journal: Journal, devices: Devices) -> None:
        """Nothing is being written.

        Args:
            taking: Commits and saves.
            journal: Is told where runs stand that are being saved.
            devices: Who writes.
        """
        self._taking = taking
        self._journal = journal
        self._devices = devices
        self._unsaved: dict[int, ChunkResult] = {}
        """By run."""
        self._written_by: dict[int, Device] = {}
        """Who writes the checkpoint of a run."""
        self._told: dict[tuple[int, int], Saved] = {}
        """Of checkpoints, by run and steps; also before the result that they belong to."""

    @property
    def runs(self) -> set[int]:
        """Whose results are not committed yet."""
        return set(self._unsaved)

    @property
    def writing(self) -> set[Device]:
        """Devices that have results which are not committed yet."""
        return set(self._written_by.values())

    def add(self, result: ChunkResult, device: Device) -> None:
        """A turn gave a result whose checkpoint is being written."""
        self._unsaved[result.run_id] = result
        self._written_by[result.run_id] = device
        self._journal.saving[result.run_id] = result.progress

    def hear(self, saved: Saved) -> None:
        """A checkpoint was written, or could not be; also while a turn is open, between two steps."""
        self._told[saved.run_id, saved.steps] = saved
        if saved.error is not None:
            home = self._devices.homes.get(saved.run_id)
            self._devices.interrupt([] if home is None else [home])
        elif self._devices.is_listening:
            self.commit()

    def foreseen(self) -> ExperimentState:
        """The experiment as it is going to be when all is committed."""
        state = self._journal.state
        if not self._unsaved:
            return state
        return state.after(
            event
            for result in self._unsaved.values()
            for event in self._taking.events_of(state.record(result.run_id), result)
        )

    def commit(self) -> None:
        """Commit the results whose checkpoints are written; what cannot be now stays."""
        for device in self._devices.all:
            self._commit_of(device)

    def _commit_of(self, device: Device) -> None:
        state = self._journal.state
        unsaved = self._of(device)
        written = self._told_of(unsaved, lambda saved: saved.checkpoint is not None)
        is_early = state.policy is not None and len(written) < len(unsaved)
        if is_early or not written:
            return
        events: list[Event] = []
        for result, saved in written:
            whole = replace(result, checkpoint=saved.checkpoint, is_being_saved=False)
            events += self._taking.events_of(state.record(result.run_id), whole)
        if not self._devices.is_listening:
            self._taking.commit(events)
        elif self._journal.commit_at_once(events):
            self._taking.remove_superseded(events)
        else:
            return
        for result, _ in written:
            self._forget(result)

    def settle(self, *, waits: bool, without: Collection[int] = ()) -> None:
        """Commit what devices that stand have written.

        Args:
            waits: Whether to wait until all of theirs is.
            without: Runs whose next result is there: it holds what could not be saved.
        """
        while True:
            self.commit()
            standing = [device for device in self.writing if device.turn is None]
            for device in standing:
                failed = self._told_of(self._of(device), lambda saved: saved.error is not None)
                for result, saved in failed:
                    self._save_again(result, saved, is_needed=result.run_id not in without)
            if not waits or not any(device in self.writing for device in standing):
                return
            lost = self._devices.wait_for_saves()
            if lost is not None:
                self.lose(lost)

    def lose(self, device: Device) -> None:
        """The process that writes is gone."""
        self._commit_of(device)
        for result in self._of(device):
            self._forget(result)
        homes = self._devices.homes
        self._told = {at: told for at, told in self._told.items() if homes.get(at[0]) is not device}

    def _of(self, device: Device) -> list[ChunkResult]:
        """The results of a device that are not committed."""
        return [
            result for run_id, result in self._unsaved.items() if self._written_by[run_id] is device
        ]

    def _told_of(
        self, results: Iterable[ChunkResult], is_asked: Callable[[Saved], bool]
    ) -> list[tuple[ChunkResult, Saved]]:
        pairs = [
            (result, self._told.get((result.run_id, result.progress.steps))) for result in results
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
            self._taking.commit(self._taking.save(record))
            if self._journal.state.record(run_id).state not in READY:
                self._taking.release(run_id)

    def _forget(self, result: ChunkResult) -> None:
        self._told.pop((result.run_id, result.progress.steps), None)
        self._unsaved.pop(result.run_id, None)
        self._written_by.pop(result.run_id, None)
        self._journal.saving.pop(result.run_id, None)
