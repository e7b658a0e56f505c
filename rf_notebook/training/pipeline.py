"""How do several runs train at once over one model that lies on several GPUs?

A run's rows go from stage to stage, so by itself it keeps one GPU at work at a time. Here several runs
are under way: while the rows of one are on the second GPU, those of another are on the first. Each run
makes all its passes by itself, in its own order, so its figures are those of training alone; only the
moments at which they begin are others'. All queue in the GPUs' usual streams.

Queueing takes a run longer than the GPUs take to compute: 220 ms of 270 for 8 billion weights and rows of
220 tokens. So a run's backward, which torch queues without Python, is queued by a thread of its own,
while others queue their forwards; and a run goes on only when it need not wait, as long as any other can.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from rf_notebook.training import memory
from rf_notebook.training.aside import Aside, aside_together
from rf_notebook.training.device import gpus_of_runs, run_devices
from rf_notebook.training.fused.patches import patch
from rf_notebook.training.lora_linear import shorten
from rf_notebook.training.parked import ParkedStatus
from rf_notebook.training.process_state import ProcessState
from rf_notebook.training.stages import Answering

if TYPE_CHECKING:
    from rf_notebook.core.runner import ChunkRequest
    from rf_notebook.training.active_run import ActiveRun
    from rf_notebook.training.parked import ParkedRun
    from rf_notebook.training.resources import Resources


#: Under way at once. More gain nothing, for by then the thread that queues forwards is always at work,
#: and each costs memory: eight runs over two H200 were slower than twice four.
_RUNS_A_STAGE = 2


@dataclass(slots=True, eq=False)
class OthersTurn:
    """A run has queued what it could; others queue theirs until it need not wait."""

    is_ready: Callable[[], bool]
    """Whether it would continue without waiting."""
    is_short: bool = False
    """Whether it will queue a backward next, which takes this thread no time."""
    error: BaseException | None = None
    """Raised in the run instead."""


class Lane:
    """One run in a pipeline."""

    def __init__(self, run: ParkedRun, queueing: ThreadPoolExecutor) -> None:
        """Nothing is changed before ``attach``.

        Args:
            run: Its trainer is built.
            queueing: Queues backwards.
        """
        self.run: ParkedRun | Aside = run
        """What advances: the run, or what it does aside."""
        self._queueing = queueing
        self._undo: list[Callable[[], None]] = []

    def attach(self) -> None:
        """From now on others continue after each forward and while each backward is queued."""
        trainer = self.run.trainer
        model = trainer.accelerator.unwrap_model(trainer.model)
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        computes_again = any(
            getattr(module, "gradient_checkpointing", False) for module in model.modules()
        )
        self._undo = [
            *shorten(model),
            patch(causal, "forward", self._forward(causal.forward)),
            patch(
                trainer.accelerator,
                "backward",
                self._backward(trainer.accelerator.backward, computes_again=computes_again),
            ),
        ]

    def detach(self) -> None:
        """Everything is the trainer's own again."""
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()

    def _let_others(self, is_ready: Callable[[], bool], *, is_short: bool = False) -> None:
        request = OthersTurn(is_ready, is_short)
        self.run.wait_for(request)
        if request.error is not None:
            raise request.error

    def _forward(self, own: Callable[..., Any]) -> Callable[..., Any]:
        # Others continue between a forward and its answer's way back: the first GPU takes the next
        # run's rows before it waits for what comes back.
        if isinstance(own, Answering):
            return Answering(self._followed(own.own), own.stays)
        return self._followed(own)

    def _followed(self, own: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(own)
        def followed(*args: Any, **kwargs: Any) -> Any:
            given = own(*args, **kwargs)
            # trl reads a step's metrics before the backward, which waits for the GPUs
            self._let_others(_is_over(_marks()), is_short=torch.is_grad_enabled())
            return given

        return followed

    def _backward(self, own: Callable[..., Any], *, computes_again: bool) -> Callable[..., Any]:
        def queue(*args: Any, **kwargs: Any) -> list[torch.cuda.Event]:
            own(*args, **kwargs)
            return _marks()

        @functools.wraps(own)
        def backward(*args: Any, **kwargs: Any) -> None:
            if computes_again:  # forwards, in Python and from the process's random streams
                self._let_others(_is_over(queue(*args, **kwargs)))
                return
            queued = self._queueing.submit(queue, *args, **kwargs)
            try:
                self._let_others(lambda: queued.done() and _is_over_of(queued))
            finally:
                wait([queued])  # also where the run fails or ends meanwhile
            queued.result()

        return backward


def _marks() -> list[torch.cuda.Event]:
    """Where the GPUs' streams end now; nothing without GPUs."""
    return [torch.cuda.current_stream(gpu).record_event() for gpu in gpus_of_runs()]


def _is_over(marks: Sequence[torch.cuda.Event]) -> Callable[[], bool]:
    """Asks whether the GPUs have come to these marks."""
    return lambda: all(mark.query() for mark in marks)


def _is_over_of(queued: Future[list[torch.cuda.Event]]) -> bool:
    """Whether the GPUs have computed what a thread has queued, or it failed."""
    return queued.exception() is not None or _is_over(queued.result())()


class Pipeline:
    """Runs over one model on several GPUs, for one turn."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        """Nothing is changed before it is entered."""
        self._lanes = list(lanes)

    def __enter__(self) -> Pipeline:
        """Let the runs take turns in queueing."""
        for lane in self._lanes:
            lane.attach()
        return self

    def __exit__(self, *_: object) -> None:
        """Give every run what is its own."""
        for lane in self._lanes:
            lane.detach()

    def advance(self, until: Mapping[Lane, int]) -> None:
        """Train each run until its step; the caller holds PROCESS."""
        self._go_on({lane: lane.run for lane in self._lanes}, until)

    def do_aside(self, work: Mapping[Lane, Aside]) -> None:
        """Let runs that stand do something outside their course; the caller holds PROCESS."""
        self._go_on(work, dict.fromkeys(work, 0))

    def _go_on(self, doing: Mapping[Lane, ParkedRun | Aside], until: Mapping[Lane, int]) -> None:
        notebook = ProcessState.of_notebook()
        own = {lane: lane.run for lane in doing}
        try:
            for lane, run in doing.items():
                lane.run = run
                run.begin_jointly(until[lane])
            for lane in doing:
                lane.run.go_on()
            waiting = [lane for lane in doing if lane.run.status is ParkedStatus.WAITING]
            while waiting:
                lane = self._next(waiting)
                lane.run.go_on()
                waiting.remove(lane)
                if lane.run.status is ParkedStatus.WAITING:
                    waiting.append(lane)
        except BaseException as error:
            # of the pipeline, not of a run: from inside a step only an error leads out
            for lane in doing:
                if lane.run.status is ParkedStatus.WAITING:
                    lane.run.request.error = error
                    lane.run.go_on()
            raise
        finally:
            if not all(lane.run.is_quiet for lane in doing):
                notebook.random.install()
            notebook.install_beside_streams()
            for lane, run in own.items():
                lane.run = run

    @staticmethod
    def _next(waiting: Sequence[Lane]) -> Lane:
        """Who goes on: one that need not wait, or else the one that has stood longest."""
        ready = [lane for lane in waiting if lane.run.request.is_ready()]
        short = (lane for lane in ready if lane.run.request.is_short)
        return next(itertools.chain(short, ready), waiting[0])


def side_by_side(
    requests: Sequence[ChunkRequest], runs: Mapping[int, ActiveRun]
) -> Iterator[list[ChunkRequest]]:
    """The requests in parts: with room side by side, and alike in torch's numeric switches.

    Those are the process's, whoever is at work.

    Args:
        requests: Of a turn.
        runs: Those that they are for, by id.
    """
    alike: dict[Any, list[ChunkRequest]] = {}
    for request in requests:
        state = runs[request.run_id].parked.state
        assert state is not None
        alike.setdefault(state.switches, []).append(request)
    for some in alike.values():
        yield from _that_fit(some, runs)


def _that_fit(
    requests: Sequence[ChunkRequest], runs: Mapping[int, ActiveRun]
) -> Iterator[list[ChunkRequest]]:
    """The requests in even parts whose steps fit into the GPUs' memory side by side."""
    gpus = gpus_of_runs()
    free = sum(map(memory.free_bytes, gpus)) if gpus else None
    at_most = _RUNS_A_STAGE * len(run_devices())
    even = math.ceil(len(requests) / math.ceil(len(requests) / at_most))
    part: list[ChunkRequest] = []
    needed = 0
    for request in requests:
        room = runs[request.run_id].room
        has_room = free is None or needed + room <= free
        if part and (len(part) == even or not has_room):
            yield part
            part, needed = [], 0
        part.append(request)
        needed += room
    if part:
        yield part


class PipelineTurns:
    """Turns of several runs over a model on several GPUs."""

    def __init__(self, resources: Resources) -> None:
        """Nobody trains yet.

        Args:
            resources: What the runs share.
        """
        self._resources = resources

    def advance(self, requests: Sequence[ChunkRequest], runs: Mapping[int, ActiveRun]) -> None:
        """Train runs to their boundaries, or to where they should park, as many at once as fit.

        An interrupt ends the turn at the next step.

        Args:
            requests: The turn's requests.
            runs: Those that the requests are for, ready to train, by id.
        """
        for some in side_by_side(requests, runs):
            if not self._resources.interrupted.is_set():
                self._advance(some, [runs[request.run_id] for request in some])

    def _advance(self, requests: Sequence[ChunkRequest], runs: Sequence[ActiveRun]) -> None:
        queueing = ThreadPoolExecutor(len(runs), "rf-backward")
        try:
            self._advance_in(queueing, requests, runs)
        finally:
            queueing.shutdown()

    def _advance_in(
        self,
        queueing: ThreadPoolExecutor,
        requests: Sequence[ChunkRequest],
        runs: Sequence[ActiveRun],
    ) -> None:
        lanes = {run: Lane(run.parked, queueing) for run in runs}
        boundaries = {run: run.next_boundary for run in runs}
        until = {
            lanes[run]: min(
                boundaries[run], boundaries[run] if request.park_at is None else request.park_at
            )
            for request, run in zip(requests, runs, strict=True)
        }
        with Pipeline(list(lanes.values())) as pipeline:
            started = time.perf_counter()
            pipeline.advance(until)
            seconds = (time.perf_counter() - started) / len(runs)
            for run in runs:
                run.train_seconds += seconds
                others = {one.run_id for one in runs if one is not run}
                run.fused_with = tuple(sorted({*run.fused_with, *others}))
                if run.parked.status is ParkedStatus.PARKED and run.parked.step >= boundaries[run]:
                    run.reached = boundaries[run]
            there = [
                run
                for run in runs
                if run.reached is not None or run.parked.status is ParkedStatus.FINISHED
            ]
            evaluating = {
                run: (lanes[run], run.at_boundary.evaluate_here)
                for run in there
                if run.at_boundary.is_to_be_evaluated
            }
            seconds = aside_together(pipeline, evaluating, self._resources.dtype)
            for run in evaluating:
                run.at_boundary.eval_seconds += seconds
            writing = {
                run: (lanes[run], run.at_boundary.write_samples_here)
                for run in there
                if run.at_boundary.is_to_write_samples
            }
            aside_together(pipeline, writing, self._resources.dtype)
