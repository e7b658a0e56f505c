"""How are several runs evaluated at once, and how do they write samples at once?

Each run's own ``evaluate()`` or ``generate()`` continues in a greenlet, outside the run's course,
and its forwards wait for joint ones, or for other runs to queue theirs, like those of a training step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from greenlet import getcurrent, greenlet

from rf_notebook.core.foreground import is_cell_at_work
from rf_notebook.training.parked import ParkedRun, ParkedStatus, StopTraining
from rf_notebook.training.process_state import (
    ProcessState,
    RandomState,
    function_modes,
    outside_torch_contexts,
)
from rf_notebook.training.undisturbed import OwnDtype, OwnStream

if TYPE_CHECKING:
    import torch

MemberT = TypeVar("MemberT")


class Aside:
    """What one parked run does aside, which a group sees as it sees a run that trains."""

    def __init__(self, parked: ParkedRun, work: Callable[[], None], dtype: torch.dtype) -> None:
        """Nothing happens before ``go_on``.

        Args:
            parked: The run, which stands at a boundary.
            work: What it does.
            dtype: Of new tensors.
        """
        assert parked.state is not None
        self.trainer = parked.trainer
        self.status = ParkedStatus.PARKED
        self.request: Any = None
        """See ParkedRun."""
        self.is_quiet = parked.is_quiet
        self._work = work
        self._modes = 0
        self._dtype = dtype
        self._state: ProcessState = parked.state
        self._own_stream = OwnStream()
        self._own_stream.state = parked.state.random.cpu
        self._greenlet = greenlet(self._main)

    def begin_jointly(self, until: int) -> None:
        """See ParkedRun; what is done aside ends by itself."""
        self._state.install_beside_streams()

    def go_on(self) -> None:
        """Continue until the run waits for others or is done."""
        self._state.install_again(streams=not self.is_quiet)
        self.status = ParkedStatus.TRAINING
        self._greenlet.parent = getcurrent()
        with self._surroundings():
            self._modes = function_modes()
            self._greenlet.switch()
        if not self.is_quiet:
            self._state = self._state.moved_on(RandomState.capture())

    def wait_for(self, request: Any) -> None:
        """See ParkedRun."""
        self.request = request
        self.status = ParkedStatus.WAITING
        with outside_torch_contexts(self._modes):
            self._greenlet.parent.switch()
        self.request = None

    def streams(self) -> RandomState:
        """See ParkedRun."""
        return RandomState.capture()

    def set_streams(self, streams: RandomState) -> None:
        """See ParkedRun."""
        streams.install()

    @contextmanager
    def _surroundings(self) -> Iterator[None]:
        """They are the thread's, so they are entered around each piece of the work."""
        stream = self._own_stream if self.is_quiet else nullcontext()
        with stream, OwnDtype(self._dtype) if is_cell_at_work() else nullcontext():
            yield

    def _main(self) -> None:
        try:
            self._work()
        except StopTraining:
            pass  # the process is about to end, as the run's own turn finds out
        finally:
            self.status = ParkedStatus.FINISHED


class StandingRun(Protocol):
    """A run in memory that stands."""

    parked: ParkedRun
    overhead_seconds: float


RunT = TypeVar("RunT", bound=StandingRun)


class Group(Protocol[MemberT]):
    """Runs that advance together."""

    def do_aside(self, work: Mapping[MemberT, Aside]) -> None:
        """Let members that stand still do something outside their course."""


def aside_together(
    group: Group[MemberT],
    work: Mapping[RunT, tuple[MemberT, Callable[[], None]]],
    dtype: torch.dtype,
) -> float:
    """Let several runs of a group do something outside their course, and share the time it takes.

    Returns the seconds of each.

    Args:
        group: In which they advance.
        work: By run: it as a member, and what it does.
        dtype: Of new tensors.
    """
    if not work:
        return 0.0
    started = time.perf_counter()
    group.do_aside({member: Aside(run.parked, what, dtype) for run, (member, what) in work.items()})
    seconds = (time.perf_counter() - started) / len(work)
    for run in work:
        run.overhead_seconds += seconds
    return seconds
