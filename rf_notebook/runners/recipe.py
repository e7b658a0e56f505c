"""What does a worker process make its runner of?

A value that travels there: the experiment's data, loader and settings.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import cloudpickle

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.run import RunConfig, objects_in
from rf_notebook.store import layout
from rf_notebook.store.folders import remove_folder

if TYPE_CHECKING:
    from rf_notebook.core.objects import Objects
    from rf_notebook.core.runner import ChunkRunner, LiveListener
    from rf_notebook.core.values import Json


class Recipe(Protocol):
    """Makes a runner in the process that it was sent to."""

    def cooked(
        self, folder: Path, objects: Objects, listener: LiveListener, log: logging.Logger
    ) -> AbstractContextManager[tuple[ChunkRunner, Mapping[str, Json]]]:
        """The runner, and what its device is; both for as long as the context lasts.

        Args:
            folder: The experiment's, where it runs.
            objects: Takes the functions and other values that the kernel sends.
            listener: Hears of every step.
            log: Its lines go to the experiment's log.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentRecipe:
    """Of every real experiment."""

    train: bytes
    """A function that gives the training data for the experiment's folder, by cloudpickle."""
    evaluation: bytes | None
    create_model: bytes | None
    """The user's loader, by cloudpickle."""
    num_chunks: int
    fail_on_nan: bool
    sample_prompts: int | tuple[str, ...]
    settings: Mapping[str, Json]
    """Of torch, as in the kernel."""
    stages: int = 1
    """Devices over which models are spread."""

    @contextmanager
    def cooked(
        self, folder: Path, objects: Objects, listener: LiveListener, log: logging.Logger
    ) -> Iterator[tuple[ChunkRunner, Mapping[str, Json]]]:
        """See Recipe."""
        from rf_notebook.training import import_libraries

        import_libraries()
        from rf_notebook.training.datasets import ExperimentData
        from rf_notebook.training.device import spread_over
        from rf_notebook.training.facts import environment
        from rf_notebook.training.quiet import library_messages_to
        from rf_notebook.training.runner import KernelRunner
        from rf_notebook.training.settings import use_settings

        use_settings(self.settings)
        spread_over(self.stages)
        train = cloudpickle.loads(self.train)(folder)
        evaluation = None if self.evaluation is None else cloudpickle.loads(self.evaluation)(folder)
        runner = KernelRunner(
            folder,
            ExperimentData(train, evaluation),
            objects,
            None if self.create_model is None else cloudpickle.loads(self.create_model),
            num_chunks=self.num_chunks,
            fail_on_nan=self.fail_on_nan,
            sample_prompts=self.sample_prompts,
            listener=listener,
            log=log,
        )
        with library_messages_to(log):
            yield runner, environment()


def experiment_recipe(
    folder: Path,
    data: Any,
    create_model: Any,
    *,
    num_chunks: int,
    fail_on_nan: bool,
    sample_prompts: int | tuple[str, ...],
    processes: int = 1,
    stages: int = 1,
) -> ExperimentRecipe:
    """What a worker needs of an experiment.

    Args:
        folder: The experiment's.
        data: The ExperimentData that all runs train on.
        create_model: The user's loader.
        num_chunks: Chunks a pass over the data.
        fail_on_nan: Whether a loss that is NaN or infinite ends a run.
        sample_prompts: What every run answers at each boundary.
        processes: How many workers there are; they share torch's threads.
        stages: Devices of each, over which models are spread.

    Raises:
        ConfigError: for a loader or data that cannot be sent to another process.
    """
    from rf_notebook.training.datasets import opener_of
    from rf_notebook.training.settings import settings_now

    place = layout.worker_data(folder)
    remove_folder(folder, place.relative_to(folder).as_posix())
    train, evaluation = (
        opener_of(rows, folder, place / name, layout.data(folder) / name)
        for rows, name in ((data.train, "train"), (data.evaluation, "eval"))
    )
    return ExperimentRecipe(
        train=pickled(train, "train_dataset"),
        evaluation=None if data.evaluation is None else pickled(evaluation, "eval_dataset"),
        create_model=None if create_model is None else pickled(create_model, "create_model_fn"),
        num_chunks=num_chunks,
        fail_on_nan=fail_on_nan,
        sample_prompts=sample_prompts,
        settings=settings_now(processes=processes),
        stages=stages,
    )


def check_portable(configs: Iterable[RunConfig], objects: Objects) -> None:
    """Refuse configs whose functions and other objects cannot be sent to a worker.

    Raises:
        ConfigError: naming the first one.
    """
    for name in dict.fromkeys(name for config in configs for name in objects_in(config.as_json())):
        pickled(objects.get(name), name.partition("@")[0])


def pickled(value: Any, name: str) -> bytes:
    """A value as bytes that another process reads.

    Args:
        value: A function, an object, data.
        name: What the user calls it.

    Raises:
        ConfigError: when it cannot be sent.
    """
    try:
        made: bytes = cloudpickle.dumps(value)
    except Exception as error:  # noqa: BLE001 - objects of the user's may raise anything
        raise ConfigError(
            f"{name} cannot be sent to a worker process: {error}. Make what it needs inside of it, or leave out devices=."
        ) from None
    return made
