"""What does a session need of the floor that trains?

The libraries' own by default; tests have one without libraries.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.requirements import TRAINING, too_old
from rf_notebook.runners.in_kernel import KernelFleet

if TYPE_CHECKING:
    from pathlib import Path

    from rf_notebook.core.cluster import Cluster
    from rf_notebook.core.fleet import DeviceFacts, Fleet
    from rf_notebook.core.objects import Objects
    from rf_notebook.core.ports import CommitObserver
    from rf_notebook.core.runner import ConfigRules
    from rf_notebook.core.values import Json
    from rf_notebook.session.arguments import Devices
    from rf_notebook.session.launch import Data, Launch


class Backend(Protocol):
    """Who trains."""

    def load(self) -> None:
        """Import what training needs; takes seconds.

        Raises:
            ConfigError: when a library is too old.
        """

    def gpu_count(self) -> int:
        """How many GPUs are visible."""

    def devices(
        self, wanted: Devices, stages: int, cluster: Cluster | None
    ) -> tuple[DeviceFacts, ...]:
        """The devices that worker processes train on; none to train in the kernel.

        Args:
            wanted: By the user.
            stages: GPUs over which a model is spread, of the config that asks for most.
            cluster: Whose devices; this machine's when None.

        Raises:
            ConfigError: for one that is not here, with those that there are; for workers of fewer
                GPUs than a config needs.
        """

    def data(self, train: Any, evaluation: Any) -> Data:
        """The data of ``run_fit``.

        Raises:
            ConfigError: for what cannot be trained on.
        """

    def environment(self, devices: Sequence[DeviceFacts]) -> Mapping[str, Json]:
        """Python, platform, device, and the settings that figures depend on.

        Args:
            devices: Of worker processes, the first of which is meant; none for the kernel's own.
        """

    def rules(
        self,
        folder: Path,
        data: Any,
        objects: Objects,
        create_model: Any,
        num_chunks: int,
        devices: Sequence[DeviceFacts],
    ) -> ConfigRules:
        """What is known of configs.

        Args:
            folder: The experiment's.
            data: What ``data`` gave.
            objects: Functions and other values behind the configs' names.
            create_model: The user's loader.
            num_chunks: Chunks a pass over the data.
            devices: Of worker processes; none for the kernel's own.
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
        """See Backend."""
        told = list(too_old(*TRAINING))
        if told:
            raise ConfigError(" ".join(told))
        from rf_notebook.training import import_libraries

        import_libraries()

    def gpu_count(self) -> int:
        """See Backend."""
        from rf_notebook.training.device import gpu_names

        return len(gpu_names())

    def devices(
        self, wanted: Devices, stages: int, cluster: Cluster | None
    ) -> tuple[DeviceFacts, ...]:
        """See Backend."""
        if wanted is None:
            return ()
        if cluster is not None:
            from rf_notebook.runners.cluster.probe import devices_of

            return devices_of(cluster, wanted, stages)
        from rf_notebook.runners.probe import probed
        from rf_notebook.training.device import named_devices

        return probed(named_devices(wanted, stages=stages))

    def data(self, train: Any, evaluation: Any) -> Data:
        """See Backend."""
        from rf_notebook.training.datasets import ExperimentData, as_dataset

        return ExperimentData(
            as_dataset(train, "train_dataset"),
            None if evaluation is None else as_dataset(evaluation, "eval_dataset"),
        )

    def environment(self, devices: Sequence[DeviceFacts]) -> Mapping[str, Json]:
        """See Backend."""
        from rf_notebook.training.facts import environment

        known = devices[0].environment if devices else {}
        return known or environment(use_cpu=bool(devices), processes=max(1, len(devices)))

    def rules(
        self,
        folder: Path,
        data: Any,
        objects: Objects,
        create_model: Any,
        num_chunks: int,
        devices: Sequence[DeviceFacts],
    ) -> ConfigRules:
        """See Backend."""
        from rf_notebook.training.validation import Validation

        return Validation(folder, data, objects, create_model, num_chunks, devices)

    def fleet(
        self, folder: Path, launch: Launch, observer: CommitObserver, log: logging.Logger
    ) -> Fleet:
        """See Backend: in the kernel, or in worker processes when the launch asks for devices."""
        data: Any = launch.data
        if launch.devices:
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
                processes=len(launch.devices),
                stages=launch.devices[0].gpus,
            )
            if launch.cluster is not None:
                from rf_notebook.runners.cluster.fleet import ClusterFleet
                from rf_notebook.store.storage_place import known_place

                return ClusterFleet(
                    recipe,
                    launch.objects,
                    folder=folder,
                    cluster=launch.cluster,
                    devices=launch.devices,
                    storage=None if launch.cluster.storage is None else known_place(folder),
                    log=log,
                )
            return ProcessFleet(
                recipe, launch.objects, folder=folder, devices=launch.devices, log=log
            )
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
