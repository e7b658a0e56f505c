"""An engine over real trainers in a worker process, which leaves what each trainer had in files."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rf_notebook.core.events import RunAdded
from rf_notebook.core.fleet import DeviceFacts
from rf_notebook.core.objects import Objects
from rf_notebook.core.run import RunConfig
from rf_notebook.core.runner import ChunkRunner, LiveListener
from rf_notebook.core.state import ExperimentState
from rf_notebook.core.values import Json
from rf_notebook.engine.loop import Engine
from rf_notebook.planning.fusion import Execution
from rf_notebook.runners.process import ProcessFleet
from rf_notebook.runners.recipe import ExperimentRecipe, experiment_recipe
from rf_notebook.store.lease import this_process
from rf_notebook.store.memory import MemoryStore
from tests.exactness.cases import ON_CPU
from tests.exactness.models import create


@dataclass(frozen=True)
class WatchedRecipe:
    """The recipe of every real experiment, with a runner that is watched."""

    real: ExperimentRecipe
    results: str
    """The folder for what trainers had when their runs ended."""

    @contextmanager
    def cooked(
        self, folder: Path, objects: Objects, listener: LiveListener, log: logging.Logger
    ) -> Iterator[tuple[ChunkRunner, Mapping[str, Json]]]:
        import torch

        from rf_notebook.training import runner as module
        from tests.exactness.harness import WatchedRunner

        results = Path(self.results)

        class SavingRunner(WatchedRunner):
            def release(self, *run_ids: int) -> None:
                super().release(*run_ids)
                for run_id in run_ids:
                    if run_id not in self.results:
                        continue
                    found = self.results[run_id]
                    torch.save(found, results / f"{run_id}-{len(found['history'])}.pt")

        module.KernelRunner = SavingRunner  # type: ignore[misc]
        with self.real.cooked(folder, objects, listener, log) as made:
            yield made


def results_of(folder: Path, run_id: int) -> dict[str, Any]:
    """What the trainer of a run had last; one that moved leaves a file wherever it was."""
    import torch

    files = (folder / "results").glob(f"{run_id}-*.pt")
    last = max(files, key=lambda file: int(file.stem.partition("-")[2]))
    found: dict[str, Any] = torch.load(last, weights_only=True)
    return found


@contextmanager
def engine_in_worker(
    folder: Path,
    data: tuple[Any, Any],
    configs: Sequence[RunConfig],
    objects: Objects,
    *,
    num_chunks: int,
    execution: Execution = Execution.EXACT,
    workers: int = 1,
    stages: int = 1,
) -> Iterator[Engine]:
    """An engine with a run for each config; ``folder / "results"`` takes what each trainer had.

    Args:
        folder: The experiment's.
        data: To train on, and to evaluate with.
        configs: Of the runs.
        objects: Functions and other values behind the configs' names.
        num_chunks: Chunks a pass over the data.
        execution: How runs share a device.
        workers: Processes.
        stages: Devices of each, over which models are spread.
    """
    from rf_notebook.training.datasets import ExperimentData
    from rf_notebook.training.validation import Validation

    (folder / "results").mkdir(parents=True)
    rows = ExperimentData(*data)
    real = experiment_recipe(
        folder,
        rows,
        create,
        num_chunks=num_chunks,
        fail_on_nan=False,
        sample_prompts=0,
        stages=stages,
    )
    fleet = ProcessFleet(
        WatchedRecipe(real, str(folder / "results")),
        objects,
        folder=folder,
        devices=[DeviceFacts(name=_name(number, stages), gpus=stages) for number in range(workers)],
        log=logging.Logger("worker"),
    )
    store = MemoryStore()
    engine = Engine(
        store,
        fleet,
        ExperimentState(),
        fence=store.acquire(this_process()),
        folder=folder,
        rules=Validation(folder, rows, objects, create, num_chunks),
        execution=execution,
    )
    engine.commit([RunAdded(run_id=i, config=config) for i, config in enumerate(configs, start=1)])
    try:
        yield engine
    finally:
        fleet.close()


def _name(number: int, stages: int) -> str:
    first = number * stages
    return "+".join("cpu" if ON_CPU else f"cuda:{first + stage}" for stage in range(stages))
