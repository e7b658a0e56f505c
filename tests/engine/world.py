"""An engine over the fake runner, in this process or in a worker, turned by hand."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, ClassVar

from rf_notebook.core.events import RunAdded
from rf_notebook.core.operations import CloneRun, DeleteRun, ResumeRun, StopRun
from rf_notebook.core.run import RunConfig
from rf_notebook.core.state import fold
from rf_notebook.engine.loop import Engine
from rf_notebook.engine.turns import Idle
from rf_notebook.planning.fusion import Execution
from rf_notebook.store.lease import this_process
from rf_notebook.store.memory import MemoryStore
from rf_notebook.testing.fake_runner import FakeRunner, fake_config
from tests.engine.remote import RemoteFleet
from tests.engine.simulated import SimulatedFleet


class World:
    """A folder, a store, a runner and an engine; ``restart`` keeps the first two only."""

    execution = Execution.EXACT
    workers = 0
    """Processes that the runner lives in; none for this one."""
    is_carried = False
    """Whether those are reached as workers of a cluster are."""
    simulates: tuple[random.Random, int, int] | None = None
    """Who draws which device is next, how many there are, and how many GPUs each has; None for the
    runner of ``workers``."""
    fleets: ClassVar[list[RemoteFleet]] = []
    """Those that were started, to be closed when the test is over."""

    def __init__(
        self,
        folder: Path,
        configs: list[RunConfig] | None = None,
        *,
        store: Any = None,
        **runner: Any,
    ) -> None:
        self.folder, self.runner_options = folder, runner
        self.store = store or MemoryStore()
        self.open()
        if configs:
            self.engine.commit(
                [RunAdded(run_id=i, config=c) for i, c in enumerate(configs, start=1)]
            )

    def open(self, **engine: Any) -> None:
        fence = self.store.acquire(this_process(), take_over=True)
        options = {"on_step": lambda _run_id, _step: None} | self.runner_options
        rules = FakeRunner(self.folder)
        self.runner: Any
        if self.simulates is not None:
            self.runner = SimulatedFleet(self.folder, *self.simulates, **options)
        elif self.workers:
            self.runner = RemoteFleet(
                self.folder, workers=self.workers, is_carried=self.is_carried, **options
            )
        else:
            self.runner = FakeRunner(self.folder, **options)
        self.engine = Engine(
            self.store,
            self.runner,
            fold(self.store.read()),
            fence=fence,
            folder=self.folder,
            rules=rules,
            execution=self.execution,
            **engine,
        )
        if isinstance(self.runner, RemoteFleet):
            self.runner.engine = self.engine
            self.fleets.append(self.runner)
        self.state = self.engine.state

    restart = open

    def turn(self, times: int = 1) -> Any:
        for _ in range(times):
            done = self.engine.turn()
        return done

    def finish(self) -> None:
        while not isinstance(self.engine.turn(), Idle):
            pass

    def ask(self, operation: Any) -> Any:
        """Submit and turn until it is answered."""
        future = self.engine.mailbox.submit(operation)
        while not future.done():
            self.engine.turn()
        return future.result()

    def stop(self, run_id: int) -> Any:
        return self.engine.mailbox.submit(StopRun(run_id=run_id))

    def resume(self, run_id: int) -> Any:
        return self.engine.mailbox.submit(ResumeRun(run_id=run_id))

    def delete(self, run_id: int) -> Any:
        return self.engine.mailbox.submit(DeleteRun(run_id=run_id))

    def clone(self, run_id: int, *, warm: bool = False, config: RunConfig | None = None) -> Any:
        config = config or self.state.record(run_id).config
        return self.engine.mailbox.submit(
            CloneRun(run_id=run_id, config=config, edits={}, warm_start=warm)
        )

    def losses(self, run_id: int) -> list[tuple[int, float]]:
        return [(p.step, p.metrics["loss"]) for p in self.state.record(run_id).all_points()]


def configs(count: int = 3) -> list[RunConfig]:
    return [
        fake_config(learning_rate=0.05 * (i + 1), batch_size=2 + i, seed=i) for i in range(count)
    ]


def alone(folder: Path, config: RunConfig) -> list[tuple[int, float]]:
    """The losses of a config that trains by itself."""
    world = World(folder / "alone", [config])
    world.finish()
    return world.losses(1)
