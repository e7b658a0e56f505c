"""What comes of a turn? It is committed, what it takes out of use is deleted, and what ended is freed."""

from __future__ import annotations

import traceback
from collections import Counter, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rf_notebook.core.errors import LeaseLost, WorkerCannotStart, WorkerLost
from rf_notebook.core.events import CheckpointsRemoved, Event, RunFailed
from rf_notebook.core.redaction import as_told
from rf_notebook.core.run import LONGEST_MESSAGE, LONGEST_TRACEBACK, Failure
from rf_notebook.core.runner import ChunkResult, ReleaseRuns, SaveRun, TurnOutcome
from rf_notebook.engine.behind import Behind
from rf_notebook.engine.journal import Closing, Journal
from rf_notebook.engine.results import events_of, fall_back

if TYPE_CHECKING:
    from rf_notebook.core.state import RunRecord
    from rf_notebook.engine.devices import Device, Devices
    from rf_notebook.engine.grouping import Grouping
    from rf_notebook.engine.keep import Keep
    from rf_notebook.engine.removal import Removal

#: What no run is to blame for, and what ends the engine or the work of a device.
ENDS = (LeaseLost, Closing, WorkerCannotStart, GeneratorExit)


class Taking:
    """Takes what devices give, and keeps the record and the folder in step."""

    def __init__(
        self,
        devices: Devices,
        journal: Journal,
        grouping: Grouping,
        *,
        keep: Keep,
        removal: Removal,
    ) -> None:
        """Nothing was given yet.

        Args:
            devices: Who trains.
            journal: Takes what turns give.
            grouping: Is told why runs train alone.
            keep: Which checkpoints stay.
            removal: Deletes superseded checkpoints.
        """
        self._devices = devices
        self._journal = journal
        self._grouping = grouping
        self._keep = keep
        self._removal = removal
        self.deaths: Counter[int] = Counter()
        """By run: of processes that trained it, since it gave something."""
        self.moved: set[int] = set()
        """Runs that train their first chunk on another device."""
        self.chunk_seconds: dict[int, float] = {}
        """That each run's newest chunk took."""
        self._overhead: dict[int, float] = {}
        """Of those: what was not training."""
        self._move_seconds: deque[float] = deque(maxlen=5)
        """That the newest moves took."""
        self.behind = Behind(self, journal, devices)
        devices.fleet.on_saved = self.behind.hear

    @property
    def move_seconds(self) -> float:
        """That it takes to build a run on another device, as far as that is known."""
        return sum(self._move_seconds) / len(self._move_seconds) if self._move_seconds else 0.0

    def take(self, device: Device, results: Sequence[ChunkResult]) -> None:
        """Commit what a turn gave, all of it in one transaction.

        Args:
            device: Whose turn it was.
            results: One for each run.
        """
        journal, events, over = self._journal, list[Event](), []
        ended = [one for one in results if one.outcome is not TurnOutcome.INTERRUPTED]
        behind = {one.run_id for one in ended} & self.behind.runs
        if behind:
            self.behind.settle(waits=True, without=behind)
        for result in results:
            if result.fence != journal.fence:
                raise LeaseLost(
                    f"a result of run {result.run_id} carries fence {result.fence}, not {journal.fence}."
                )
            record = journal.state.record(result.run_id)
            if result.hindrance:
                self._grouping.hinder(result.run_id, result.hindrance)
            match result.outcome:
                case TurnOutcome.INTERRUPTED:
                    journal.inside[result.run_id] = result.progress
                    continue
                case TurnOutcome.DAMAGED:
                    journal.inside.pop(result.run_id, None)
                    assert result.failure is not None
                    self._fall_back(record, result.failure.message)
                    continue
                case TurnOutcome.COMPLETED | TurnOutcome.FAILED:
                    over.append(result.run_id)
            journal.inside.pop(result.run_id, None)
            self.deaths.pop(result.run_id, None)
            self._learn(result)
            if result.is_being_saved:
                self.behind.add(result, device)
            else:
                events += self.events_of(record, result)
        self.commit(events)
        if over:
            self.release(*over)

    def events_of(self, record: RunRecord, result: ChunkResult) -> list[Event]:
        """What a result gives."""
        alone_because = "" if result.is_joint else self._grouping.alone_because(record)
        return events_of(
            record,
            result,
            keep=self._keep,
            alone_because=alone_because,
            device=self._devices.where(record.run_id),
        )

    def fail(self, record: RunRecord, error: BaseException) -> None:
        """A turn raised what the runner did not expect."""
        text = as_told("".join(traceback.format_exception(error)), LONGEST_TRACEBACK)
        message = as_told(f"{type(error).__name__}: {error}", LONGEST_MESSAGE)
        failure = Failure(message=message, traceback=text)
        self._journal.log.error("run %d: %s", record.run_id, text)
        self._journal.commit([RunFailed(run_id=record.run_id, failure=failure)])
        self.release(record.run_id)

    def _fall_back(self, record: RunRecord, reason: str) -> None:
        damaged = [saved.folder.path for saved in record.checkpoints[-1:]]
        self._journal.log.warning("run %d: %s", record.run_id, reason)
        self._journal.commit(fall_back(record, reason))
        self._removal.remove(damaged)

    def _learn(self, result: ChunkResult) -> None:
        """What a chunk takes, and what a move does."""
        run_id, overhead = result.run_id, result.overhead_seconds
        if run_id in self.moved:
            self.moved.discard(run_id)
            self._move_seconds.append(max(0.0, overhead - self._overhead.get(run_id, overhead)))
        self._overhead[run_id] = overhead
        self.chunk_seconds[run_id] = result.train_seconds + overhead

    def save(self, record: RunRecord) -> list[Event]:
        """The events of a run that stands inside a chunk and is saved there.

        The last is RunFailed when it cannot be.
        """
        run_id = record.run_id
        if run_id not in self._journal.inside:
            return []
        errand = SaveRun(
            run_id=run_id,
            fence=self._journal.fence,
            attempt=self._devices.next_number(),
            steps=self._journal.progress_of(record).steps,
        )
        device = self._devices.home(run_id)
        try:
            result = self._journal.when_room(lambda: self._devices.do(device, errand))
        except WorkerLost:
            return []
        self._journal.inside.pop(run_id, None)
        if result is not None and result.is_being_saved:
            self.take(device, [result])
            self.behind.settle(waits=True)
            return []
        return [] if result is None else self.events_of(record, result)

    def commit(self, events: Sequence[Event]) -> None:
        """Commit events, then delete the checkpoints that they take out of use."""
        if events:
            self._journal.commit(events)
        self.remove_superseded(events)

    def remove_superseded(self, events: Sequence[Event]) -> None:
        """Delete the checkpoints that committed events take out of use."""
        self._removal.remove(
            [
                path
                for event in events
                if isinstance(event, CheckpointsRemoved)
                for path in event.paths
            ]
        )

    def release(self, *run_ids: int) -> None:
        """Free the memory of runs, where they are held; an error of it is logged and ends nothing.

        A device that is in a turn does so after it.
        """
        for device in self._devices.all:
            held = tuple(one for one in run_ids if self._devices.homes.get(one) is device)
            if held:
                self._release(device, ReleaseRuns(run_ids=held))
        for run_id in run_ids:
            self._devices.homes.pop(run_id, None)
            self._journal.inside.pop(run_id, None)

    def _release(self, device: Device, errand: ReleaseRuns) -> None:
        if device.turn is not None:
            self._devices.send(device, errand)
            return
        try:
            self._devices.do(device, errand)
        except ENDS:
            raise
        except BaseException:  # noqa: BLE001 - nothing depends on it
            self._journal.log.error("outside a turn: %s", traceback.format_exc())
