"""Who gets a turn, who is heard, and who is lost?"""

from __future__ import annotations

import inspect
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rf_notebook.core.errors import StoreError, WorkerCannotStart
from rf_notebook.core.events import DevicesChosen, Event, Noted, RunFailed
from rf_notebook.core.fleet import Leaving, Lost, TurnFailed, TurnOver
from rf_notebook.core.run import Failure
from rf_notebook.core.runner import ChunkRequest, WriteTexts
from rf_notebook.core.values import digest
from rf_notebook.engine.journal import Closing, Journal
from rf_notebook.engine.work import Work
from rf_notebook.planning.placement import Candidate, Slot, place

if TYPE_CHECKING:
    from rf_notebook.core.run import LoadedModel
    from rf_notebook.core.state import RunRecord
    from rf_notebook.engine.devices import AskedTurn, Device, Devices
    from rf_notebook.engine.grouping import Grouping
    from rf_notebook.engine.script import Script
    from rf_notebook.engine.taking import Taking

#: Deaths of the process that trains, with nothing committed in between, after which the run that it
#: trained fails; and after which it trains alone, so that no other fails with it.
_MOST_DEATHS, _SUSPECT_DEATHS = 3, 2
#: Starts of a process that is killed each time, after which its device is left out.
_MOST_FAILED_STARTS = 3
#: How long a device whose turn did not fit on the disk is left alone while others train.
_HELD_UP_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Turn:
    """A device has done its work, or can be given some."""

    run_id: int
    """The first run of that work."""


class Idle:
    """No run wants a turn."""


class Paused:
    """Runs want a turn and get none, because the user paused the experiment."""


