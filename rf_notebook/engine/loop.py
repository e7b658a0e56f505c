"""What happens between two turns.

Requests are answered, free devices get their turns, what they did is committed.

The engine has no thread: ``turn()`` goes on until a device has done its work, so a test turns it by
hand. ``engine/thread.py`` is the shell.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

from rf_notebook.core.errors import ConfigError, IllegalOperation, LeaseLost, RFNotebookError
from rf_notebook.core.events import (
    Event,
    ExperimentEnded,
    Noted,
    RunAdded,
    RunPinned,
)
from rf_notebook.core.operations import CloneRun, DeleteRun, ResumeRun, StopRun, verb
from rf_notebook.core.ports import CommitObserver, EventStore, unobserved
from rf_notebook.core.runner import (
    ChunkRunner,
    ConfigRules,
    ModelOfRun,
    ReadModel,
    WriteModel,
    WriteTexts,
)
from rf_notebook.engine.autopilot import ApplyEdits, Autopilot
from rf_notebook.engine.devices import Device, Devices
from rf_notebook.engine.grouping import Grouping
from rf_notebook.engine.journal import Closing, Journal, new_functions
from rf_notebook.engine.keep import Keep
from rf_notebook.engine.mailbox import Letter, Mailbox
from rf_notebook.engine.operations import Operations
from rf_notebook.engine.piloting import Piloting
from rf_notebook.engine.publisher import Publisher
from rf_notebook.engine.removal import Removal
from rf_notebook.engine.requests import (
    AddRuns,
    Automate,
    CloseExperiment,
    ExportRun,
    GenerateTexts,
    LabelRuns,
    LoadModel,
    PinRuns,
    Request,
    SetPaused,
    in_words,
)
from rf_notebook.engine.taking import Taking
from rf_notebook.engine.turns import Idle, Paused, Turn, Turns
from rf_notebook.planning.fusion import Execution
from rf_notebook.runners.in_kernel import KernelFleet

if TYPE_CHECKING:
    from rf_notebook.core.fleet import Fleet
    from rf_notebook.core.run import MetricPoint, Progress, RunConfig, StoredFolder
    from rf_notebook.core.state import ExperimentState, RunRecord
    from rf_notebook.core.status import DeviceStatus
    from rf_notebook.core.values import Json
    from rf_notebook.engine.script import Script


def _no_edits(_config: RunConfig, _edits: object) -> tuple[RunConfig, Mapping[str, Json]]:
    raise ConfigError("this engine was given no way to edit configs.")


class Engine:
    """One experiment's loop."""

    def __init__(
        self,
        store: EventStore,
        fleet: Fleet | ChunkRunner,
        state: ExperimentState,
        *,
        fence: int,
        folder: Path | None = None,
        rules: ConfigRules | None = None,
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
            fleet: Who trains; a runner trains in the thread that turns the engine.
            state: The fold of the store's events; this engine alone applies further ones.
            fence: The lease's fence.
            folder: The experiment's folder; the runner's own when omitted.
            rules: What is known of configs; the runner's own when omitted.
            publisher: Told of changes.
            execution: How runs share the device.
            keep: Which checkpoints stay.
            observer: For the crash tests.
            wait_for_room: Called while the disk is full, before the next try; False ends the
                engine.
            script: What is to be done at which steps, when this is a replay; the user's own
                operations wait for its end.
            apply_edits: Makes the config of a clone that a policy asks for.
            clock: Seconds, for execution="auto".
            log: The experiment's.
        """
        given: Any = fleet
        rules, folder = rules or given, folder or given.folder
        self.fleet: Fleet = given if hasattr(given, "begin") else KernelFleet(given, clock=clock)
        self.fleet.listener = self.on_live
        self.mailbox = Mailbox(on_letter=self.fleet.wake)
        self.paused = False
        """Whether runs get no turns at the moment; changed by a letter, so that a run parks first."""
        self._log = log or logging.getLogger("rf_notebook.quiet")
        self._journal = Journal(
            store,
            state,
            fence=fence,
            publisher=publisher or Publisher(),
            wait_for_room=wait_for_room,
            log=self._log,
        )
        self._removal = Removal(folder, observer, self._log)
        is_spread = any(facts.gpus > 1 for facts in self.fleet.devices())
        self._grouping = Grouping(rules, Execution(execution), is_spread=is_spread)
        self._devices = Devices(self.fleet)
        self._taking = Taking(
            self._devices, self._journal, self._grouping, keep=keep, removal=self._removal
        )
        self._turns = Turns(self._devices, self._journal, self._grouping, self._taking, script)
        self._operations = Operations(self._journal, self._taking, self._devices, rules, folder)
        self._apply_edits = apply_edits
        self._piloting = Piloting(
            self._journal, self._operations, self._taking.behind, self._turns.stand, self._log
        )
        self._is_closed = False
        """Whether the end is committed: what were trained after it would be lost."""
        self._script = script

    @property
    def state(self) -> ExperimentState:
        """The experiment's."""
        return self._journal.state

    @property
    def publisher(self) -> Publisher:
        """Told of changes."""
        return self._journal.publisher

    @property
    def held_up(self) -> str | None:
        """Why a device, or everything, does not move at the moment: a full disk."""
        held_up = [one for one in self._devices.all if one.held_up]
        if self._journal.held_up or not held_up:
            return self._journal.held_up
        name = f"{held_up[0].name}: " if len(self._devices.all) > 1 else ""
        return f"{name}{held_up[0].held_up}"

    @property
    def devices(self) -> tuple[DeviceStatus, ...]:
        """What the devices of worker processes do; any thread."""
        return self._devices.statuses()

    @property
    def waits_for(self) -> str:
        """What the policy at work waits for, in words; "" when none is, or it does not say."""
        return self._piloting.waits_for

    def turn(self) -> Turn | Idle | Paused:
        """Answer the requests in the mailbox, give free devices their turns, and wait for one.

        Returns:
            The run whose device has done its work, or that some device can be given work again.

        Raises:
            LeaseLost: when another kernel took over; nothing may be written any more.
            Closing: when the engine was to end while it waited for room.
        """
        self._turns.stand(())
        self._do_what_is_due()
        while self._devices.has_unheard:  # came while something else was waited for
            self._turns.hear()
            self._do_what_is_due()
        self._turns.move_out()
        waiting = self._turns.waiting(self._piloting.leaving)
        rests = self.paused or self._is_closed or self._turns.is_ending
        if not rests and not self._is_held_back():
            self._turns.give(waiting, self._piloting.next_chunk())
        if self._devices.working:
            return self._listen()
        if waiting and rests:
            return Paused()
        self._tell_verdict()
        self._removal.settle()
        return Idle()

    def _do_what_is_due(self) -> None:
        """Obey requests, the script and the policy."""
        self._settle()
        if not self._answer_letters():
            return
        self._end_script()
        self._follow_script()
        is_replay = self._script is not None and not self._script.is_over
        if not (self.paused or self._is_closed or is_replay):
            self._piloting.follow()

    def _is_held_back(self) -> bool:
        """Whether what was asked or decided has to be obeyed before anybody begins a turn."""
        is_led = self._script is not None or self.state.policy is not None
        return self._piloting.holds or (is_led and self.mailbox.first() is not None)

    def _listen(self) -> Turn:
        """Hear devices and answer requests until a device has done its work, or can be given some."""
        seen, run_id = self.state.last_seq, self._devices.working[0].run_ids[0]
        while self._devices.working:
            self._quietly(self._answer_letters)
            done = self._turns.hear() if self._devices.working else None
            if done is not None:
                return Turn(done.run_ids[0] if done.run_ids else run_id)
            if self.state.last_seq != seen and any(one.is_free for one in self._devices.all):
                break
        return Turn(run_id)

    def settle(self) -> None:
        """Wait for what is still being written and deleted; called between two turns."""
        self._taking.behind.settle(waits=True)
        self._removal.close()

    def _settle(self, *, waits: bool = False) -> None:
        """Commit what was written behind turns, and obey what waited for it.

        All that standing devices write, where something else than the next turn comes now.
        """
        waits = waits or self._script is not None or self.paused or self._is_closed
        self._taking.behind.settle(waits=waits)
        self._piloting.obey()

    def interrupt(self) -> None:
        """End the turn that is under way at its next step, for the engine is to end; any thread."""
        self._turns.is_ending = True
        self.fleet.wake()

    def pause(self, paused: bool) -> None:
        """Give no more turns, or give them again; called between two steps."""
        self.paused = paused
        self.publisher.changed()

    def on_live(self, run_id: int, progress: Progress, point: MetricPoint | None) -> None:
        """See LiveListener."""
        self._journal.on_live(run_id, progress, point)

    def commit(self, events: Sequence[Event]) -> None:
        """Write events in one transaction, then apply and publish them."""
        self._journal.commit(events)

    def new_runs(self, configs: Iterable[RunConfig]) -> list[RunAdded]:
        """The events that add a run for each config.

        An adapter that one starts from is copied into the experiment.
        """
        return self._operations.new_runs(configs)

    def automate(self, autopilot: Autopilot | None) -> None:
        """Let a policy decide from now on, or none; called between two steps."""
        self._piloting.automate(autopilot)
        if autopilot is not None and len(self._devices.all) > 1:
            self.commit([Noted(text=autopilot.pace_words)])

    # ---- requests

    def _answer_letters(self) -> bool:
        """Answer requests in their order; False when the first waits for devices to stand."""
        while (letter := self.mailbox.first()) is not None:
            needed = self._needed(letter.request)
            if not self._turns.stand(needed):
                return False
            if needed or not self._devices.open:
                self._settle(waits=True)
                if self._piloting.is_deciding:
                    return False
            taken = self.mailbox.take()
            assert taken is letter
            self._answer(letter)
        return True

    def _needed(self, request: Request) -> set[Device]:
        """The devices that have to stand between two turns when a request is answered."""
        everyone = {device for device in self._devices.all if not device.is_gone}
        if self._piloting.is_deciding:
            return everyone  # what a policy decided before comes first
        match request:
            case StopRun() | ResumeRun() | CloneRun() | DeleteRun():
                # A policy was told of what is being saved, and hears of this after it.
                writing = self._taking.behind.writing if self.state.policy else set()
                return self._operations.needs(request) | writing
            case SetPaused():
                return everyone if request.paused else set()
            case PinRuns() | LabelRuns() | Automate() | AddRuns():
                return set()
            case GenerateTexts():
                return {self._devices.home(run_id) for run_id in request.run_ids}
            case LoadModel() | ExportRun():
                return {self._devices.anyone()}
            case CloseExperiment():
                return everyone
            case _:
                assert_never(request)

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
                made = self._operations.obey(request, origin)
                if isinstance(request, DeleteRun):
                    self._removal.settle()
                return made
            case SetPaused():
                self.pause(request.paused)
            case PinRuns():
                pinned = [self.state.record(run_id).run_id for run_id in request.run_ids]
                self.commit([RunPinned(run_id=run_id, pinned=request.pinned) for run_id in pinned])
            case LabelRuns():
                self.commit(request.events(self.state))
            case Automate():
                self.automate(
                    None if request.policy is None else Autopilot(request.policy, self._apply_edits)
                )
            case GenerateTexts():
                return self._turns.texts(
                    WriteTexts(
                        models=tuple(self._model_of(run_id) for run_id in request.run_ids),
                        prompts=request.prompts,
                        settings=request.settings,
                        is_joint=self._grouping.is_joint,
                    )
                )
            case LoadModel():
                config, newest = self._newest(request.run_id)
                return self._devices.do(
                    self._devices.anyone(), ReadModel(config=config, checkpoint=newest)
                )
            case ExportRun():
                config, newest = self._newest(request.run_id)
                export = WriteModel(
                    config=config, checkpoint=newest, path=request.path, merge=request.merge
                )
                self._devices.do(self._devices.anyone(), export)
            case AddRuns():
                self.commit(
                    [*new_functions(request.functions, self.state), *self.new_runs(request.configs)]
                )
            case CloseExperiment():
                self._close_experiment(cancelled=request.cancelled)
            case _:
                assert_never(request)
        return None

    def _newest(self, run_id: int) -> tuple[RunConfig, StoredFolder]:
        """The config of a run, and its newest checkpoint."""
        record = self.state.record(run_id)
        if not record.checkpoints:
            raise IllegalOperation(f"run {run_id} has no checkpoint yet; wait for its first chunk.")
        return record.config, record.checkpoints[-1].folder

    def _model_of(self, run_id: int) -> ModelOfRun:
        record = self.state.record(run_id)
        return ModelOfRun(run_id=run_id, config=record.config, checkpoint=record.newest)

    def _close_experiment(self, *, cancelled: bool) -> None:
        """Commit what is trained but not committed, and that the experiment ended."""
        events: list[Event] = []
        for run_id in sorted(self._journal.inside):
            events += self._taking.save(self.state.record(run_id))
        self._taking.commit([*events, ExperimentEnded(cancelled=cancelled)])
        self._is_closed = True

    # ---- a replay

    def _end_script(self) -> None:
        """At the place where the user wanted to continue, a replay pauses."""
        told = None if self._script is None else self._script.take_end(self.state)
        if told is not None:
            self.commit([Noted(text=told)])
            self.pause(True)

    def _follow_script(self) -> None:
        while self._script is not None:
            due = self._script.due(
                self.state, lambda run_id: self._steps_of(self.state.record(run_id))
            )
            if due is None or not self._turns.stand(self._operations.needs(due.operation)):
                return
            self._script.take()
            try:
                self._operations.obey(due.operation, due.origin, due.reason)
            except RFNotebookError as error:
                text = f"the replay could not {verb(due.operation)} run {due.operation.run_id} at step {due.steps}: {error}"
                self.commit([Noted(text=text)])

    def _steps_of(self, record: RunRecord) -> int:
        return self._journal.progress_of(record).steps

    def _quietly(self, answer: Callable[[], object]) -> None:
        """Do what no turn depends on; an error of it is logged and ends none."""
        try:
            answer()
        except (LeaseLost, Closing):
            raise
        except BaseException:  # noqa: BLE001 - the turns that are under way go on
            self._log.error("between turns: %s", traceback.format_exc())

    def _tell_verdict(self) -> None:
        verdict = None if self._script is None else self._script.take_verdict(self.state)
        if verdict is not None:
            self._log.info("%s", verdict)
            self.commit([Noted(text=verdict)])
