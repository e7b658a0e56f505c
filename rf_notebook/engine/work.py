"""What does a device do, turn after turn?

One run, several in joint steps, or both ways on trial. Each is a generator: it says what to train
next, and is told what that gave, so that every device is where it is while the others are heard.
"""

from __future__ import annotations

import traceback
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from rf_notebook.core.events import Noted
from rf_notebook.core.run import READY
from rf_notebook.core.state import LiveRun
from rf_notebook.engine.devices import AskedTurn
from rf_notebook.engine.taking import ENDS
from rf_notebook.planning.fusion import Way

if TYPE_CHECKING:
    from rf_notebook.core.fleet import TurnOver
    from rf_notebook.core.state import RunRecord
    from rf_notebook.engine.devices import Device
    from rf_notebook.engine.grouping import Grouping
    from rf_notebook.engine.journal import Journal
    from rf_notebook.engine.taking import Taking


class Work:
    """Of one device, from the moment that it is free to when it is free again."""

    def __init__(
        self, device: Device, journal: Journal, grouping: Grouping, taking: Taking
    ) -> None:
        """Nothing is asked for yet.

        Args:
            device: Who works.
            journal: Says where runs stand.
            grouping: Says who trains with whom.
            taking: Takes what turns give.
        """
        self._device = device
        self._journal = journal
        self._grouping = grouping
        self._taking = taking

    def of(self, group: Sequence[RunRecord]) -> Generator[AskedTurn, TurnOver, Any]:
        """The turns of a group, or of one run."""
        match self._grouping.way(group):
            case Way.ALONE:
                yield from self._train_alone(group[0])
            case Way.TOGETHER:
                yield from self._train_together(group)
            case None:
                yield from self._train_on_trial(group)

    def _train_alone(
        self, record: RunRecord, steps: int | None = None
    ) -> Generator[AskedTurn, TurnOver, float | None]:
        """Returns the seconds that the device was at work; None when the turn gave nothing."""
        self._joined([record])
        try:
            return (yield from self._run([record], steps, is_joint=False))
        except ENDS:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, one run fails and the others train on
            self._taking.fail(record, error)
            return None

    def _train_together(
        self, group: Sequence[RunRecord], steps: int | None = None
    ) -> Generator[AskedTurn, TurnOver, float | None]:
        self._joined(group)
        try:
            return (yield from self._run(group, steps, is_joint=True))
        except ENDS:
            raise
        except BaseException:  # noqa: BLE001 - user code, a library: nobody's failure yet
            self._journal.log.error("a joint turn ended: %s", traceback.format_exc())
        yield from self._train_in_turn(group, steps)
        return None

    def _train_in_turn(
        self, group: Sequence[RunRecord], steps: int | None = None
    ) -> Generator[AskedTurn, TurnOver, list[float | None]]:
        """Train each alone; one that was stopped or deleted during another's turn is left out."""
        seconds = []
        for run_id in [record.run_id for record in group]:
            record = self._journal.state.record(run_id)
            if record.state in READY:
                seconds.append((yield from self._train_alone(record, steps)))
        return seconds

    def _train_on_trial(self, group: Sequence[RunRecord]) -> Generator[AskedTurn, TurnOver, Any]:
        """A turn in whichever way is faster.

        In the first turns of a group both are timed over a few steps.
        """
        trial = self._grouping.trial(group)
        way, steps = trial.next_way(), trial.next_steps()
        before = {record.run_id: self._journal.progress_of(record).steps for record in group}
        seconds: list[float | None] = []
        if way is Way.TOGETHER:
            seconds.append((yield from self._train_together(group, steps)))
        else:
            some = group if steps is not None else group[:1]
            seconds += yield from self._train_in_turn(some, steps)
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
    ) -> Generator[AskedTurn, TurnOver, float | None]:
        """A turn, once there is room for what it writes.

        What it gave is committed in one transaction.
        """
        run_ids = tuple(record.run_id for record in records)
        over = yield AskedTurn(run_ids, steps, is_joint)
        self._taking.take(self._device, over.results)
        set_up = sum(result.setup_seconds for result in over.results)
        return over.seconds - set_up if over.results else None

    def _joined(self, group: Sequence[RunRecord]) -> None:
        """Let the panel show who trains with whom."""
        state = self._journal.state
        for record in group:
            others = tuple(one.run_id for one in group if one.run_id != record.run_id)
            if others and self._grouping.is_joint:
                state.live.setdefault(record.run_id, LiveRun(record.progress)).fused_with = others
            elif record.run_id in state.live:
                state.live[record.run_id].fused_with = ()
        self._journal.publisher.changed()