class Turns:
    """Gives devices their turns, and hears how they end."""

    def __init__(
        self,
        devices: Devices,
        journal: Journal,
        grouping: Grouping,
        taking: Taking,
        script: Script | None,
    ) -> None:
        """Nothing trains yet.

        Args:
            devices: Who trains.
            journal: Says where runs stand.
            grouping: Says who trains with whom.
            taking: Takes what turns give.
            script: What is to be done at which steps, in a replay.
        """
        self._devices = devices
        self._journal = journal
        self._grouping = grouping
        self._taking = taking
        self._script = script
        self._retry_at = 0.0
        """When devices whose turns did not fit on the disk try again while others train."""
        devices.on_lost = self._lose_aside
        self.is_ending = False
        """Whether turns end at their next step."""
        self._models: dict[str, LoadedModel] = {}
        """The base models as the first device had them, by digest of what chose them."""

    def waiting(self, leaving: Collection[int]) -> list[RunRecord]:
        """Runs that want a turn and are not in one, as they are when what is saved is committed.

        Args:
            leaving: Runs that take no turns any more.
        """
        at_work = {run_id for device in self._devices.working for run_id in device.run_ids}
        return [
            replace(record, progress=self._journal.boundary_of(record))
            for record in self._journal.state.ready()
            if record.run_id not in at_work
            and record.run_id not in leaving
            and not self._waits_for_script(record)
        ]

    def give(self, waiting: Sequence[RunRecord], next_chunk: int | None) -> None:
        """Give free devices what they train next.

        Args:
            waiting: Runs that want a turn.
            next_chunk: Chunks that a run may have trained when it gets one; None for any number.
        """
        devices = [device for device in self._devices.all if not device.is_gone]
        if len(devices) > 1 and next_chunk is not None:
            waiting = [record for record in waiting if record.progress.chunks <= next_chunk]
        models = {facts.name: facts.model for facts in self._devices.fleet.devices()}
        gives = place(
            [self._candidate(record) for record in waiting],
            [Slot(name=one.name, model=models[one.name], is_free=one.is_free) for one in devices],
            move_seconds=self._taking.move_seconds,
        )
        by_name = {device.name: device for device in devices}
        for give in gives:
            self._give(by_name[give.device], give.run_ids)

    def _waits_for_script(self, record: RunRecord) -> bool:
        limit = None if self._script is None else self._script.next_steps(record.run_id)
        return limit is not None and self._journal.progress_of(record).steps >= limit

    def _candidate(self, record: RunRecord) -> Candidate:
        run_id = record.run_id
        home = self._devices.homes.get(run_id)
        is_suspect = self._taking.deaths[run_id] >= _SUSPECT_DEATHS
        return Candidate(
            run_id=run_id,
            samples_done=record.progress.samples,
            chunks_done=record.progress.chunks,
            key=None if is_suspect else self._grouping.key(record),
            in_chunk=run_id in self._journal.inside,
            home=None if home is None else home.name,
            is_bound=run_id in self._taking.behind.runs,
            chunk_seconds=self._taking.chunk_seconds.get(run_id, 0.0),
        )

    def _give(self, device: Device, run_ids: Sequence[int]) -> None:
        """Let a device train a run, or a group; those that another one holds leave it."""
        for run_id in run_ids:
            if self._devices.homes.get(run_id, device) is not device:
                self._taking.release(run_id)
                self._taking.moved.add(run_id)
            self._devices.homes[run_id] = device
        device.run_ids = tuple(run_ids)
        work = Work(device, self._journal, self._grouping, self._taking)
        device.work = work.of([self._journal.state.record(run_id) for run_id in run_ids])
        self._go_on(device)

    def stand(self, devices: Iterable[Device]) -> bool:
        """Let these devices stand between two turns, and no others any longer.

        Returns:
            Whether they do; as long as one is in a turn, the others get none.
        """
        wanted = set(devices)
        stand = all(device.turn is None for device in wanted)
        for device in self._devices.all:
            device.is_wanted = device in wanted and not stand
            if device in wanted and device.turn is None:
                self._drop(device)
        self._devices.interrupt(wanted)
        return stand

    def hear(self) -> Device | None:
        """Take in one message; the device whose work that ended.

        Raises:
            Closing: when the engine is to end while it waits for room on the disk.
        """
        if self.is_ending:
            for device in self._devices.working:
                if device.turn is None:  # held up: what it gave has no room, and is trained again
                    self._drop(device)
                    return device
            self._devices.interrupt(self._devices.open)
        else:
            self._ask_again()
        found = self._devices.hear()
        if found is None:
            return None
        device, message = found
        match message:
            case TurnOver(turn=turn) if turn == device.turn:
                device.turn = None
                if device.held_up is not None:
                    self._journal.log.info("%s: there is room again", device.name)
                    device.held_up = None
                other = self._other_model(message)
                if other is not None:
                    return self._refuse(device, other)
                return self._go_on(device, message)
            case TurnFailed(turn=turn) if turn == device.turn:
                device.turn = None
                if isinstance(message.error, StoreError):
                    self._hold_up(device, message.error)
                    return None
                return self._go_on(device, error=message.error)
            case Lost():
                return self._lose(device, message)
            case Leaving():
                return self._notice(device, message)
        return None

    def move_out(self) -> None:
        """Save the runs of devices that are about to be ended, and start those anew.

        On a cluster that is elsewhere; a device in a turn is waited for.
        """
        for device in self._devices.all:
            if not device.is_leaving or device.turn is not None:
                continue
            self._drop(device)
            self._taking.behind.settle(waits=True)
            for run_id in self._devices.held_by(device):
                self._taking.commit(self._taking.save(self._journal.state.record(run_id)))
            if device.is_leaving:  # it did not end meanwhile, which starts it anew
                self._taking.release(*self._devices.held_by(device))
                device.is_leaving = False
                self._devices.fleet.restart(device.name)

    def texts(self, errand: WriteTexts) -> list[list[str]]:
        """What runs write, each where it is held."""
        homes = {one.run_id: self._devices.home(one.run_id) for one in errand.models}
        found: dict[int, list[str]] = {}
        for device in self._devices.all:
            models = tuple(one for one in errand.models if homes[one.run_id] is device)
            if models:
                written = self._devices.do(device, replace(errand, models=models))
                found |= {one.run_id: texts for one, texts in zip(models, written, strict=True)}
        return [found[one.run_id] for one in errand.models]

    def _go_on(
        self, device: Device, over: TurnOver | None = None, error: BaseException | None = None
    ) -> Device | None:
        """Let the work of a device continue after a turn; the device when it is done."""
        work = device.work
        assert work is not None
        while True:
            try:
                if error is not None:
                    device.asked = work.throw(error)
                else:
                    device.asked = next(work) if over is None else work.send(over)
            except StopIteration:
                self._drop(device)
                return device
            except BaseException:
                self._drop(device)
                raise
            if device.work is not work or device.is_wanted or device.is_leaving or self.is_ending:
                work.close()
                self._drop(device)
                return device
            try:
                self._begin(device, device.asked)
            except Exception as problem:  # noqa: BLE001 - what cannot be sent, say: the run's alone
                error = problem
            else:
                return None

    def _begin(self, device: Device, asked: AskedTurn) -> None:
        number = self._devices.next_number()
        records = [self._journal.state.record(run_id) for run_id in asked.run_ids]
        requests = [self._request(record, asked, number) for record in records]
        self._devices.begin(device, requests, number)

    def _drop(self, device: Device) -> None:
        """Leave the work of a device that stands."""
        work, device.work, device.asked, device.held_up = device.work, None, None, None
        if work is not None and inspect.getgeneratorstate(work) != inspect.GEN_RUNNING:
            work.close()

    def _hold_up(self, device: Device, error: StoreError) -> None:
        """A turn could not write what it gave; it is asked for again, and trains nothing then."""
        if device.held_up is None:
            self._journal.log.warning("%s is held up: %s", device.name, error)
        device.held_up = str(error)
        self._retry_at = time.monotonic() + _HELD_UP_SECONDS
        self._journal.publisher.changed()

    def _ask_again(self) -> None:
        """Ask again for the turns of devices that were held up."""
        held_up = [one for one in self._devices.working if one.held_up and one.turn is None]
        if not held_up:
            return
        if not self._devices.open:
            if not self._journal.wait_for_room():
                raise Closing(str(held_up[0].held_up))
        elif time.monotonic() < self._retry_at:
            return
        for device in held_up:
            assert device.asked is not None
            self._begin(device, device.asked)

    def _request(self, record: RunRecord, asked: AskedTurn, attempt: int) -> ChunkRequest:
        """The next turn of a run."""
        state = self._journal.state
        limits = [
            None if asked.steps is None else self._journal.progress_of(record).steps + asked.steps,
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
            is_joint=asked.is_joint,
            saves_behind=self._script is None,  # a replay goes by what is committed
            is_judged=state.policy is not None and record.run_id not in state.pinned,
        )

    def _notice(self, device: Device, notice: Leaving) -> Device | None:
        """A device is about to be ended: its turn ends at the next step, and ``move_out`` saves its runs.

        Returns:
            The device when it stands.
        """
        if device.is_leaving or device.is_gone:
            return None
        device.is_leaving = True
        self._journal.log.warning("%s is about to end: %s", device.name, notice.reason)
        text = f"the process that trains on {device.name} is about to end: {notice.reason}. Its runs are saved."
        self._journal.commit([Noted(text=text)])
        self._devices.interrupt([device])
        return device if device.turn is None else None

    def _lose_aside(self, device: Device, lost: Lost) -> bool:
        """As ``_lose``; whether the process was started again."""
        self._lose(device, lost)
        return not (self.is_ending or device.is_gone)

    def _lose(self, device: Device, lost: Lost) -> Device | None:
        """The process of a device died; what it held continues from its checkpoints.

        Returns:
            The device when its work is done.

        Raises:
            WorkerCannotStart: when it never began to listen, and no other device is left.
        """
        journal = self._journal
        training = () if device.turn is None or device.asked is None else device.asked.run_ids
        device.turn = None
        device.is_leaving = False
        self._forget_runs(device)
        journal.log.error("%s was lost: %s", device.name, lost.reason)
        if self.is_ending:
            self._drop(device)
            return device
        device.failed_starts = 0 if lost.was_ready else device.failed_starts + 1
        if device.failed_starts and (
            not lost.was_killed or device.failed_starts == _MOST_FAILED_STARTS
        ):
            if all(one.is_gone or one is device for one in self._devices.all):
                raise WorkerCannotStart(f"the worker process could not start: {lost.reason}.")
            return self._leave_out(
                device, f"the process that trains on {device.name} could not start: {lost.reason}"
            )
        text = f"the process that trains on {device.name} ended: {lost.reason}. Its runs continue from their checkpoints."
        events: list[Event] = [Noted(text=text)]
        for run_id in training if lost.was_ready else ():
            self._taking.deaths[run_id] += 1
            if self._taking.deaths[run_id] == _MOST_DEATHS:
                failure = Failure(
                    message=f"the process that trained it ended {_MOST_DEATHS} times: {lost.reason}",
                    traceback="",
                )
                events.append(RunFailed(run_id=run_id, failure=failure))
        journal.commit(events)
        self._devices.fleet.restart(device.name)
        self._drop(device)
        return device

    def _forget_runs(self, device: Device) -> None:
        """What a device held in memory is gone; its runs continue from their checkpoints."""
        self._taking.behind.lose(device)
        for run_id in self._devices.held_by(device):
            del self._devices.homes[run_id]
            self._journal.inside.pop(run_id, None)
            self._journal.state.live.pop(run_id, None)

    def _other_model(self, over: TurnOver) -> LoadedModel | None:
        """A base model that a device has loaded and that is not the one of the other devices."""
        loaded = [model for result in over.results for model in result.loaded]
        for model in loaded:
            key = digest(model.chosen_by)
            if key not in self._models:
                recorded = self._journal.state.base_models.get(key, model)
                if not model.is_same(recorded):
                    text = (
                        f"the base model {model.name} is not the one that this experiment began with: its "
                        "weights or its tokenizer are others, so figures from now on belong to another model."
                    )
                    self._journal.commit([Noted(text=text)])
            if not self._models.setdefault(key, model).is_same(model):
                return model
        return None

    def _refuse(self, device: Device, model: LoadedModel) -> Device:
        """A device has another model than the others: what it trained is dropped, and it is left out."""
        self._forget_runs(device)
        self._devices.fleet.restart(device.name)  # so that nothing more is told of what it did
        return self._leave_out(
            device,
            f"{device.name} loaded other weights or another tokenizer as {model.name} than the other devices: "
            "create_model_fn must give the same everywhere (a seed for what it draws, the same files on all machines)",
        )

    def _leave_out(self, device: Device, why: str) -> Device:
        """A device trains nothing more; the others train on."""
        device.is_gone = True
        gone = {one.name for one in self._devices.all if one.is_gone}
        there = [facts for facts in self._devices.fleet.devices() if facts.name not in gone]
        chosen = DevicesChosen(devices={facts.name: facts.described for facts in there})
        text = f"{why}. The other devices train its runs."
        self._journal.commit([chosen, Noted(text=text)])
        self._drop(device)
        return device
