"""A ``run_fit`` that was found to be possible: what it trains, and what the record keeps of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rf_notebook.automl.optuna_search import RFOptuna
from rf_notebook.core.events import ExperimentStarted, LaunchRecorded
from rf_notebook.core.objects import Objects, plain_name
from rf_notebook.core.redaction import private, private_json

if TYPE_CHECKING:
    from rf_notebook.automation.optuna_policy import OptunaPolicy
    from rf_notebook.automl.search import Search
    from rf_notebook.core.cluster import Cluster
    from rf_notebook.core.fleet import DeviceFacts
    from rf_notebook.core.run import RunConfig
    from rf_notebook.core.values import Json


class Data(Protocol):
    """What all runs of an experiment train on."""

    @property
    def evaluation(self) -> Any | None:
        """The rows that runs are evaluated on."""

    def fingerprint(self) -> dict[str, Json]:
        """What tells this data from other data."""

    def origin(self) -> dict[str, Json]:
        """Where it is from, as far as it says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A ``run_fit`` that was found to be possible."""

    searches: tuple[Search, ...]
    configs: tuple[RunConfig, ...]
    objects: Objects
    data: Data
    started: ExperimentStarted
    search: Json
    """The configs as given."""
    launched_as: str
    """The name that the launching cell gave the experiment; a replay has another."""
    cells: tuple[str, ...]
    """Texts of the cells that were run, the launching one last; empty in a script."""
    create_model: Callable[[dict[str, Any]], tuple[Any, Any]] | None
    fail_on_nan: bool
    sample_prompts: int | tuple[str, ...]
    devices: tuple[DeviceFacts, ...]
    """Of worker processes, one each; none trains in the kernel."""
    cluster: Cluster | None
    """Where they are; None for this machine."""
    trackers: tuple[str, ...]
    """Which libraries show the runs, besides the panel."""
    environment: Mapping[str, Json]
    """Python, platform, device, and the settings that figures depend on."""
    warnings: tuple[str, ...]
    """What may not work, in sentences."""

    def recorded(self) -> LaunchRecorded:
        """What the record keeps of it, without secrets."""
        prompts = self.sample_prompts
        options: dict[str, Json] = {
            "experiment_name": self.launched_as,
            "create_model_fn": None if self.create_model is None else plain_name(self.create_model),
            "fail_on_nan": self.fail_on_nan,
            "sample_prompts": prompts if isinstance(prompts, int) else list(prompts),
        }
        return LaunchRecorded(
            cells=tuple(private(cell) for cell in self.cells),
            search=private_json(self.search),
            options=private_json(options),
            data=private_json(self.data.origin()),
            environment=self.environment,
        )

    def functions(self) -> dict[str, str]:
        """The source of the functions that configs refer to, and of the loader, by name.

        Without secrets.
        """
        known = Objects()
        known.update(self.objects)
        if self.create_model is not None:
            known.put(plain_name(self.create_model), self.create_model)
        return {name: private(source) for name, source in known.sources().items()}

    def studies(self, until_over: Callable[[], object]) -> list[OptunaPolicy]:
        """Who runs the searches that learn while they train.

        Args:
            until_over: Waits until the experiment has no more to train.
        """
        from rf_notebook.automation.optuna_policy import OptunaPolicy

        seed, data_seed, chunks = self.started.seed, self.started.data_seed, self.started.num_chunks
        found = [search for search in self.searches if isinstance(search, RFOptuna)]
        for search in found:
            search.until_over = until_over
        return [
            OptunaPolicy(search, self.objects, seed=seed, data_seed=data_seed, chunks_a_pass=chunks)
            for search in found
        ]
