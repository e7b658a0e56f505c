"""Can this ``run_fit`` work? Answered before any model is loaded."""

from __future__ import annotations

import importlib
import logging
import random
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.automl.optuna_search import RFOptuna
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.events import ExperimentStarted, LaunchRecorded
from rf_notebook.core.metrics import check_metric
from rf_notebook.core.objects import Objects, plain_name
from rf_notebook.core.redaction import private, private_json
from rf_notebook.core.requirements import TRAINING, too_old
from rf_notebook.session.versions import versions
from rf_notebook.store.adapters import check_adapter

if TYPE_CHECKING:
    from rf_notebook.automation.optuna_policy import OptunaPolicy
    from rf_notebook.automl.search import Search
    from rf_notebook.core.run import RunConfig
    from rf_notebook.core.values import Json
    from rf_notebook.session.arguments import FitArguments
    from rf_notebook.training.datasets import ExperimentData


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """A ``run_fit`` that was found to be possible."""

    searches: tuple[Search, ...]
    configs: tuple[RunConfig, ...]
    objects: Objects
    data: ExperimentData
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
    device: str | None
    """Of the worker process; None trains in the kernel."""
    warnings: tuple[str, ...]
    """What may not work, in sentences."""

    def recorded(self) -> LaunchRecorded:
        """What the record keeps of it, without secrets."""
        from rf_notebook.training.facts import environment

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
            environment=environment(),
        )

    def functions(self) -> dict[str, str]:
        """The source of the functions that configs refer to, and of the loader, by name; without secrets."""
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
            OptunaPolicy(search, self.objects, seed=seed, data_seed=data_seed, chunks_a_pass=chunks) for search in found
        ]


def prepare(
    folder: Path,
    name: str,
    given: FitArguments,
    *,
    known: Objects,
    cells: Sequence[str] = (),
    before_import: Callable[[], None] = lambda: None,
) -> Launch:
    """Check what needs the libraries and the data; nothing is written and no model is loaded.

    Args:
        folder: Of the experiment.
        name: Of the experiment.
        given: The arguments of ``run_fit``.
        known: What the experiment's configs refer to so far: the same objects keep their names.
        cells: Texts of the cells that were run, the launching one last.
        before_import: Called before the libraries are imported, which takes seconds.

    Raises:
        ConfigError: what is wrong, in one sentence.
    """
    before_import()
    _import_libraries()
    objects, has_eval = known.for_launch(), given.eval_dataset is not None
    search_given = [one.as_given(objects) for one in given.searches]  # first: objects are counted as they were written
    configs = tuple(
        config
        for search in given.searches
        for config in search.run_configs(objects, seed=given.seed, data_seed=given.data_seed)
    )
    for search in given.searches:
        _check_objective(search, configs, objects, has_eval=has_eval)
    for number, config in enumerate(configs, start=1):
        _check_config(number, config, has_loader=given.create_model is not None, has_eval=has_eval)

    from rf_notebook.training.datasets import ExperimentData, as_dataset

    if given.train_dataset is None:
        raise ConfigError("run_fit needs a train_dataset; give a datasets.Dataset, a list of dicts or a pandas frame.")
    data = ExperimentData(
        as_dataset(given.train_dataset, "train_dataset"),
        as_dataset(given.eval_dataset, "eval_dataset") if has_eval else None,
    )
    objects.seal()
    told = [*_unused_trackers(configs), *_check_with_libraries(folder, configs, data, objects, given.num_chunks)]
    started = ExperimentStarted(
        name=name,
        identity=uuid.uuid4().hex,
        num_chunks=given.num_chunks,
        seed=given.seed,
        data_seed=given.data_seed,
        execution=str(given.execution),
        keep=str(given.keep),
        data=data.fingerprint(),
        versions=versions(),
    )
    return Launch(
        searches=given.searches,
        configs=configs,
        objects=objects,
        data=data,
        started=started,
        search=search_given,
        launched_as=name,
        cells=tuple(cells),
        create_model=given.create_model,
        fail_on_nan=given.fail_on_nan,
        sample_prompts=given.sample_prompts,
        device=given.device,
        warnings=tuple(told),
    )


