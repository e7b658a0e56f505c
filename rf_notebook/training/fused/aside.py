"""How are several runs evaluated at once, and how do they write samples at once?

Each run's own ``evaluate()`` or ``generate()`` continues in a greenlet, outside the run's course,
and its forwards wait for joint ones like those of a training step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

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
