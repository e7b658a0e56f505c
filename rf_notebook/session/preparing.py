"""Can this ``run_fit`` work? Answered before any model is loaded."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rf_notebook.automl.optuna_search import RFOptuna
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.events import ExperimentStarted
from rf_notebook.core.metrics import check_metric
from rf_notebook.core.redaction import REDACTED, secrets_in
from rf_notebook.core.values import text
from rf_notebook.core.versions import versions
from rf_notebook.session.launch import Launch
from rf_notebook.store.adapters import check_adapter
from rf_notebook.tracking.trackers import trackers_of

if TYPE_CHECKING:
    from rf_notebook.automl.search import Search
    from rf_notebook.core.cluster import Cluster
    from rf_notebook.core.fleet import DeviceFacts
    from rf_notebook.core.objects import Objects
    from rf_notebook.core.run import RunConfig
    from rf_notebook.core.runner import ConfigRules
    from rf_notebook.session.arguments import Devices, FitArguments
    from rf_notebook.session.backend import Backend


def prepare(
    folder: Path,
    name: str,
    given: FitArguments,
    *,
    known: Objects,
    backend: Backend,
    cells: Sequence[str] = (),
    is_replay: bool = False,
    at_work: Launch | None = None,
    before_import: Callable[[], None] = lambda: None,
) -> Launch:
    """Check what needs the libraries and the data; nothing is written and no model is loaded.

    Args:
        folder: The experiment's folder.
        name: The experiment's name.
        given: The arguments of ``run_fit``.
        known: What the experiment's configs refer to so far: the same objects keep their names.
        backend: Who trains.
        cells: Texts of the cells that were run, the launching one last.
        is_replay: Whether the cells are another machine's, which may have had other devices.
        at_work: The launch that trains already; its cluster is not asked again for what it gave.
        before_import: Called before the libraries are imported, which takes seconds.

    Raises:
        ConfigError: what is wrong, in one sentence.
    """
    _check_process()
    before_import()
    backend.load()
    objects, has_eval = known.for_launch(), given.eval_dataset is not None
    search_given = [
        one.as_given(objects) for one in given.searches
    ]  # first: objects are counted as they were written
    configs = tuple(
        config
        for search in given.searches
        for config in search.run_configs(objects, seed=given.seed, data_seed=given.data_seed)
    )
    for search in given.searches:
        _check_objective(search, configs, objects, has_eval=has_eval)
    for number, config in enumerate(configs, start=1):
        _check_config(number, config, has_loader=given.create_model is not None, has_eval=has_eval)
    cluster = None if is_replay else given.cluster  # other people's cells join none
    if at_work is not None and cluster is not None and cluster == at_work.cluster:
        devices = at_work.devices
    else:
        devices = _devices(backend, given.devices, cluster, configs, is_replay=is_replay)

    if given.train_dataset is None:
        raise ConfigError(
            "run_fit needs a train_dataset; give a datasets.Dataset, a list of dicts or a pandas frame."
        )
    data = backend.data(given.train_dataset, given.eval_dataset)
    objects.seal()
    trackers = given.track
    told_of_trackers: list[str] = []
    if is_replay:
        trackers = ("mlflow",)  # other people's cells send nothing
    elif trackers is None:
        trackers, told_of_trackers = trackers_of(configs)
    told = [
        *told_of_trackers,
        *_checked(backend.rules(folder, data, objects, None, given.num_chunks, devices), configs),
    ]
    prompts = given.sample_prompts if isinstance(given.sample_prompts, tuple) else ()
    told += _secrets_told(prompts)
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
        devices=devices,
        cluster=cluster,
        trackers=trackers,
        environment=backend.environment(devices),
        warnings=tuple(told),
    )


def _secrets_told(prompts: Sequence[str]) -> list[str]:
    """That texts of the record have no secrets, where they had some."""
    found = secrets_in("\n".join(prompts))
    if not found:
        return []
    return [
        f"sample_prompts holds what looks like {', '.join(found)}: the record has {REDACTED} in its place, and a replay "
        "would ask that, too."
    ]


def _devices(
    backend: Backend,
    wanted: Devices,
    cluster: Cluster | None,
    configs: Sequence[RunConfig],
    *,
    is_replay: bool,
) -> tuple[DeviceFacts, ...]:
    """The devices that are asked for, by the call or by a config that needs several GPUs.

    A replay takes those that there are.
    """
    stages = max((config.num_gpus for config in configs), default=1)
    if wanted is None and stages > 1:
        wanted = "auto"
    try:
        return backend.devices(wanted, stages, cluster)
    except ConfigError:
        if not is_replay:
            raise
    return backend.devices("auto", 1, None)


def _check_process() -> None:
    """Refuse a process whose libraries are no longer those that are installed.

    Raises:
        ConfigError: naming what replaced them.
    """
    if "unsloth" in sys.modules:
        raise ConfigError(
            "Unsloth is imported in this kernel and has replaced parts of transformers, TRL and PEFT, so runs would not "
            "be those of plain TRL. Restart the kernel and leave it out; what is lost is its kernels for a single run."
        )


def check_starts(new: Iterable[RunConfig]) -> None:
    """Refuse adapters to start from that are not adapters; recorded runs have their own copy.

    Raises:
        ConfigError: naming the folder.
    """
    for path in dict.fromkeys(config.extras.get("warm_start_from") for config in new):
        if path is not None:
            check_adapter(Path(text(path)))


def _check_objective(
    search: Search, configs: Sequence[RunConfig], objects: Objects, *, has_eval: bool
) -> None:
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
    if (
        config.extras.get("generation_config") is not None
        and config.extras.get("compute_metrics") is None
    ):
        raise ConfigError(
            f"config {number} has a generation_config but no compute_metrics to judge the texts; give both or neither."
        )


def _checked(rules: ConfigRules, configs: Iterable[RunConfig]) -> list[str]:
    """What only the data, the methods, and trl's and peft's own classes know."""
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
