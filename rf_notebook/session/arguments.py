"""Are the arguments of ``run_fit`` possible? All that can be said without importing a library."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rf_notebook.automl.configs import RFModelConfig
from rf_notebook.automl.library_configs import TrainingConfig
from rf_notebook.automl.search import RFGridSearch, Search
from rf_notebook.automl.search_space import List
from rf_notebook.automl.validation import did_you_mean
from rf_notebook.core.cluster import Cluster
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.redaction import brief
from rf_notebook.engine.keep import Keep
from rf_notebook.planning.fusion import Execution
from rf_notebook.tracking.trackers import track_argument

_MOST_SAMPLES = 20
_ADDRESS = re.compile(r"auto|(ray://)?[^\s/@]+:\d{1,5}")
#: Of a storage; the second finds pyarrow's options that are secret.
_URI = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?]+")
_KEY = re.compile(r"[?&][^=&]*(key|token|secret|password)[^=&]*=", re.IGNORECASE)
_DEVICE = re.compile(r"cpu|cuda:\d{1,3}")
_MOST_DEVICES = 128

#: Worker processes: on these devices ("cpu", "cuda:N", or several joined by "+" over which a model is
#: spread), on so many GPUs, or on all ("auto"); None trains in the kernel.
Devices = tuple[str, ...] | int | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FitArguments:
    """What a call of ``run_fit`` asks for, found to be possible as far as that needs no library."""

    searches: tuple[Search, ...]
    create_model: Callable[[dict[str, Any]], tuple[Any, Any]] | None
    train_dataset: Any
    eval_dataset: Any
    num_chunks: int
    seed: int
    data_seed: int | None
    execution: Execution
    keep: Keep
    fail_on_nan: bool
    sample_prompts: int | tuple[str, ...]
    devices: Devices
    """Of worker processes."""
    cluster: Cluster | None
    """Whose devices they are; None for this machine's."""
    storage: str | None
    """Where checkpoints lie that workers of a cluster write, or wrote."""
    track: tuple[str, ...] | None
    """Which libraries show the runs; None: MLflow, and those that the configs name."""
    price_per_hour: float | None
    """Of one device."""


def fit_arguments(
    param_config: Any,
    create_model_fn: Any,
    train_dataset: Any,
    eval_dataset: Any,
    *,
    num_chunks: Any,
    num_shards: Any,
    num_gpus: Any,
    devices: Any,
    cluster: Any,
    storage: Any,
    allow_unauthenticated: Any,
    seed: Any,
    data_seed: Any,
    execution: Any,
    keep: Any,
    fail_on_nan: Any,
    sample_prompts: Any,
    track: Any,
    price_per_hour: Any,
) -> FitArguments:
    """Check the arguments of ``Experiment.run_fit``, which says what they mean.

    Raises:
        ConfigError: what is wrong, in one sentence.
    """
    chunks = _chunks(num_chunks, num_shards)
    check_num_gpus("run_fit", num_gpus)
    if devices is None and num_gpus is not None and num_gpus > 1:
        devices = num_gpus
    _check_seed("seed", seed)
    if data_seed is not None:
        _check_seed("data_seed", data_seed)
    if execution not in tuple(Execution):
        ways = tuple(map(str, Execution))
        raise ConfigError(
            f"run_fit(execution={brief(execution)}): there is no such way; {did_you_mean(execution, ways)}"
        )
    if keep not in tuple(Keep):
        raise ConfigError(
            f"run_fit(keep={brief(keep)}): there is no such policy; {did_you_mean(keep, tuple(Keep))}"
        )
    samples = _sample_prompts(sample_prompts)
    _check_create_model(create_model_fn)
    return FitArguments(
        searches=tuple(_searches(param_config)),
        create_model=create_model_fn,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        num_chunks=chunks,
        seed=seed,
        data_seed=data_seed,
        execution=Execution(execution),
        keep=Keep(keep),
        fail_on_nan=bool(fail_on_nan),
        sample_prompts=samples,
        devices=_devices(devices) if cluster is None else _of_cluster(_devices(devices)),
        cluster=_cluster(cluster, allow_unauthenticated, check_storage("run_fit", storage)),
        storage=check_storage("run_fit", storage),
        track=track_argument(track),
        price_per_hour=_price(price_per_hour),
    )


def _price(given: Any) -> float | None:
    if given is None:
        return None
    is_number = isinstance(given, int | float) and not isinstance(given, bool)
    if not is_number or not 0 <= given < math.inf:
        raise ConfigError(
            f"run_fit(price_per_hour={brief(given)}): give what an hour of one device costs, as in price_per_hour=2.49."
        )
    return float(given)


def check_num_gpus(owner: str, given: Any) -> None:
    """Refuse a number of GPUs that an experiment cannot have.

    Raises:
        ConfigError: for all but None and a whole number of at least 1.
    """
    if given is None:
        return
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise ConfigError(
            f"{owner}(num_gpus={brief(given)}): num_gpus must be a whole number; use num_gpus=1."
        )
    if given == 0:
        raise ConfigError(
            f"{owner}(num_gpus=0): to train on the CPU, set use_cpu=True in the training_args instead."
        )
    _check_count(f"{owner}(num_gpus={given})", given)


def _check_count(what: str, count: int) -> None:
    if not 1 <= count <= _MOST_DEVICES:
        raise ConfigError(f"{what}: give a number of GPUs between 1 and {_MOST_DEVICES}.")


