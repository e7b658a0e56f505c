"""How is an operation obeyed?

Checked against the run's state, then committed with its effects in one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from rf_notebook.core.errors import ConfigError, IllegalOperation
from rf_notebook.core.events import (
    CheckpointsRemoved,
    Event,
    Noted,
    OperationObeyed,
    RunAdded,
    RunFailed,
    StateChanged,
)
from rf_notebook.core.operations import (
    CloneRun,
    DeleteRun,
    Operation,
    ResumeRun,
    StopRun,
    check_allowed,
)
from rf_notebook.core.run import RunConfig, RunState, StoredFolder
from rf_notebook.core.runner import ConfigRules, SnapshotRequest
from rf_notebook.core.values import text
from rf_notebook.engine.journal import Journal, new_functions
from rf_notebook.store import layout
from rf_notebook.store.adapters import adopt_adapter

if TYPE_CHECKING:
    from rf_notebook.core.state import RunRecord
    from rf_notebook.engine.devices import Device, Devices
    from rf_notebook.engine.taking import Taking


class Operations:
    """Obeys operations between two turns."""

    def __init__(
        self,
        journal: Journal,
        taking: Taking,
        devices: Devices,
        rules: ConfigRules,
        folder: Path,
    ) -> None:
        """Nothing was asked yet.

        Args:
            journal: Takes the operations and their effects.
            taking: Commits, and saves and releases runs.
            devices: Who holds the runs.
            rules: Refuses configs that cannot be trained.
            folder: The experiment's folder.
        """
        self._journal = journal
        self._taking = taking
        self._devices = devices
        self._rules = rules
        self._folder = folder
        self._copies = 0
        """Of adapters that runs start from."""

    def needs(self, operation: Operation) -> set[Device]:
        """The devices that have to stand between two turns when an operation is obeyed."""
        run_id = operation.run_id
        home = self._devices.homes.get(run_id)
        match operation:
            case StopRun() | ResumeRun():
                if home is None:
                    return set()
                is_training = home.turn is not None and run_id in home.run_ids
                is_unsaved = run_id in self._journal.inside or run_id in self._journal.saving
                return {home} if is_training or is_unsaved else set()
            case DeleteRun():
                return set() if home is None else {home}
            case CloneRun():
                return {self._devices.home(run_id)} if operation.warm_start else set()
            case _:
                assert_never(operation)

    def obey(self, operation: Operation, origin: str, reason: str = "") -> int:
        """Obey an operation; returns the id of the run that it was about, or that it made.

        Args:
            operation: What is asked.
            origin: Who asks: "python", "magic", "button", or a policy's name.
            reason: A policy's.

        Raises:
            UnknownRun: when there is no such run.
            IllegalOperation: when the run's state does not allow it.
            ConfigError: for a clone that cannot be trained.
        """
        record = self._journal.state.record(operation.run_id)
        progress = self._journal.progress_of(record)
        check_allowed(operation, record.state, steps_done=progress.steps)
        obeyed = OperationObeyed(
            operation=replace(operation, functions={})
            if isinstance(operation, CloneRun)
            else operation,
            steps=progress.steps,
            samples=progress.samples,
            origin=origin,
            run_state=_state_at(record.state, progress.steps),
            reason=reason,
        )
        match operation:
            case StopRun():
                self._stop(record, obeyed)
            case ResumeRun():
                ready = RunState.RUNNING if record.progress.steps else RunState.QUEUED
                self._journal.commit([obeyed, StateChanged(run_id=record.run_id, state=ready)])
            case DeleteRun():
                self._delete(record, obeyed)
            case CloneRun():
                return self._clone(record, operation, obeyed)
            case _:
                assert_never(operation)
        return record.run_id

    def new_runs(self, configs: Iterable[RunConfig]) -> list[RunAdded]:
        """The events that add a run for each config.

        An adapter that one starts from is copied into the experiment.
        """
        first = max(self._journal.state.runs, default=0) + 1
        return [
            RunAdded(run_id=run_id, config=config, warm_start=self._adopted(run_id, config))
            for run_id, config in enumerate(configs, start=first)
        ]

    def _stop(self, record: RunRecord, obeyed: OperationObeyed) -> None:
        saved = self._taking.save(record)
        failed = next((event for event in saved if isinstance(event, RunFailed)), None)
        if failed is not None:
            self._taking.commit(saved)
            raise IllegalOperation(
                f"cannot stop run {record.run_id}: it failed. {failed.failure.message}"
            )
        self._taking.commit(
            [obeyed, *saved, StateChanged(run_id=record.run_id, state=RunState.STOPPED)]
        )

    def _delete(self, record: RunRecord, obeyed: OperationObeyed) -> None:
        run_id = record.run_id
        paths = [saved.folder.path for saved in record.checkpoints]
        if record.warm_start is not None:
            paths.append(record.warm_start.path)
        self._taking.commit(
            [
                obeyed,
                CheckpointsRemoved(run_id=run_id, paths=tuple(paths), reason="the run was deleted"),
                StateChanged(run_id=run_id, state=RunState.DELETED),
            ]
        )
        self._taking.release(run_id)

    def _clone(self, parent: RunRecord, operation: CloneRun, obeyed: OperationObeyed) -> int:
        run_id = max(self._journal.state.runs) + 1
        gpus = max(facts.gpus for facts in self._devices.fleet.devices())
        if "num_gpus" in operation.edits and operation.config.num_gpus > gpus:
            raise ConfigError(
                f"the clone has num_gpus={operation.config.num_gpus}, and runs train on {gpus} here; "
                "start an experiment with devices=[('cuda:0', 'cuda:1'), ...]."
            )
        warnings: list[Event] = [
            Noted(text=f"run {run_id}: {text}", run_id=run_id)
            for text in self._rules.validate(operation.config)
        ]
        if operation.warm_start:
            request = SnapshotRequest(
                run_id=parent.run_id,
                config=parent.config,
                checkpoint=parent.newest,
                started_from=parent.warm_start,
                target=self._place(run_id),
                becomes_reference=operation.config.method != parent.config.method,
            )
            adapter: StoredFolder | None = self._journal.when_room(
                lambda: self._devices.do_for(parent.run_id, request)
            )
        else:
            adapter = self._adopted(run_id, operation.config)
        added = RunAdded(
            run_id=run_id,
            config=operation.config,
            parent_id=parent.run_id,
            edits=operation.edits,
            warm_start=adapter,
        )
        self._journal.commit(
            [*new_functions(operation.functions, self._journal.state), obeyed, added, *warnings]
        )
        return run_id

    def _adopted(self, run_id: int, config: RunConfig) -> StoredFolder | None:
        path = config.extras.get("warm_start_from")
        if path is None:
            return None
        return self._journal.when_room(
            lambda: adopt_adapter(self._folder, Path(text(path)), self._place(run_id))
        )

    def _place(self, run_id: int) -> str:
        """Where the adapter lies that a run starts from; no two attempts have one place."""
        self._copies += 1
        return layout.warm_start(run_id, self._journal.fence, self._copies)


def _state_at(state: RunState, steps: int) -> RunState:
    """A run that has trained is running, whether or not its first chunk is committed by now.

    When that is done is a matter of time, and a replay has other times.
    """
    return RunState.RUNNING if state is RunState.QUEUED and steps else state
