"""Can this ``run_fit`` work, and is it the experiment that was recorded? Answered before any model is loaded."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import inspect
import logging
import random
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.automl.configs import RFModelConfig, TrainingConfig
from rf_notebook.automl.optuna_search import RFOptuna
from rf_notebook.automl.search import RFGridSearch, Search
from rf_notebook.automl.search_space import List
from rf_notebook.automl.validation import did_you_mean
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.events import ExperimentStarted, LaunchRecorded
from rf_notebook.core.metrics import check_metric
from rf_notebook.core.objects import Objects, plain_name
from rf_notebook.core.redaction import private, private_json
from rf_notebook.core.requirements import TRAINING, too_old
from rf_notebook.core.run import RunConfig
from rf_notebook.core.values import Json
from rf_notebook.engine.keep import Keep
from rf_notebook.planning.fusion import Execution

if TYPE_CHECKING:
    from rf_notebook.automation.optuna_policy import OptunaPolicy
    from rf_notebook.training.datasets import ExperimentData

_DISTRIBUTIONS = ("rf-notebook", "torch", "transformers", "trl", "peft", "accelerate", "datasets")
#: Likewise, where they are installed.
_MAY_BE_THERE = ("bitsandbytes",)
_MOST_SAMPLES = 20


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
    param_config: Any,
    create_model_fn: Any,
    train_dataset: Any,
    eval_dataset: Any,
    *,
    num_chunks: Any,
    num_shards: Any,
    num_gpus: Any,
    seed: Any,
    data_seed: Any,
    execution: Any,
    keep: Any,
    fail_on_nan: bool,
    sample_prompts: Any,
    known: Objects,
    cells: Sequence[str] = (),
    before_import: Callable[[], None] = lambda: None,
) -> Launch:
    """Check every argument of ``run_fit``, cheap things first; nothing is written and no model loaded.

    ``known`` is what the experiment's configs refer to so far: the same objects keep their names. ``cells`` are the texts
    of the cells that were run, the launching one last.

    ``before_import`` is called when all that needs no library is found right: from here on it takes seconds.

    Raises:
        ConfigError: what is wrong, in one sentence.
    """
    num_chunks = _chunks(num_chunks, num_shards)
    check_num_gpus("run_fit", num_gpus)
    _check_seed("seed", seed)
    if data_seed is not None:
        _check_seed("data_seed", data_seed)
    if execution not in tuple(Execution):
        ways = tuple(map(str, Execution))
        raise ConfigError(
            f"run_fit(execution={execution!r}): there is no such way; {did_you_mean(str(execution), ways)}"
        )
    if keep not in tuple(Keep):
        raise ConfigError(f"run_fit(keep={keep!r}): there is no such policy; {did_you_mean(str(keep), tuple(Keep))}")
    samples = _sample_prompts(sample_prompts)
    _check_create_model(create_model_fn)
    searches = _searches(param_config)
    before_import()
    _import_libraries()
    objects = known.for_launch()
    search_given = [search.as_given(objects) for search in searches]  # first: objects are counted as they were written
    configs = tuple(
        config for search in searches for config in search.run_configs(objects, seed=seed, data_seed=data_seed)
    )
    for search in searches:
        _check_objective(search, configs, objects, has_eval=eval_dataset is not None)
    for number, config in enumerate(configs, start=1):
        _check_config(number, config, has_loader=create_model_fn is not None, has_eval=eval_dataset is not None)

    from rf_notebook.training.datasets import ExperimentData, as_dataset

    if train_dataset is None:
        raise ConfigError("run_fit needs a train_dataset; give a datasets.Dataset, a list of dicts or a pandas frame.")
    data = ExperimentData(
        as_dataset(train_dataset, "train_dataset"),
        None if eval_dataset is None else as_dataset(eval_dataset, "eval_dataset"),
    )
    objects.seal()
    told = [*_unused_trackers(configs), *_check_with_libraries(folder, configs, data, objects, num_chunks)]
    started = ExperimentStarted(
        name=name,
        identity=uuid.uuid4().hex,
        num_chunks=num_chunks,
        seed=seed,
        data_seed=data_seed,
        execution=str(execution),
        keep=str(keep),
        data=data.fingerprint(),
        versions=versions(),
    )
    return Launch(
        searches=tuple(searches),
        configs=configs,
        objects=objects,
        data=data,
        started=started,
        search=search_given,
        launched_as=name,
        cells=tuple(cells),
        create_model=create_model_fn,
        fail_on_nan=bool(fail_on_nan),
        sample_prompts=samples,
        warnings=tuple(told),
    )


def check_num_gpus(owner: str, given: Any) -> None:
    """Refuse a number of GPUs that an experiment cannot have.

    Raises:
        ConfigError: for all but None and 1.
    """
    if isinstance(given, bool) or not isinstance(given, int | None) or (given is not None and given < 0):
        raise ConfigError(f"{owner}(num_gpus={given!r}): num_gpus must be a whole number; use num_gpus=1.")
    if given == 0:
        raise ConfigError(f"{owner}(num_gpus=0): to train on the CPU, set use_cpu=True in the training_args instead.")
    if given is None or given == 1:
        return
    raise ConfigError(
        f"{owner}(num_gpus={given}): all runs of an experiment share one GPU. Use num_gpus=1; for more GPUs, start a kernel "
        "for each (CUDA_VISIBLE_DEVICES=0, 1, ...) with an experiment of its own."
    )


def check_starts(new: Iterable[RunConfig]) -> None:
    """Refuse adapters to start from that are none; recorded runs have their own copy.

    Raises:
        ConfigError: naming the folder.
    """
    from rf_notebook.training.warm_start import check_adapter

    for path in dict.fromkeys(config.extras.get("warm_start_from") for config in new):
        if path is not None:
            check_adapter(Path(path))


def versions() -> dict[str, str]:
    """Of the packages that decide figures."""
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    for name in _MAY_BE_THERE:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


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


def _chunks(num_chunks: Any, num_shards: Any) -> int:
    if num_shards is not None:
        if num_chunks != 4 and num_chunks != num_shards:
            raise ConfigError(
                f"run_fit has num_chunks={num_chunks!r} and num_shards={num_shards!r}; they mean the same, give one."
            )
        num_chunks = num_shards
    if isinstance(num_chunks, bool) or not isinstance(num_chunks, int) or num_chunks < 1:
        raise ConfigError(f"run_fit(num_chunks={num_chunks!r}): num_chunks must be a whole number of at least 1.")
    return num_chunks


def _check_seed(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
        raise ConfigError(f"run_fit({name}={value!r}): {name} must be a whole number between 0 and {2**32 - 1}.")


def _sample_prompts(given: Any) -> int | tuple[str, ...]:
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= _MOST_SAMPLES:
        return given
    if isinstance(given, list | tuple) and len(given) <= _MOST_SAMPLES and all(isinstance(one, str) for one in given):
        return tuple(given)
    raise ConfigError(
        f"run_fit(sample_prompts={given!r:.80}): give up to {_MOST_SAMPLES} texts, or how many rows of the data to ask."
    )


def _check_create_model(function: Any) -> None:
    if function is None:
        return
    if not callable(function):
        raise ConfigError(
            f"run_fit(create_model_fn=...) is a {type(function).__name__}; "
            "give a function of the model config that returns (model, tokenizer)."
        )
    try:
        inspect.signature(function).bind({})
    except TypeError:
        name = getattr(function, "__name__", "create_model_fn")
        raise ConfigError(
            f"{name} must take one argument, the model config; its signature is {inspect.signature(function)}."
        ) from None
    except ValueError:
        return  # a built-in without a signature


def _searches(given: Any) -> list[Search]:
    """One search or several side by side; a config without a search is a grid of its own."""
    listed = given.values if isinstance(given, List) else given if isinstance(given, list | tuple) else [given]
    searches = []
    for one in listed:
        if isinstance(one, RFModelConfig):
            args = one.training_args
            first = args.values[0] if isinstance(args, List) else args
            one = RFGridSearch(one, type(first).method) if isinstance(first, TrainingConfig) else one
        if not isinstance(one, Search):
            raise ConfigError(
                f"run_fit(param_config=...) is a {type(given).__name__}; give RFGridSearch(configs, trainer_type) or "
                "RFRandomSearch(...) or RFOptuna(...), or a list of them for several methods side by side."
            )
        searches.append(one)
    if not searches:
        raise ConfigError("run_fit(param_config=[]) has no configs; give at least one RFGridSearch or RFModelConfig.")
    return searches


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
    from rf_notebook.training.runner import KernelRunner

    runner = KernelRunner(folder, data, objects, None, num_chunks=num_chunks)
    tried: set[str] = set()
    told: dict[str, list[int]] = {}
    for number, config in enumerate(configs, start=1):
        if config.digest() in tried:
            continue
        tried.add(config.digest())
        try:
            for sentence in runner.validate(config):
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
