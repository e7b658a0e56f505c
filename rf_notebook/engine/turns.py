"""How does a turn go?

One run, several in joint steps, or both ways on trial; what comes back is committed.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import LeaseLost, WorkerCannotStart, WorkerLost
from rf_notebook.core.events import CheckpointsRemoved, Event, Noted, RunFailed
from rf_notebook.core.fleet import Answer, DeviceTurn, Fleet, Lost, TurnFailed, TurnOver
from rf_notebook.core.redaction import redact
from rf_notebook.core.run import READY, Failure
from rf_notebook.core.runner import (
    ChunkRequest,
    ChunkResult,
    Errand,
    ReleaseRuns,
    SaveRun,
    TurnOutcome,
)
from rf_notebook.core.state import LiveRun, RunRecord
from rf_notebook.engine.behind import Behind
from rf_notebook.engine.journal import Closing, Journal
from rf_notebook.engine.results import events_of, fall_back
from rf_notebook.planning.fusion import Way

if TYPE_CHECKING:
    from rf_notebook.engine.grouping import Grouping
    from rf_notebook.engine.keep import Keep
    from rf_notebook.engine.removal import Removal
    from rf_notebook.engine.script import Script

#: How long the engine listens before it looks around.
_LISTEN_SECONDS = 1.0
#: Deaths of the process that trains, with nothing committed in between, after which the run that it
#: trained fails.
_MOST_DEATHS = 3


#: What no run is to blame for, and what ends the engine.
_ENDS = (LeaseLost, Closing, WorkerCannotStart)


@dataclass(frozen=True, slots=True)
class OpenTurn:
    """A turn that is under way."""

    turn: int
    run_ids: frozenset[int]


class Turns:
    """Drives one device."""

    def __init__(
        self,
        fleet: Fleet,
        journal: Journal,
        grouping: Grouping,
        *,
        keep: Keep,
        script: Script | None,
        removal: Removal,
        hear_letters: Callable[[], None],
    ) -> None:
        """Nothing trains yet.

        Args:
            fleet: Whose first device trains.
            journal: Takes what turns give.
            grouping: Says who trains with whom.
            keep: Which checkpoints stay.
            script: What is to be done at which steps, in a replay.
            removal: Deletes superseded checkpoints.
            hear_letters: Called while a turn is open; answers what can be answered, and interrupts
                for the rest.
        """
        self._fleet = fleet
        self._device = fleet.devices()[0].name
        self._journal = journal
        self._grouping = grouping
        self._keep = keep
        self._script = script
        self._removal = removal
        self._hear_letters = hear_letters
        self._number = 0
        """Of the newest turn or errand."""
        self._deaths: Counter[int] = Counter()
        self.behind = Behind(self, journal)
        fleet.on_saved = self.behind.hear
        self.open: OpenTurn | None = None
        """The turn that is under way."""
        self.is_ending = False
        """Whether turns end at their next step."""

    def give(self, run_id: int, waiting: Sequence[RunRecord]) -> None:
        """Give a run its turn, or the group in which it trains.

        Args:
            run_id: Whose turn it is.
            waiting: All runs that want one.
        """
        state = self._journal.state
        group = [state.record(one) for one in self._grouping.group(run_id, waiting)]
        match self._grouping.way(group):
            case Way.ALONE:
                self._train_alone(group[0])
            case Way.TOGETHER:
                self._train_together(group)
            case None:
                self._train_on_trial(group)

    @property
    def is_open(self) -> bool:
        """Whether a turn is under way."""
        return self.open is not None

    def listen(self) -> bool:
        """Wait for a message, or a while; False when the process that trains is gone."""
        found = self._fleet.next(_LISTEN_SECONDS)
        if found is not None and isinstance(found[1], Lost):
            self._lose(found[1], ())
            return False
        return True

    def interrupt(self) -> None:
        """End the open turn at its next step."""
        if self.open is not None:
            self._fleet.interrupt(self._device, self.open.turn)

    def do(self, what: Errand) -> Any:
        """Have an errand done, between turns.

        Raises:
            WorkerLost: when the process that trains died meanwhile.
            Exception: what the errand raised.
        """
        number = self._next_number()
        self._fleet.ask(self._device, number, what)
        while True:
            found = self._fleet.next(_LISTEN_SECONDS)
            if found is None:
                continue
            match found[1]:
                case Answer(errand=errand) as answer if errand == number:
                    if answer.error is not None:
                        raise answer.error
                    return answer.value
                case Lost() as lost:
                    self._lose(lost, ())
                    raise WorkerLost(lost.reason)
                case _:
                    continue

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
            attempt=self._next_number(),
            steps=self._journal.progress_of(record).steps,
        )
        try:
            result = self._journal.when_room(lambda: self.do(errand))
        except WorkerLost:
            return []
        self._journal.inside.pop(run_id, None)
        if result is not None and result.is_being_saved:
            self._take([result])
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
        """Free the memory of runs; an error of it is logged and ends nothing."""
        for run_id in run_ids:
            self._journal.inside.pop(run_id, None)
        self._quietly(lambda: self.do(ReleaseRuns(run_ids=run_ids)))

    # ---- a turn

    def _train_alone(self, record: RunRecord, steps: int | None = None) -> float | None:
        """Returns the seconds that the device was at work; None when the turn gave nothing."""
        self._joined([record])
        try:
            return self._run([record], steps, is_joint=False)
        except _ENDS:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, one run fails and the others train on
            self._fail(record, error)
            return None

    def _train_together(self, group: Sequence[RunRecord], steps: int | None = None) -> float | None:
        self._joined(group)
        try:
            return self._run(group, steps, is_joint=True)
        except _ENDS:
            raise
        except BaseException:  # noqa: BLE001 - user code, a library: nobody's failure yet
            self._journal.log.error("a joint turn ended: %s", traceback.format_exc())
        self._train_in_turn(group, steps)
        return None

    def _train_in_turn(
        self, group: Sequence[RunRecord], steps: int | None = None
    ) -> list[float | None]:
        """Train each alone; one that was stopped or deleted during another's turn is left out."""
        seconds = []
        for run_id in [record.run_id for record in group]:
            record = self._journal.state.record(run_id)
            if record.state in READY:
                seconds.append(self._train_alone(record, steps))
        return seconds

    def _train_on_trial(self, group: Sequence[RunRecord]) -> None:
        """A turn in whichever way is faster.

        In the first turns of a group both are timed over a few steps.
        """
        trial = self._grouping.trial(group)
        way, steps = trial.next_way(), trial.next_steps()
        before = {record.run_id: self._journal.progress_of(record).steps for record in group}
        seconds: list[float | None] = []
        if way is Way.TOGETHER:
            seconds.append(self._train_together(group, steps))
        else:
            seconds += self._train_in_turn(group if steps is not None else group[:1], steps)
        if steps is None:
            return
        parked = [record for record in group if record.run_id in self._journal.inside]
        after = {record.run_id: self._journal.inside[record.run_id].steps for record in parked}
        if after == {run_id: done + steps for run_id, done in before.items()}:
            # Nobody reached a boundary or was interrupted: all that was timed are these steps.
            trial.trained(way, sum(one or 0.0 for one in seconds))
            if trial.is_over:
                self._journal.commit([Noted(text=trial.verdict(len(group)))])

    def _run(
        self, records: Sequence[RunRecord], steps: int | None, *, is_joint: bool
    ) -> float | None:
        """A turn, once there is room for what it writes.

        What it gave is committed in one transaction.
        """
        try:
            over = self._journal.when_room(lambda: self._attempt(records, steps, is_joint))
        except WorkerLost:
            return None
        self._take(over.results)
        set_up = sum(result.setup_seconds for result in over.results)
        return over.seconds - set_up if over.results else None

    def _attempt(self, records: Sequence[RunRecord], steps: int | None, is_joint: bool) -> TurnOver:
        number = self._next_number()
        requests = tuple(self._request(record, steps, number, is_joint) for record in records)
        ids = frozenset(record.run_id for record in records)
        self._fleet.begin(self._device, DeviceTurn(turn=number, requests=requests))
        self.open = OpenTurn(number, ids)
        try:
            while True:
                self._quietly(self._hear_letters)
                if self.is_ending:
                    self.interrupt()
                found = self._fleet.next(_LISTEN_SECONDS)
                if found is None:
                    continue
                match found[1]:
                    case TurnOver(turn=turn) as over if turn == number:
                        return over
                    case TurnFailed(turn=turn) as failed if turn == number:
                        raise failed.error
                    case Lost() as lost:
                        self._lose(lost, ids)
                        raise WorkerLost(lost.reason)
                    case _:
                        continue
        finally:
            self.open = None

    def _request(
        self, record: RunRecord, steps: int | None, attempt: int, is_joint: bool
    ) -> ChunkRequest:
        """The next turn of a run; of at most ``steps`` steps."""
        state = self._journal.state
        limits = [
            None if steps is None else self._journal.progress_of(record).steps + steps,
            None if self._script is None else self._script.next_steps(record.run_id),
        ]
        return ChunkRequest(
            run_id=record.run_id,
            config=record.config,
            progress=self._journal.boundary_of(record),
            continue_from=record.newest,
            warm_start=record.warm_start,
            fence=self._journal.fence,
            attempt=attempt,
            park_at=min((limit for limit in limits if limit is not None), default=None),
            is_joint=is_joint,
            saves_behind=self._script is None,  # a replay goes by what is committed
            is_judged=state.policy is not None and record.run_id not in state.pinned,
        )

    def _joined(self, group: Sequence[RunRecord]) -> None:
        """Let the panel show who trains with whom."""
        state = self._journal.state
        for record in group:
            others = tuple(one.run_id for one in group if one.run_id != record.run_id)
            if others:
                state.live.setdefault(record.run_id, LiveRun(record.progress)).fused_with = others
            elif record.run_id in state.live:
                state.live[record.run_id].fused_with = ()
        self._journal.publisher.changed()

    # ---- what comes back

    def _take(self, results: Sequence[ChunkResult]) -> None:
        """Commit what a turn gave, all of it in one transaction."""
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
            self._deaths.pop(result.run_id, None)
            if result.is_being_saved:
                self.behind.add(result)
            else:
                events += self.events_of(record, result)
        self.commit(events)
        if over:
            self.release(*over)

    def events_of(self, record: RunRecord, result: ChunkResult) -> list[Event]:
        """What a result gives."""
        alone_because = "" if result.is_joint else self._grouping.alone_because(record)
        return events_of(record, result, keep=self._keep, alone_because=alone_because)

    def _fall_back(self, record: RunRecord, reason: str) -> None:
        damaged = [saved.folder.path for saved in record.checkpoints[-1:]]
        self._journal.log.warning("run %d: %s", record.run_id, reason)
        self._journal.commit(fall_back(record, reason))
        self._removal.remove(damaged)

    def _fail(self, record: RunRecord, error: BaseException) -> None:
        """A turn raised what the runner did not expect."""
        text = redact("".join(traceback.format_exception(error)))
        failure = Failure(message=redact(f"{type(error).__name__}: {error}"), traceback=text)
        self._journal.log.error("run %d: %s", record.run_id, text)
        self._journal.commit([RunFailed(run_id=record.run_id, failure=failure)])
        self.release(record.run_id)

    def _lose(self, lost: Lost, training: Iterable[int]) -> None:
        """The process that trains died.

        What it held continues from its checkpoints, in a new one.
        """
        journal = self._journal
        self.behind.lose()
        journal.inside.clear()
        journal.state.live.clear()
        journal.log.error("the worker was lost: %s", lost.reason)
        if self.is_ending:
            return
        if not lost.was_ready:
            raise WorkerCannotStart(f"the worker process could not start: {lost.reason}.")
        events: list[Event] = [
            Noted(
                text=f"the process that trains ended: {lost.reason}. Its runs continue from their checkpoints."
            )
        ]
        for run_id in training:
            self._deaths[run_id] += 1
            if self._deaths[run_id] == _MOST_DEATHS:
                failure = Failure(
                    message=f"the process that trained it ended {_MOST_DEATHS} times: {lost.reason}",
                    traceback="",
                )
                events.append(RunFailed(run_id=run_id, failure=failure))
        journal.commit(events)
        self._fleet.restart(self._device)

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _quietly(self, tidy: Callable[[], object]) -> None:
        """Do what no run depends on; an error of it is logged and ends nothing."""
        try:
            tidy()
        except _ENDS:
            raise
        except BaseException:  # noqa: BLE001 - nothing depends on it
            self._journal.log.error("outside a turn: %s", traceback.format_exc())
