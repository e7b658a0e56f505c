"""What is known of a config without a runner? Whether it can be trained, and with whom."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rf_notebook.store import layout
from rf_notebook.training.base_models import BaseModels, CreateModel
from rf_notebook.training.datasets import ExperimentData, FormattedData, PreparedDatasets
from rf_notebook.training.fused.eligibility import fusibility_of
from rf_notebook.training.memory_estimate import MemoryNeeds
from rf_notebook.training.trainers import Trainers

if TYPE_CHECKING:
    from rf_notebook.core.fleet import DeviceFacts
    from rf_notebook.core.objects import Objects
    from rf_notebook.core.run import RunConfig
    from rf_notebook.core.runner import Fusibility


class Validation:
    """See core.runner.ConfigRules; loads no model."""

    def __init__(
        self,
        folder: Path,
        data: ExperimentData,
        objects: Objects,
        create_model: CreateModel | None,
        num_chunks: int,
        devices: Sequence[DeviceFacts] = (),
    ) -> None:
        """Nothing is known yet.

        Args:
            folder: The experiment's.
            data: What all runs train on.
            objects: Functions and other values behind the configs' names.
            create_model: The user's loader.
            num_chunks: Chunks a pass over the data.
            devices: Of worker processes; none where runs train in this one.
        """
        models = BaseModels(create_model)
        self._trainers = trainers_of(folder, data, objects, models, num_chunks, devices)
        self._fusibility: dict[str, Fusibility] = {}
        """By the digest of a config."""

    def validate(self, config: RunConfig) -> list[str]:
        """See ConfigRules."""
        return self._trainers.validate(config)

    def fusibility(self, config: RunConfig) -> Fusibility:
        """See ConfigRules."""
        key = config.digest()
        if key not in self._fusibility:
            self._fusibility[key] = fusibility_of(config)
        return self._fusibility[key]


def trainers_of(
    folder: Path,
    data: ExperimentData,
    objects: Objects,
    models: BaseModels,
    num_chunks: int,
    devices: Sequence[DeviceFacts] = (),
) -> Trainers:
    """Who makes the trainers of an experiment.

    Args:
        folder: The experiment's.
        data: What all runs train on.
        objects: Functions and other values behind the configs' names.
        models: Keeps base models resident.
        num_chunks: Chunks a pass over the data.
        devices: Of worker processes; none where runs train in this one.
    """
    return Trainers(
        folder=folder,
        data=data,
        objects=objects,
        models=models,
        formatted=FormattedData(data, layout.data(folder)),
        prepared=PreparedDatasets(),
        num_chunks=num_chunks,
        needs=MemoryNeeds(),
        elsewhere=tuple(devices),
    )