def _devices(given: Any) -> Devices:
    what = f"run_fit(devices={brief(given)})"
    if given is None or given == "auto":
        return "auto" if given else None
    if isinstance(given, int) and not isinstance(given, bool):
        _check_count(what, given)
        return given
    listed = [given] if isinstance(given, str) else given
    if not isinstance(listed, list | tuple) or not 0 < len(listed) <= _MOST_DEVICES:
        raise ConfigError(
            f"{what}: give a list such as ['cuda:0', 'cuda:1'], a number of GPUs, or 'auto'; "
            "leave devices out to train in the kernel."
        )
    workers = [tuple(one) if isinstance(one, list | tuple) else (one,) for one in listed]
    names = [name for worker in workers for name in worker]
    if not all(isinstance(one, str) and _DEVICE.fullmatch(one) for one in names):
        raise ConfigError(
            f"{what}: a device is 'cpu' or 'cuda:0', 'cuda:1', ...; a tuple of them spreads the model "
            "of a run over these."
        )
    if len({len(worker) for worker in workers}) > 1 or not names:
        raise ConfigError(
            f"{what}: give each worker as many devices; a run moves only between workers that are alike."
        )
    gpus = [one for one in names if one != "cpu"]
    if len(set(gpus)) < len(gpus):
        raise ConfigError(f"{what}: give each GPU once; runs on one GPU share it anyway.")
    if gpus and len(gpus) < len(names):
        raise ConfigError(
            f"{what}: give GPUs or CPUs; a run would not be the same on both, so it could not move."
        )
    return tuple(map("+".join, workers))


def check_storage(owner: str, given: Any) -> str | None:
    """The address of a storage.

    Raises:
        ConfigError: for what is none, or has a password in it.
    """
    if given is None:
        return None
    address = str(given) if isinstance(given, Path) else given
    if not isinstance(address, str) or not (address.startswith("/") or _URI.match(address)):
        raise ConfigError(
            f"{owner}(storage={brief(given)}): give the address of a bucket, such as 's3://bucket/folder', or the absolute "
            "path of a folder that all machines share."
        )
    if "@" in address.partition("?")[0].partition("://")[2].partition("/")[0] or _KEY.search(
        address
    ):
        raise ConfigError(
            f"{owner}(storage=...): leave keys and passwords out of the address, for it is recorded; set them in the "
            "environment of the nodes, such as AWS_ACCESS_KEY_ID."
        )
    return address


def _cluster(given: Any, allow_unauthenticated: Any, storage: str | None) -> Cluster | None:
    if given is None:
        if allow_unauthenticated:
            raise ConfigError(
                "run_fit(allow_unauthenticated=True) is about a cluster; give cluster=, too."
            )
        return None
    if not isinstance(given, str) or not _ADDRESS.fullmatch(given):
        raise ConfigError(
            f"run_fit(cluster={brief(given)}): give the address of a running Ray cluster, such as 'auto', "
            "'10.0.0.5:6379' or 'ray://10.0.0.5:10001'."
        )
    return Cluster(
        address=given, allow_unauthenticated=bool(allow_unauthenticated), storage=storage
    )


def _of_cluster(devices: Devices) -> Devices:
    if isinstance(devices, tuple) and any("cuda" in name for name in devices):
        raise ConfigError(
            f"run_fit(devices={list(devices)!r:.80}, cluster=...): the cluster chooses the GPUs; give their number, or "
            "'auto' for all that are free."
        )
    return "auto" if devices is None else devices


def _chunks(num_chunks: Any, num_shards: Any) -> int:
    if num_shards is not None:
        if num_chunks != 4 and num_chunks != num_shards:
            raise ConfigError(
                f"run_fit has num_chunks={brief(num_chunks)} and num_shards={brief(num_shards)}; they mean the same, give one."
            )
        num_chunks = num_shards
    if isinstance(num_chunks, bool) or not isinstance(num_chunks, int) or num_chunks < 1:
        raise ConfigError(
            f"run_fit(num_chunks={brief(num_chunks)}): num_chunks must be a whole number of at least 1."
        )
    return num_chunks


def _check_seed(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
        raise ConfigError(
            f"run_fit({name}={brief(value)}): {name} must be a whole number between 0 and {2**32 - 1}."
        )


def _sample_prompts(given: Any) -> int | tuple[str, ...]:
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= _MOST_SAMPLES:
        return given
    if (
        isinstance(given, list | tuple)
        and len(given) <= _MOST_SAMPLES
        and all(isinstance(one, str) for one in given)
    ):
        return tuple(given)
    raise ConfigError(
        f"run_fit(sample_prompts={brief(given)}): give up to {_MOST_SAMPLES} texts, or how many rows of the data to ask."
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
    listed = (
        given.values
        if isinstance(given, List)
        else given
        if isinstance(given, list | tuple)
        else [given]
    )
    searches = []
    for one in listed:
        if isinstance(one, RFModelConfig):
            args = one.training_args
            first = args.values[0] if isinstance(args, List) else args
            one = (
                RFGridSearch(one, type(first).method) if isinstance(first, TrainingConfig) else one
            )
        if not isinstance(one, Search):
            raise ConfigError(
                f"run_fit(param_config=...) is a {type(given).__name__}; give RFGridSearch(configs, trainer_type) or "
                "RFRandomSearch(...) or RFOptuna(...), or a list of them for several methods side by side."
            )
        searches.append(one)
    if not searches:
        raise ConfigError(
            "run_fit(param_config=[]) has no configs; give at least one RFGridSearch or RFModelConfig."
        )
    return searches
