"""What happens between two steps: operations are obeyed, a run gets its turn, what it did is committed.

The engine has no thread: ``turn()`` does one turn, so a test turns it by hand. ``engine/thread.py`` is the shell.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, assert_never

from rf_notebook.core.errors import (
    CheckpointDamaged,
    ConfigError,
    IllegalOperation,
    LeaseLost,
    RFNotebookError,
    StoreError,
)
from rf_notebook.core.events import (
    BaseModelLoaded,
    CheckpointsRemoved,
    ChunkTrained,
    Event,
    ExperimentEnded,
    FunctionsRecorded,
    Noted,
    OperationObeyed,
    PolicyChanged,
    RunAdded,
    RunFailed,
    RunPinned,
    RunRolledBack,
    SamplesWritten,
    StateChanged,
    WarmStarted,
)
from rf_notebook.core.operations import CloneRun, DeleteRun, Operation, ResumeRun, StopRun, check_allowed, verb
from rf_notebook.core.ports import (
    ChunkRequest,
    ChunkResult,
    ChunkRunner,
    CommitObserver,
    CommitPoint,
    EventStore,
    SnapshotRequest,
    TurnOutcome,
    unobserved,
)
from rf_notebook.core.redaction import redact
from rf_notebook.core.run import READY, Failure, MetricPoint, Progress, RunConfig, RunState, StoredFolder
from rf_notebook.core.state import ExperimentState, LiveRun, RunRecord
from rf_notebook.core.values import Json
from rf_notebook.engine.autopilot import ApplyEdits, Autopilot
from rf_notebook.engine.keep import Keep, superseded
from rf_notebook.engine.mailbox import Letter, Mailbox
from rf_notebook.engine.publisher import Publisher
from rf_notebook.engine.requests import (
    AddRuns,
    Automate,
    CloseExperiment,
    ExportRun,
    GenerateTexts,
    LoadModel,
    PinRuns,
    Request,
    SetPaused,
    in_words,
)
from rf_notebook.engine.script import Script
from rf_notebook.planning.fusion import Execution, Fusible, Trial, Way, group_of
from rf_notebook.planning.scheduler import Candidate, Idle, Turn, next_turn
from rf_notebook.store import layout

ValueT = TypeVar("ValueT")


class Paused:
    """Runs want a turn and get none, because the user paused the experiment."""


class Closing(Exception):  # noqa: N818
    """Raised inside a turn that waits for room on the disk when the engine is to end."""


def _no_edits(_config: RunConfig, _edits: object) -> tuple[RunConfig, Mapping[str, Json]]:
    raise ConfigError("this engine was given no way to edit configs.")


class Engine:
    """One experiment's loop."""

    def __init__(
        self,
        store: EventStore,
        runner: ChunkRunner,
        state: ExperimentState,
        *,
        fence: int,
        publisher: Publisher | None = None,
        execution: str = Execution.EXACT,
        keep: Keep = Keep.BEST,
        observer: CommitObserver = unobserved,
        wait_for_room: Callable[[], bool] = lambda: True,
        script: Script | None = None,
        apply_edits: ApplyEdits = _no_edits,
        clock: Callable[[], float] = time.perf_counter,
        log: logging.Logger | None = None,
    ) -> None:
        """Take over an experiment whose lease this process holds.

        Args:
            store: Where events go.
            runner: Who trains.
            state: The fold of the store's events; this engine alone applies further ones.
            fence: Of the lease.
            publisher: Told of changes.
            execution: How runs share the device.
            keep: Which checkpoints stay.
            observer: For the crash tests.
            wait_for_room: Called while the disk is full, before the next try; False ends the engine.
            script: What is to be done at which steps, when this is a replay; the user's own operations wait for its end.
            apply_edits: Makes the config of a clone that a policy asks for.
            clock: Seconds, for execution="auto".
            log: The experiment's.
        """
        self._store = store
        self._runner = runner
        self.state = state
        self._fence = fence
        self.publisher = publisher or Publisher()
        self._execution = Execution(execution)
        self._trials: dict[tuple[str, int], Trial] = {}
        """Of execution="auto", by what the runs have in common and how many they are."""
        self._apply_edits = apply_edits
        self._clock = clock
        self._keep = keep
        self._observer = observer
        self._wait_for_room = wait_for_room
        self._log = log or logging.getLogger("rf_notebook.quiet")
        self.mailbox = Mailbox(on_letter=runner.interrupt)
        self.held_up: str | None = None
        """Why nothing moves at the moment: a full disk."""
        self.paused = False
        """Whether runs get no turns at the moment; changed by a letter, so that a run parks first."""
        self._autopilot: Autopilot | None = None
        self._is_closed = False
        """Whether the end is committed: what were trained after it would be lost."""
        self._in_chunk: set[int] = set()
        """Runs that stand inside a chunk: one that was interrupted, and in a replay those that wait for their operation."""
        self._script = script

    def turn(self) -> Turn | Idle | Paused:
        """Obey what lies in the mailbox, then give the next run its turn, unless the experiment is paused.

        Raises:
            LeaseLost: when another kernel took over; nothing may be written any more.
            Closing: when the engine was to end while it waited for room.
        """
        self._runner.rearm()
        while (letter := self.mailbox.take()) is not None:
            self._answer(letter)
        self._end_script()
        self._follow_script()
        self._follow_policy()
        waiting = [record for record in self.state.ready() if not self._waits_for_script(record)]
        chosen = next_turn(
            Candidate(
                run_id=record.run_id,
                samples_done=record.progress.samples,
                in_chunk=record.run_id in self._in_chunk,
            )
            for record in waiting
        )
        if isinstance(chosen, Idle):
            self._tell_verdict()
        if isinstance(chosen, Turn) and (self.paused or self._is_closed):
            return Paused()
        if isinstance(chosen, Turn):
            group = self._group(chosen.run_id, waiting)
            if len(group) == 1:
                self._train(group[0])
            elif self._execution is Execution.FUSED:
                self._train_together(group)
            else:
                self._train_on_trial(group)
        return chosen

    def pause(self, paused: bool) -> None:
        """Give no more turns, or give them again; called between two steps."""
        self.paused = paused
        self._log.info("paused" if paused else "going on")
        self.publisher.changed()

    def on_live(self, run_id: int, progress: Progress, point: MetricPoint | None) -> None:
        """The runner's listener: what is seen of a chunk before it is committed."""
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

    def commit(self, events: Sequence[Event]) -> None:
        """Write events in one transaction, then apply and publish them."""
        recorded = self._when_room(lambda: self._store.append(events, self._fence))
        for one in recorded:
            self.state.apply(one)
        self.publisher.committed(recorded)

    def new_runs(self, configs: Iterable[RunConfig]) -> list[RunAdded]:
        """The events that add a run for each config; an adapter that one starts from is copied into the experiment."""
        first = max(self.state.runs, default=0) + 1
        return [
            RunAdded(run_id=run_id, config=config, warm_start=self._adopted(run_id, config))
            for run_id, config in enumerate(configs, start=first)
        ]

    def generate(self, run_ids: Sequence[int], prompts: Sequence[str], settings: Mapping[str, Json]) -> list[list[str]]:
        """What the models of runs write to prompts, run by run; called between two steps."""
        written = []
        for run_id in run_ids:
            record = self.state.record(run_id)
            newest = record.checkpoints[-1].folder if record.checkpoints else None
            written.append(self._runner.generate(run_id, record.config, newest, prompts, settings))
        return written

    def close_experiment(self, *, cancelled: bool) -> None:
        """Commit what is trained but not committed, and that the experiment ended; called between two steps."""
        events: list[Event] = []
        for run_id in sorted(self._in_chunk):
            if self._runner.holds(run_id):
                events += self._saved(self.state.record(run_id))
        self._in_chunk.clear()
        self.commit([*events, ExperimentEnded(cancelled=cancelled)])
        self._is_closed = True

    # ---- a replay

    def _end_script(self) -> None:
        """At the place where the user wanted to go on, a replay pauses."""
        told = None if self._script is None else self._script.take_end(self.state)
        if told is not None:
            self.commit([Noted(text=told)])
            self.pause(True)

    def _follow_script(self) -> None:
        while self._script is not None:
            due = self._script.take_due(self.state, lambda run_id: self._live_progress(self.state.record(run_id)).steps)
            if due is None:
                return
            try:
                self._obey(due.operation, due.origin, due.reason)
            except RFNotebookError as error:
                text = f"the replay could not {verb(due.operation)} run {due.operation.run_id} at step {due.steps}: {error}"
                self.commit([Noted(text=text)])

    def _waits_for_script(self, record: RunRecord) -> bool:
        limit = None if self._script is None else self._script.next_steps(record.run_id)
        return limit is not None and self._live_progress(record).steps >= limit

    def _tell_verdict(self) -> None:
        verdict = None if self._script is None else self._script.take_verdict(self.state)
        if verdict is not None:
            self._log.info("%s", verdict)
            self.commit([Noted(text=verdict)])

    # ---- a policy

    def automate(self, autopilot: Autopilot | None) -> None:
        """Let a policy decide from now on, or none; called between two steps."""
        self._autopilot = autopilot
        name = None if autopilot is None else autopilot.name
        if name != self.state.policy:
            self.commit([PolicyChanged(name=name)])

    @property
    def waits_for(self) -> str:
        """What the policy at work waits for, in words; "" when none is, or it does not say."""
        return "" if self._autopilot is None else self._autopilot.waits_for

    def _follow_policy(self) -> None:
        """Ask the policy when a chunk was trained; one that raises is set aside, and the experiment goes on."""
        pilot = self._autopilot
        is_replay = self._script is not None and not self._script.is_over
        if pilot is None or self.paused or self._is_closed or is_replay or not pilot.is_due(self.state):
            return
        try:
            missing = pilot.missing(self.state)
            if missing:
                self._set_aside(pilot, missing)
                return
            decisions = pilot.decide(self.state)
        except (LeaseLost, Closing):
            raise
        except BaseException as error:  # noqa: BLE001 - the user's code, sys.exit() too
            self._log.warning("the policy %s raised: %s", pilot.name, traceback.format_exc())
            text = (
                f"the policy {pilot.name} was set aside: it raised {type(error).__name__}: {redact(str(error))[:300]}"
            )
            self.automate(None)
            self.commit([Noted(text=text)])
            return
        for operation, reason in decisions:
            try:
                self._obey(operation, pilot.name, reason)
            except RFNotebookError as error:
                self.commit([Noted(text=f"the policy {pilot.name} was refused: {error}", run_id=operation.run_id)])

    def _set_aside(self, pilot: Autopilot, missing: Mapping[str, Sequence[object]]) -> None:
        """Metrics that policies decide by never came: these policies end, and no run does."""
        logged = sorted({name for r in self.state.runs.values() for p in r.all_points() for name in p.metrics})
        named = ", ".join(map(repr, missing))
        text = f"the policy {pilot.name} was stopped: no run logs {named}. There are: {', '.join(logged)}."
        rest = pilot.without([part for parts in missing.values() for part in parts])
        if rest is not None:
            text += f" {rest.name} continues."
        self._log.warning("%s", text)
        self.automate(rest)
        self.commit([Noted(text=text)])

    # ---- operations

    def _answer(self, letter: Letter) -> None:
        self._log.info("%s: %s", letter.origin, in_words(letter.request))
        try:
            letter.future.set_result(self._answer_to(letter.request, letter.origin))
        except (LeaseLost, Closing) as error:
            letter.future.set_exception(error)
            raise
        except BaseException as error:  # noqa: BLE001 - a refusal is the answer; it must not stop the others
            self._log.info("refused: %s", error)
            letter.future.set_exception(error)
        self.publisher.changed()  # so that whoever asked is told at once, also of a refusal

    def _answer_to(self, request: Request, origin: str) -> Any:
        match request:
            case StopRun() | ResumeRun() | DeleteRun() | CloneRun():
                if self._script is not None and not self._script.is_over:
                    raise IllegalOperation(
                        f"cannot {verb(request)} run {request.run_id}: this is a replay, and recorded operations are still to come."
                    )
                return self._obey(request, origin)
            case SetPaused():
                self.pause(request.paused)
            case PinRuns():
                self.commit([RunPinned(run_id=one, pinned=request.pinned) for one in map(self._known, request.run_ids)])
            case Automate():
                self.automate(None if request.policy is None else Autopilot(request.policy, self._apply_edits))
            case GenerateTexts():
                return self.generate(request.run_ids, request.prompts, request.settings)
            case LoadModel():
                return self._runner.load(request.run_id, *self._newest(request.run_id))
            case ExportRun():
                config, newest = self._newest(request.run_id)
                self._runner.export(request.run_id, config, newest, request.path, merge=request.merge)
            case AddRuns():
                self.commit([*new_functions(request.functions, self.state), *self.new_runs(request.configs)])
            case CloseExperiment():
                self.close_experiment(cancelled=request.cancelled)
            case _:
                assert_never(request)
        return None

    def _known(self, run_id: int) -> int:
        return self.state.record(run_id).run_id

    def _newest(self, run_id: int) -> tuple[RunConfig, StoredFolder]:
        """The config of a run, and its newest checkpoint."""
        record = self.state.record(run_id)
        if not record.checkpoints:
            raise IllegalOperation(f"run {run_id} has no checkpoint yet; wait for its first chunk.")
        return record.config, record.checkpoints[-1].folder

    def _obey(self, operation: Operation, origin: str, reason: str = "") -> int:
        """Returns the id of the run that the operation was about, or made."""
        record = self.state.record(operation.run_id)
        progress = self._live_progress(record)
        check_allowed(operation, record.state, steps_done=progress.steps)
        obeyed = OperationObeyed(
            operation=replace(operation, functions={}) if isinstance(operation, CloneRun) else operation,
            steps=progress.steps,
            samples=progress.samples,
            origin=origin,
            run_state=record.state,
            reason=reason,
        )
        match operation:
            case StopRun():
                self._stop(record, obeyed)
            case ResumeRun():
                ready = RunState.RUNNING if record.progress.steps else RunState.QUEUED
                self.commit([obeyed, StateChanged(run_id=record.run_id, state=ready)])
            case DeleteRun():
                self._delete(record, obeyed)
            case CloneRun():
                return self._clone(record, operation, obeyed)
            case _:
                assert_never(operation)
        return record.run_id

    def _stop(self, record: RunRecord, obeyed: OperationObeyed) -> None:
        run_id = record.run_id
        events: list[Event] = [obeyed]
        if run_id in self._in_chunk and self._runner.holds(run_id):
            saved = self._saved(record)
            self._in_chunk.discard(run_id)
            failed = next((event for event in saved if isinstance(event, RunFailed)), None)
            if failed is not None:
                self.commit(saved)
                raise IllegalOperation(f"cannot stop run {run_id}: it failed. {failed.failure.message}")
            events += saved
        events.append(StateChanged(run_id=run_id, state=RunState.STOPPED))
        self.commit(events)

    def _delete(self, record: RunRecord, obeyed: OperationObeyed) -> None:
        run_id = record.run_id
        paths = [saved.folder.path for saved in record.checkpoints]
        if record.warm_start is not None:
            paths.append(record.warm_start.path)
        self.commit(
            [
                obeyed,
                CheckpointsRemoved(run_id=run_id, paths=tuple(paths), reason="the run was deleted"),
                StateChanged(run_id=run_id, state=RunState.DELETED),
            ]
        )
        self._in_chunk.discard(run_id)
        self._quietly(lambda: self._runner.release(run_id))
        self._quietly(lambda: self._runner.remove(run_id, paths))

    def _clone(self, parent: RunRecord, operation: CloneRun, obeyed: OperationObeyed) -> int:
        run_id = max(self.state.runs) + 1
        warnings = [
            Noted(text=f"run {run_id}: {text}", run_id=run_id) for text in self._runner.validate(operation.config)
        ]
        if operation.warm_start:
            request = SnapshotRequest(
                run_id=parent.run_id,
                config=parent.config,
                checkpoint=parent.checkpoints[-1].folder if parent.checkpoints else None,
                started_from=parent.warm_start,
                target=layout.warm_start(run_id),
                becomes_reference=operation.config.method != parent.config.method,
            )
            adapter: StoredFolder | None = self._when_room(lambda: self._runner.snapshot(request))
        else:
            adapter = self._adopted(run_id, operation.config)
        self.commit(
            [
                *new_functions(operation.functions, self.state),
                obeyed,
                RunAdded(
                    run_id=run_id,
                    config=operation.config,
                    parent_id=parent.run_id,
                    edits=operation.edits,
                    warm_start=adapter,
                ),
                *warnings,
            ]
        )
        return run_id

    def _adopted(self, run_id: int, config: RunConfig) -> StoredFolder | None:
        path = config.extras.get("warm_start_from")
        if path is None:
            return None
        return self._when_room(lambda: self._runner.adopt(path, layout.warm_start(run_id)))

    # ---- turns

    def _group(self, run_id: int, waiting: Sequence[RunRecord]) -> list[RunRecord]:
        """The runs that have their turn together."""
        if self._execution is Execution.EXACT:
            return [self.state.record(run_id)]
        fusible = [
            Fusible(
                run_id=record.run_id,
                key=self._runner.fusibility(record.run_id, record.config).key,
                chunks_done=record.progress.chunks,
            )
            for record in waiting
        ]
        return [self.state.record(one) for one in group_of(run_id, fusible)]

    def _request(self, record: RunRecord, steps: int | None = None) -> ChunkRequest:
        """The next turn of a run; of so many steps, if its chunk has that many."""
        limits = [
            None if steps is None else self._live_progress(record).steps + steps,
            None if self._script is None else self._script.next_steps(record.run_id),
        ]
        return ChunkRequest(
            run_id=record.run_id,
            config=record.config,
            progress=record.progress,
            continue_from=record.checkpoints[-1].folder if record.checkpoints else None,
            warm_start=record.warm_start,
            fence=self._fence,
            park_at=min((limit for limit in limits if limit is not None), default=None),
        )

    def _train_together(self, group: Sequence[RunRecord], steps: int | None = None) -> None:
        """A turn of several runs in joint steps; each that is done with its chunk is committed as ever."""
        ids = [record.run_id for record in group]
        self._in_chunk.update(ids)
        for record in group:
            live = self.state.live.setdefault(record.run_id, LiveRun(record.progress))
            live.fused_with = tuple(run_id for run_id in ids if run_id != record.run_id)
        self.publisher.changed()
        over = self._advanced_together([self._request(record, steps) for record in group])
        for run_id in over:
            self._train(self.state.record(run_id))

    def _advanced_together(self, requests: Sequence[ChunkRequest]) -> tuple[int, ...]:
        """The runs whose turn is over; all of them when something beyond any run failed: then each goes on alone."""
        try:
            return self._runner.train_together(requests)
        except (LeaseLost, Closing):
            raise
        except BaseException:  # noqa: BLE001 - user code, a library: nobody's failure yet
            self._log.error("a joint turn ended: %s", traceback.format_exc())
            return tuple(request.run_id for request in requests)

    def _train_on_trial(self, group: Sequence[RunRecord]) -> None:
        """A turn in whichever way is faster; in the first turns of a group both are timed over a few steps."""
        key = self._runner.fusibility(group[0].run_id, group[0].config).key
        assert key is not None
        trial = self._trials.setdefault((key, len(group)), Trial())
        way, steps = trial.next_way(), trial.next_steps()
        before = {record.run_id: self._live_progress(record).steps for record in group}
        started = self._clock()
        if way is Way.TOGETHER:
            self._train_together(group, steps)
        else:
            for record in group if steps is not None else group[:1]:
                self._train(record, steps)
        seconds = self._clock() - started
        if steps is None:
            return
        parked = [r for r in group if r.run_id in self._in_chunk]
        after = {r.run_id: self._live_progress(r).steps for r in parked}
        if after == {run_id: done + steps for run_id, done in before.items()}:
            # Nobody reached a boundary or was interrupted: all that was timed are these steps.
            trial.trained(way, seconds)
            if trial.is_over:
                self.commit([Noted(text=trial.verdict(len(group)))])

    def _train(self, record: RunRecord, steps: int | None = None) -> None:
        run_id = record.run_id
        live = self.state.live.get(run_id)
        if live is not None:
            live.fused_with = ()
        request = self._request(record, steps)
        self._in_chunk.add(run_id)
        try:
            result = self._when_room(lambda: self._runner.train(request))
        except CheckpointDamaged as error:
            self._in_chunk.discard(run_id)
            self._fall_back(record, str(error))
            return
        except (LeaseLost, Closing):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, one run fails and the others train on
            self._in_chunk.discard(run_id)
            self._fail(record, error)
            return
        if result.outcome is not TurnOutcome.INTERRUPTED:
            self._in_chunk.discard(run_id)
            self._take(record, result)

    def _fail(self, record: RunRecord, error: BaseException) -> None:
        """A turn raised what the runner did not expect."""
        text = redact("".join(traceback.format_exception(error)))
        failure = Failure(message=redact(f"{type(error).__name__}: {error}"), traceback=text)
        self._log.error("run %d: %s", record.run_id, text)
        self.commit([RunFailed(run_id=record.run_id, failure=failure)])
        self._quietly(lambda: self._runner.release(record.run_id))

    def _quietly(self, tidy: Callable[[], None]) -> None:
        """Free memory or delete files of what is committed already; an error of it is logged and ends nothing."""
        try:
            tidy()
        except BaseException:  # noqa: BLE001 - nothing depends on it
            self._log.error("tidying up: %s", traceback.format_exc())

    def _take(self, record: RunRecord, result: ChunkResult) -> None:
        """Commit what a turn gave."""
        if result.fence != self._fence:
            raise LeaseLost(f"a result of run {result.run_id} carries fence {result.fence}, not {self._fence}.")
        run_id = record.run_id
        events = self._trained(record, result)
        if result.outcome is TurnOutcome.FAILED:
            assert result.failure is not None
            events.append(RunFailed(run_id=run_id, failure=result.failure))
        elif result.outcome is TurnOutcome.COMPLETED:
            is_healthy = result.progress.diverged_at is None
            events.append(StateChanged(run_id=run_id, state=RunState.COMPLETED if is_healthy else RunState.DIVERGED))
        self.commit(events)
        removed = [path for event in events if isinstance(event, CheckpointsRemoved) for path in event.paths]
        if removed:
            self._quietly(lambda: self._runner.remove(run_id, removed))
            self._observer(CommitPoint.CHECKPOINTS_REMOVED)
        if result.outcome in (TurnOutcome.COMPLETED, TurnOutcome.FAILED):
            self._quietly(lambda: self._runner.release(run_id))

    def _saved(self, record: RunRecord) -> list[Event]:
        """The events of a run that is saved inside a chunk; the last is RunFailed when it cannot be saved."""
        result = self._when_room(lambda: self._runner.save(record.run_id, self._fence))
        events = self._trained(record, result)
        if result.failure is not None:
            events.append(RunFailed(run_id=record.run_id, failure=result.failure))
        return events

    def _trained(self, record: RunRecord, result: ChunkResult) -> list[Event]:
        """The events of a result, the checkpoints that it supersedes included."""
        run_id = record.run_id
        events: list[Event] = [BaseModelLoaded(model=model) for model in result.loaded]
        events += [Noted(text=text, run_id=run_id) for text in result.notes]
        if result.warm_start_report is not None:
            events.append(WarmStarted(run_id=run_id, report=result.warm_start_report))
        chunk = ChunkTrained(
            run_id=run_id,
            progress=result.progress,
            points=result.points,
            checkpoint=result.checkpoint,
            train_seconds=result.train_seconds,
            overhead_seconds=result.overhead_seconds,
            own_bytes=result.own_bytes,
            fused_with=result.fused_with,
            alone_because=self._alone_because(record, result),
        )
        events.append(chunk)
        if result.progress.diverged_at is not None and record.progress.diverged_at is None:
            text = f"run {run_id} diverged at step {result.progress.diverged_at}: its loss or gradients are NaN or infinite"
            events.append(Noted(text=text, run_id=run_id))
        if result.generations:
            at = result.progress
            written = SamplesWritten(run_id=run_id, steps=at.steps, samples=at.samples, generations=result.generations)
            events.append(written)
        after = ExperimentState()
        after.runs[run_id] = record
        after.advance(chunk)
        now = after.record(run_id)
        old = superseded(now.checkpoints, now.all_points(), self._keep, now.config.method)
        if old:
            events.append(CheckpointsRemoved(run_id=run_id, paths=old, reason="newer ones took their place"))
        return events

    def _alone_because(self, record: RunRecord, result: ChunkResult) -> str:
        if self._execution is Execution.EXACT or result.fused_with:
            return ""
        return self._runner.fusibility(record.run_id, record.config).reason

    def _fall_back(self, record: RunRecord, reason: str) -> None:
        """Go on from the checkpoint before a damaged one."""
        run_id = record.run_id
        if not record.checkpoints:
            failure = Failure(message=f"the adapter to start from is damaged: {reason}", traceback="")
            self.commit([RunFailed(run_id=run_id, failure=failure)])
            return
        *before, damaged = record.checkpoints
        progress = before[-1].progress if before else Progress()
        where = f"step {progress.steps}" if before else "its beginning"
        text = f"run {run_id} goes on from {where}: {reason}"
        self._log.warning(text)
        self.commit(
            [
                RunRolledBack(run_id=run_id, damaged=damaged.folder.path, progress=progress, reason=reason),
                Noted(text=text, run_id=run_id),
            ]
        )
        self._quietly(lambda: self._runner.remove(run_id, [damaged.folder.path]))

    # ---- room on the disk

    def _when_room(self, do: Callable[[], ValueT]) -> ValueT:
        """Do something that writes; while the disk takes nothing, full or broken, wait and do it again."""
        while True:
            try:
                value = do()
            except LeaseLost:
                raise
            except StoreError as error:  # StorageFull among them
                if self.held_up is None:
                    self._log.warning("held up: %s", error)
                self.held_up = str(error)
                self.publisher.changed()
                if not self._wait_for_room():
                    raise Closing(str(error)) from error
            else:
                if self.held_up is not None:
                    self._log.info("there is room again")
                    self.held_up = None
                    self.publisher.changed()
                return value

    def _live_progress(self, record: RunRecord) -> Progress:
        live = self.state.live.get(record.run_id)
        if live is None or record.state not in READY:
            return record.progress
        return live.progress


def new_functions(sources: Mapping[str, str], state: ExperimentState) -> list[Event]:
    """What records the functions that are not recorded as they are now."""
    new = {name: source for name, source in sources.items() if state.functions.get(name) != source}
    return [FunctionsRecorded(functions=new)] if new else []