def check_starts(new: Iterable[RunConfig]) -> None:
    """Refuse adapters to start from that are not adapters; recorded runs have their own copy.

    Raises:
        ConfigError: naming the folder.
    """
    for path in dict.fromkeys(config.extras.get("warm_start_from") for config in new):
        if path is not None:
            check_adapter(Path(path))


def _import_libraries() -> None:
    """Import trl, without what the libraries do to the cell that does so.

    trl 1.16 draws from Python's random numbers, which are the user's. bitsandbytes 0.50, where it is installed, tells on
    CPUs of a kernel that it would like.
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


def _check_objective(search: Search, configs: Sequence[RunConfig], objects: Objects, *, has_eval: bool) -> None:
    metrics = [metric for metric, _ in search.objectives] if isinstance(search, RFOptuna) else []
    for metric in metrics:
        if metric.startswith("eval_") and not has_eval:
            raise ConfigError(
                f"RFOptuna's objective is {metric!r} but run_fit has no eval_dataset; give one, or another objective."
            )
        of_search = [config for config in configs if config.method == search.trainer_type]
        check_metric("RFOptuna", metric, of_search, evaluates=has_eval, sources=objects.sources())


def _check_config(number: int, config: RunConfig, *, has_loader: bool, has_eval: bool) -> None:
    if not config.model["model_name"] and not has_loader:
        raise ConfigError(
            f"config {number} has no model_name; give RFModelConfig one, or give run_fit a create_model_fn."
        )
    strategy = config.training.get("eval_strategy", "no")
    if not has_eval and strategy not in ("no", False):
        raise ConfigError(
            f"config {number} has eval_strategy={strategy!r} but run_fit has no eval_dataset; give one, or remove eval_strategy."
        )
    if not has_eval and config.extras.get("compute_metrics") is not None:
        raise ConfigError(
            f"config {number} has compute_metrics but run_fit has no eval_dataset; give one, or remove compute_metrics."
        )
    if config.extras.get("generation_config") is not None and config.extras.get("compute_metrics") is None:
        raise ConfigError(
            f"config {number} has a generation_config but no compute_metrics to judge the texts; give both or neither."
        )


def _unused_trackers(configs: Iterable[RunConfig]) -> list[str]:
    given = [config.training.get("report_to") for config in configs]
    names = dict.fromkeys(str(name) for one in given for name in (one if isinstance(one, list) else [one]) if name)
    unused = [name for name in names if name not in ("none", "all", "mlflow")]
    if not unused:
        return []
    return [
        f"report_to={' and '.join(map(repr, unused))} has no effect: figures go to the panel, the experiment's record and "
        "MLflow. Nothing else is written or sent."
    ]


def _check_with_libraries(
    folder: Path, configs: Iterable[RunConfig], data: ExperimentData, objects: Objects, num_chunks: int
) -> list[str]:
    """What only the data, the methods, and trl's and peft's own classes know."""
    from rf_notebook.training.validation import Validation

    rules = Validation(folder, data, objects, None, num_chunks)
    tried: set[str] = set()
    told: dict[str, list[int]] = {}
    for number, config in enumerate(configs, start=1):
        if config.digest() in tried:
            continue
        tried.add(config.digest())
        try:
            for sentence in rules.validate(config):
                told.setdefault(sentence, []).append(number)
        except ConfigError as error:
            raise ConfigError(f"config {number}: {error}") from None
    return [f"{_configs_words(numbers)}: {sentence}" for sentence, numbers in told.items()]


def _configs_words(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"config {numbers[0]}"
    if numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"configs {numbers[0]} to {numbers[-1]}"
    return f"configs {', '.join(map(str, numbers))}"
