"""How does a run's trainer advance a few steps and then stand still, exactly?

The trainer's own ``train()`` runs in a greenlet of its own: a call stack that can be left and
entered again. It parks in ``on_step_begin``, the only callback after the log, evaluation and save
of the step before. All runs of an engine live in the engine's thread, one at a time. A thread a run
would do the same, but each such thread keeps a pool of OpenMP workers, and with more workers than
cores libgomp stops spinning: small models on a CPU then train at half speed.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet
from transformers import TrainerCallback

from rf_notebook.core.foreground import is_cell_at_work
from rf_notebook.training.process_state import (
    ProcessState,
    RandomState,
    function_modes,
    outside_torch_contexts,
)
from rf_notebook.training.undisturbed import OwnDtype, OwnStream, without_streams

if TYPE_CHECKING:
    import torch


class StopTraining(BaseException):
    """Ends a run's greenlet.

    No Exception, so that no ``except Exception`` of user code swallows it.
    """


class ParkedStatus(StrEnum):
    """Where a run's trainer stands."""

    NEW = "new"
    TRAINING = "training"
    WAITING = "waiting"
    PARKED = "parked"
    FINISHED = "finished"
    FAILED = "failed"
    ENDED = "ended"


class Gate(TrainerCallback):
    """The callback through which a trainer parks; one per run, built before its trainer."""

    def __init__(self, run: ParkedRun) -> None:
        self._run = run
        self.epoch_random: RandomState | None = None
        """The streams when the pass in progress began, from which its order of rows follows."""
        self.resume_random: tuple[RandomState | None, RandomState] | None = None
        """Set when continuing from a checkpoint: the streams at the pass's begin and at the step."""
        self.on_ready: Callable[[Any], None] | None = None
        """Called with the trainer once its optimizer exists, before the first step."""
        self.on_metrics: Callable[[int, dict[str, Any]], None] = lambda _step, _metrics: None
        self.on_evaluated: Callable[[Any], None] = lambda _trainer: None
        self.on_step: Callable[[int], None] = lambda _step: None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.on_ready is not None:
            self.on_ready(self._run.trainer)
        self._run.park_at(state.global_step)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._run.bring_streams()
        if self.resume_random is not None and self.resume_random[0] is not None:
            self._run.set_streams(self.resume_random[0])
        self.epoch_random = self._run.streams()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.resume_random is not None:
            # Whatever preparing the data drew, the streams are those of the moment of the
            # checkpoint.
            self._run.set_streams(self.resume_random[1])
            self.resume_random = None
        self._run.take_streams()
        self._run.park_at(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._run.check_abandoned()
        self.on_step(state.global_step)

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._run.check_abandoned()

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._run.check_abandoned()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        self.on_metrics(state.global_step, dict(logs or {}))

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.on_evaluated(self._run.trainer)


class ParkedRun:
    """One trainer in one greenlet. All methods belong to one thread, the engine's."""

    def __init__(
        self,
        build: Callable[[Gate], Any],
        *,
        dtype: torch.dtype,
        is_quiet: bool,
        resume_from: str | None = None,
        interrupted: threading.Event,
        abandoned: threading.Event,
    ) -> None:
        """Nothing happens before the first ``advance``.

        Args:
            build: Makes the trainer, with the gate among its callbacks; called in the greenlet,
                under the run's state.
            dtype: The default one for new tensors.
            is_quiet: Whether its steps draw no random numbers: then the process keeps the
                notebook's streams.
            resume_from: A checkpoint folder for ``train(resume_from_checkpoint=...)``.
            interrupted: While set, the run parks at its next step.
            abandoned: While set, the run gives up at its next callback.
        """
        self.status = ParkedStatus.NEW
        self.step = 0
        self.trainer: Any = None
        self.error: BaseException | None = None
        self.traceback_text = ""
        self.request: Any = None
        """What the run waits for inside a joint step."""
        self.state: ProcessState | None = None
        self.gate = Gate(self)
        self._build = build
        self._resume_from = resume_from
        self._interrupted = interrupted
        self._abandoned = abandoned
        self._until = 0
        self._modes = 0
        """Function modes of torch that were entered when the run last went on."""
        self._ending = False
        self._surroundings: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._own_streams: RandomState | None = None
        """Of a quiet run, while the process has the notebook's."""
        self._between_passes: AbstractContextManager[Any] | None = None
        """While such a run may draw an order of rows."""
        self._dtype = dtype
        self.own_stream = OwnStream()
        """From which a run draws that has no stream of the process's in."""
        self.is_quiet = is_quiet
        self._greenlet = greenlet(self._main)

    def advance(self, until: int) -> None:
        """Train until ``until`` optimizer steps are done; 0 only builds the trainer.

        Returns when the run stands still.

        The caller holds PROCESS and has installed nothing: the run's state goes in and out here.
        """
        if self.status not in (ParkedStatus.NEW, ParkedStatus.PARKED):
            return
        self._until = until
        self.status = ParkedStatus.TRAINING
        if self.state is not None and is_cell_at_work():
            self._surroundings = lambda: OwnDtype(self._dtype)
        self._enter()
        self._surroundings = nullcontext

    def streams(self) -> RandomState:
        """The run's own as they are: not the process's when other cells may have moved those."""
        return RandomState.capture() if self._own_streams is None else self._own_streams

    def build(self, surroundings: Callable[[], AbstractContextManager[Any]]) -> None:
        """``advance(0)``: make the trainer, in a context that is entered by this thread."""
        self._surroundings = surroundings
        try:
            self.advance(0)
        finally:
            self._surroundings = nullcontext

    def begin_from(self, streams: RandomState) -> None:
        """The streams are these when the first step begins.

        A checkpoint's take their place in a run that is continued.
        """
        assert self.state is not None
        self.state = replace(self.state, random=streams)
        if self.is_quiet:
            self._own_streams = streams
            for module in self.trainer.model.modules():
                own = module.__dict__.get("_gradient_checkpointing_func")
                if own is not None:
                    module._gradient_checkpointing_func = without_streams(own)  # noqa: SLF001 - transformers sets it on the model's modules

    def bring_streams(self) -> None:
        """Called by the gate before a pass begins.

        What a run draws there that has none in comes from its own stream.
        """
        if self._own_streams is not None and self._between_passes is None:
            self.own_stream.state = self._own_streams.cpu
            self._between_passes = self.own_stream
            self._between_passes.__enter__()

    def take_streams(self) -> None:
        """Called by the gate at the begin of each step: the inverse."""
        if self._own_streams is not None and self._between_passes is not None:
            self._own_streams = replace(self._own_streams, cpu=self.own_stream.state)
            self._between_passes.__exit__(None, None, None)
            self._between_passes = None

    def set_streams(self, streams: RandomState) -> None:
        """Called by the gate where a checkpoint says what the run's streams were."""
        if self._own_streams is not None:
            self._own_streams, self.own_stream.state = streams, streams.cpu
        else:
            streams.install()

    def begin_jointly(self, until: int) -> None:
        """From now on ``go_on`` trains the run until ``until`` optimizer steps are done.

        Its switches and environment are the process's from here on; those of the group's runs are
        alike where it matters.
        """
        assert self.state is not None
        if not self.is_quiet:
            self.state.random.install()
        self.state.install_beside_streams()
        self._until = until

    def go_on(self) -> None:
        """Train until the run waits for others, parks or ends.

        The caller puts the process's state back afterwards.
        """
        assert self.state is not None
        self.state.install_again(streams=not self.is_quiet)
        self.status = ParkedStatus.TRAINING
        self._greenlet.parent = getcurrent()
        self._modes = function_modes()
        self._greenlet.switch()

    @contextmanager
    def inside(self, dtype: torch.dtype) -> Iterator[None]:
        """Under the parked run's process state, which is not captured again.

        Args:
            dtype: Of new tensors.
        """
        notebook = ProcessState.of_notebook()
        state = self.state
        assert state is not None
        if not self.is_quiet:
            state.random.install()
        state.install_beside_streams()
        try:
            self.own_stream.state = state.random.cpu
            with self.own_stream if self.is_quiet else nullcontext(), OwnDtype(dtype):
                yield
        finally:
            if not self.is_quiet:
                notebook.random.install()
            notebook.install_beside_streams()

    def end(self) -> None:
        """Unwind the greenlet and let the trainer go."""
        if self.status in (ParkedStatus.PARKED, ParkedStatus.WAITING):
            self._ending = True
            self._enter()
        self.status = ParkedStatus.ENDED
        self.trainer = None
        self.state = None
        self.error = None
        self.gate.on_ready = None

    def _enter(self) -> None:
        notebook = ProcessState.of_notebook()
        is_new = self.state is None
        state = ProcessState.fresh(notebook) if self.state is None else self.state
        if not self.is_quiet:
            state.random.install()
        state.install_beside_streams(state.environment if is_new else None)
        self._greenlet.parent = getcurrent()
        with self._surroundings():
            self._greenlet.switch()
        if not self.is_quiet:
            notebook.random.install()
        notebook.install_beside_streams(notebook.environment if is_new else None)

    # ---- the run's side

    def park_at(self, step: int) -> None:
        """Called by the gate at the begin of a step: stand still if the turn is over."""
        self.step = step
        self.check_abandoned()
        if step < self._until and not self._interrupted.is_set():
            return
        while True:
            self.state = ProcessState.capture(self.streams())
            self.status = ParkedStatus.PARKED
            self._greenlet.parent.switch()
            if self._ending:
                raise StopTraining
            self.status = ParkedStatus.TRAINING
            if step < self._until:
                return

    def wait_for(self, request: Any) -> None:
        """Called by the run inside a joint step: stand still until ``request`` is answered."""
        self.request = request
        self.status = ParkedStatus.WAITING
        assert self.state is not None
        self.state = self.state.moved_on(self.streams())
        with outside_torch_contexts(self._modes):
            self._greenlet.parent.switch()
        self.request = None
        if self._ending:
            raise StopTraining
        self.check_abandoned()

    def check_abandoned(self) -> None:
        """Called often: give up when the process is about to end."""
        if self._abandoned.is_set():
            raise StopTraining

    def _main(self) -> None:
        """The greenlet; its end is a switch to whoever entered it last."""
        outcome = ParkedStatus.FINISHED
        try:
            self.trainer = self._build(self.gate)
            self.trainer.train(resume_from_checkpoint=self._resume_from)
            self.step = self.trainer.state.global_step
        except StopTraining:
            outcome = ParkedStatus.ENDED
        except BaseException as error:  # noqa: BLE001 - one run's failure, whatever it is, is the run's alone
            outcome = ParkedStatus.FAILED
            self.traceback_text = traceback.format_exc()
            self.error = error.with_traceback(None)
            self.error.__context__ = None
            self.error.__cause__ = None
        finally:
            self.take_streams()
            self.state = ProcessState.capture(self.streams())
            self.status = outcome
