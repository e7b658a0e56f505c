"""What is committed, and what is true at this moment.

The state, the store behind it, and the one who may write.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from rf_notebook.core.errors import LeaseLost, StoreError
from rf_notebook.core.events import Event, FunctionsRecorded, Recorded
from rf_notebook.core.run import READY, MetricPoint, Progress
from rf_notebook.core.state import ExperimentState, LiveRun, RunRecord

if TYPE_CHECKING:
    from rf_notebook.core.ports import EventStore
    from rf_notebook.engine.publisher import Publisher

ValueT = TypeVar("ValueT")


class Closing(Exception):  # noqa: N818
    """Raised inside a turn that waits for room on the disk when the engine is to end."""


class Journal:
    """The record as the engine writes it; used by the engine's thread alone."""

    def __init__(
        self,
        store: EventStore,
        state: ExperimentState,
        *,
        fence: int,
        publisher: Publisher,
        wait_for_room: Callable[[], bool],
        log: logging.Logger,
    ) -> None:
        """A journal of an experiment whose lease this process holds.

        Args:
            store: Where events go.
            state: The fold of the store's events; further ones are applied here alone.
            fence: The lease's fence.
            publisher: Told of changes.
            wait_for_room: Called while the disk is full, before the next try; False ends the
                engine.
            log: The experiment's.
        """
        self.state = state
        self.fence = fence
        self.publisher = publisher
        self.log = log
        self.held_up: str | None = None
        """Why nothing moves at the moment: a full disk."""
        self.inside: dict[int, Progress] = {}
        """Runs that stand inside a chunk, and where: one that was interrupted, and in a replay
        those that wait."""
        self.saving: dict[int, Progress] = {}
        """Runs that reached a boundary whose checkpoint is being written."""
        self._store = store
        self.wait_for_room = wait_for_room
        """Waits while the disk is full; False when the engine is to end."""

    def commit(self, events: Sequence[Event]) -> None:
        """Write events in one transaction, then apply and publish them."""
        self._apply(self.when_room(lambda: self._store.append(events, self.fence)))

    def commit_at_once(self, events: Sequence[Event]) -> bool:
        """As ``commit``, where nothing can be waited for; False when that did not succeed."""
        try:
            recorded = self._store.append(events, self.fence)
        except (LeaseLost, StoreError):
            return False
        self._apply(recorded)
        return True

    def _apply(self, recorded: Sequence[Recorded]) -> None:
        for one in recorded:
            self.state.apply(one)
        self.publisher.committed(recorded)

    def when_room(self, do: Callable[[], ValueT]) -> ValueT:
        """Do something that writes.

        While the disk takes nothing, full or broken, wait and do it again.

        Raises:
            LeaseLost: when another kernel took over.
            Closing: when the engine is to end.
        """
        while True:
            try:
                value = do()
            except LeaseLost:
                raise
            except StoreError as error:  # StorageFull among them
                if self.held_up is None:
                    self.log.warning("held up: %s", error)
                self.held_up = str(error)
                self.publisher.changed()
                if not self.wait_for_room():
                    raise Closing(str(error)) from error
            else:
                if self.held_up is not None:
                    self.log.info("there is room again")
                    self.held_up = None
                    self.publisher.changed()
                return value

    def progress_of(self, record: RunRecord) -> Progress:
        """Where a run stands, what is not committed included."""
        if record.state not in READY:
            return record.progress
        return self.inside.get(record.run_id) or self.boundary_of(record)

    def boundary_of(self, record: RunRecord) -> Progress:
        """Where a run stood when its newest turn ended, whether it is committed or being saved."""
        return self.saving.get(record.run_id, record.progress)

    def on_live(self, run_id: int, progress: Progress, point: MetricPoint | None) -> None:
        """See LiveListener: what is seen of a chunk before it is committed.

        No decision depends on it.
        """
        live = self.state.live.get(run_id)
        if live is None:
            live = self.state.live[run_id] = LiveRun(progress)
        live.progress = progress
        if point is not None:
            if live.points and live.points[-1].step == point.step:
                live.points[-1] = point
            else:
                live.points.append(point)
        self.publisher.changed()


def new_functions(sources: Mapping[str, str], state: ExperimentState) -> list[Event]:
    """What records the functions that are not recorded as they are now."""
    new = {name: source for name, source in sources.items() if state.functions.get(name) != source}
    return [FunctionsRecorded(functions=new)] if new else []
