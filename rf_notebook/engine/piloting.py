"""How does a policy lead the runs? It is asked between two turns, and what it decides is obeyed.

It is asked at once when a chunk was trained, also while its checkpoints are being written. What it
decides waits for them: a kill must find the chunk and the decision, or neither. Only the runs that
it stops wait with it; the others train on.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import LeaseLost, RFNotebookError
from rf_notebook.core.events import Noted, PolicyChanged
from rf_notebook.core.operations import Operation, StopRun
from rf_notebook.core.redaction import redact
from rf_notebook.engine.journal import Closing

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState
    from rf_notebook.engine.autopilot import Autopilot
    from rf_notebook.engine.behind import Behind
    from rf_notebook.engine.devices import Device
    from rf_notebook.engine.journal import Journal
    from rf_notebook.engine.operations import Operations


class Piloting:
    """Of one engine."""

    def __init__(
        self,
        journal: Journal,
        operations: Operations,
        behind: Behind,
        stand: Callable[[Iterable[Device]], bool],
        log: logging.Logger,
    ) -> None:
        """No policy is at work.

        Args:
            journal: The record.
            operations: Obeys what is decided.
            behind: What is being written.
            stand: See Turns.
            log: The experiment's.
        """
        self._journal = journal
        self._operations = operations
        self._behind = behind
        self._stand = stand
        self._log = log
        self._pilot: Autopilot | None = None
        self._decided: list[tuple[Operation, str]] = []
        """What waits for checkpoints and for devices to stand, each with its reason."""
        self._decided_at: dict[int, int] = {}
        """By run: the steps after which that was decided."""

    @property
    def waits_for(self) -> str:
        """What the policy waits for, in words; "" when there is none, or it does not say."""
        return "" if self._pilot is None else self._pilot.waits_for

    @property
    def is_deciding(self) -> bool:
        """Whether something that was decided is not obeyed yet."""
        return bool(self._decided)

    @property
    def holds(self) -> bool:
        """Whether nobody may begin a turn until what was decided is obeyed."""
        return bool(self._decided) and not self._can_wait(self._decided, self._behind.foreseen())

    @property
    def leaving(self) -> frozenset[int]:
        """Runs that are stopped as soon as their checkpoints are written; they take no turns."""
        return frozenset(
            operation.run_id for operation, _ in self._decided if isinstance(operation, StopRun)
        )

    def next_chunk(self) -> int | None:
        """The chunk that runs may train now, where a policy compares them only when all have it.

        None when each trains on as it comes.
        """
        if self._pilot is None or not self._pilot.is_barrier:
            return None
        done = [
            self._journal.boundary_of(record).chunks
            for record in self._journal.state.ready()
            if record.run_id not in self.leaving
        ]
        return min(done, default=None)

    def automate(self, pilot: Autopilot | None) -> None:
        """Let a policy decide from now on, or none."""
        self._pilot = pilot
        name = None if pilot is None else pilot.name
        if name != self._journal.state.policy:
            self._journal.commit([PolicyChanged(name=name)])

    def obey(self) -> None:
        """Obey what was decided, as soon as the checkpoints that it waits for are written.

        The devices that it is about stand between two turns then.
        """
        if not self._decided or any(run_id in self._behind.runs for run_id in self._decided_at):
            return
        state = self._journal.state
        at = self._decided_at.items()
        if any(state.record(run_id).progress.steps < steps for run_id, steps in at):
            # The process that wrote them died: they are trained again.
            self._decided, self._decided_at = [], {}
            if self._pilot is not None:
                self._pilot.ask_again()
            return
        needed = {device for one, _ in self._decided for device in self._operations.needs(one)}
        if self._stand(needed):
            decided, self._decided, self._decided_at = self._decided, [], {}
            self._obey(decided)

    def follow(self) -> None:
        """Ask the policy when a chunk was trained.

        One that raises is set aside, and the experiment continues.
        """
        pilot = self._pilot
        if pilot is None:
            return
        foreseen = self._behind.foreseen()
        if not pilot.is_due(foreseen):
            return
        if self._decided:
            self._behind.settle(waits=True)
            self.obey()
            if self._decided:  # devices are still to stand
                pilot.ask_again()
                return
            foreseen = self._behind.foreseen()
        try:
            missing = pilot.missing(foreseen)
            decided = [] if missing else pilot.decide(foreseen)
        except (LeaseLost, Closing):
            raise
        except BaseException as error:  # noqa: BLE001 - the user's code, sys.exit() too
            self._log.warning("the policy %s raised: %s", pilot.name, traceback.format_exc())
            text = f"the policy {pilot.name} was set aside: it raised {type(error).__name__}: {redact(str(error))[:300]}"
            self.automate(None)
            self._journal.commit([Noted(text=text)])
            return
        if missing:
            self._behind.settle(waits=True)
            self._set_aside(pilot, missing)
        elif decided:
            self._decided = decided
            self._decided_at = {
                run_id: foreseen.record(run_id).progress.steps for run_id in self._behind.runs
            }
            if not self._can_wait(decided, foreseen):
                self._behind.settle(waits=True)
                self.obey()

    def _can_wait(
        self, decided: Sequence[tuple[Operation, str]], foreseen: ExperimentState
    ) -> bool:
        """Whether others can train until what was decided is obeyed."""
        stopped = {one.run_id for one, _ in decided if isinstance(one, StopRun)}
        is_all = len(stopped) == len(decided)
        others = [record for record in foreseen.ready() if record.run_id not in stopped]
        return bool(decided and is_all and self._behind.runs and others)

    def _obey(self, decided: Sequence[tuple[Operation, str]]) -> None:
        name = "" if self._pilot is None else self._pilot.name
        for operation, reason in decided:
            try:
                self._operations.obey(operation, name, reason)
            except RFNotebookError as error:
                text = f"the policy {name} was refused: {error}"
                self._journal.commit([Noted(text=text, run_id=operation.run_id)])

    def _set_aside(self, pilot: Autopilot, missing: Mapping[str, Sequence[Any]]) -> None:
        """Metrics that policies decide by never came: these policies end, and no run does."""
        records = self._journal.state.runs.values()
        logged = sorted({name for r in records for p in r.all_points() for name in p.metrics})
        named = ", ".join(map(repr, missing))
        text = f"the policy {pilot.name} was stopped: no run logs {named}. There are: {', '.join(logged)}."
        rest = pilot.without([part for parts in missing.values() for part in parts])
        if rest is not None:
            text += f" {rest.name} continues."
        self._log.warning("%s", text)
        self.automate(rest)
        self._journal.commit([Noted(text=text)])
