"""What does a session need of the floor that trains?

The libraries' own by default; tests have one without libraries.
"""

from __future__ import annotations

import importlib
import logging
import random
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.requirements import TRAINING, too_old
from rf_notebook.runners.in_kernel import KernelFleet

if TYPE_CHECKING:
    from pathlib import Path

    from rf_notebook.core.fleet import Fleet
    from rf_notebook.core.objects import Objects
    from rf_notebook.core.ports import CommitObserver
    from rf_notebook.core.runner import ConfigRules
    from rf_notebook.core.values import Json
    from rf_notebook.session.launch import Data, Launch


class Backend(Protocol):
    """Who trains."""

    def load(self) -> None:
        """Import what training needs; takes seconds.

        Raises:
            ConfigError: when a library is too old.
        """

    def check_device(self, name: str) -> None:
        """Refuse a device that is not here.

        Raises:
            ConfigError: with the devices that there are.
        """

    def data(self, train: Any, evaluation: Any) -> Data:
        """The data of ``run_fit``.

        Raises:
            ConfigError: for what cannot be trained on.
        """

    def environment(self) -> dict[str, Json]:
        """Python, platform, device, and the settings that figures depend on."""

    def rules(
        self, folder: Path, data: Any, objects: Objects, create_model: Any, num_chunks: int
    ) -> ConfigRules:
        """What is known of configs.

        Args:
            folder: The experiment's.
            data: What ``data`` gave.
            objects: Functions and other values behind the configs' names.
            create_model: The user's loader.
            num_chunks: Chunks a pass over the data.
        """

    def fleet(
        self, folder: Path, launch: Launch, observer: CommitObserver, log: logging.Logger
    ) -> Fleet:
        """Who trains the runs of a launch.

        Args:
            folder: The experiment's.
            launch: Found to be possible.
            observer: Told of every commit.
            log: The experiment's.

        Raises:
            ConfigError: for what cannot be sent to another process.
        """

    def messages_to(self, log: logging.Logger) -> AbstractContextManager[None]:
        """While it lasts, what the libraries say in our threads goes to the log."""

    def release_threads(self) -> None:
        """Let idle workers of this thread go, before another one computes."""


class Libraries:
    """See Backend: torch, transformers, trl and peft."""

    def load(self) -> None:
        """Import trl, without what the libraries do to the cell that does so.

        trl 1.16 draws from Python's random numbers, which are the user's. bitsandbytes 0.50, where
        it is installed, tells on CPUs of a kernel that it would like.
        """
        told = list(too_old(*TRAINING))
        if told:
            raise ConfigError(" ".join(told))
        before, talker = random.getstate(), logging.getLogger("bitsandbytes")
        level = talker.level
        talker.setLevel(logging.ERROR)
        try:
            importlib.import_module("rf_notebook.training.runner")
        finally:
            talker.setLevel(level)
            random.setstate(before)

    def check_device(self, name: str) -> None:
        """See Backend."""
        from rf_notebook.training.device import check_device

        check_device(name)

    def data(self, train: Any, evaluation: Any) -> Data:
        """See Backend."""
        from rf_notebook.training.datasets import ExperimentData, as_dataset

        return ExperimentData(
            as_dataset(train, "train_dataset"),
            None if evaluation is None else as_dataset(evaluation, "eval_dataset"),
        )

    def environment(self) -> dict[str, Json]:
        """See Backend."""
        from rf_notebook.training.facts import environment

        return environment()

    def rules(
        self, folder: Path, data: Any, objects: Objects, create_model: Any, num_chunks: int
    ) -> ConfigRules:
        """See Backend."""
        from rf_notebook.training.validation import Validation

        return Validation(folder, data, objects, create_model, num_chunks)

    def fleet(
        self, folder: Path, launch: Launch, observer: CommitObserver, log: logging.Logger
    ) -> Fleet:
        """See Backend: in the kernel, or in a worker process when the launch asks for a device."""
        data: Any = launch.data
        if launch.device is not None:
            from rf_notebook.runners.process import ProcessFleet
            from rf_notebook.runners.recipe import check_portable, experiment_recipe

            check_portable(launch.configs, launch.objects)
            recipe = experiment_recipe(
                folder,
                data,
                launch.create_model,
                num_chunks=launch.started.num_chunks,
                fail_on_nan=launch.fail_on_nan,
                sample_prompts=launch.sample_prompts,
            )
            return ProcessFleet(recipe, launch.objects, device=launch.device, log=log)
        from rf_notebook.training.runner import KernelRunner

        runner = KernelRunner(
            folder,
            data,
            launch.objects,
            launch.create_model,
            num_chunks=launch.started.num_chunks,
            fail_on_nan=launch.fail_on_nan,
            sample_prompts=launch.sample_prompts,
            observer=observer,
            log=log,
        )
        return KernelFleet(runner)

    def messages_to(self, log: logging.Logger) -> AbstractContextManager[None]:
        """See Backend."""
        from rf_notebook.training.quiet import library_messages_to

        return library_messages_to(log)

    def release_threads(self) -> None:
        """See Backend."""
        from rf_notebook.training.openmp import release_workers

        release_workers()
