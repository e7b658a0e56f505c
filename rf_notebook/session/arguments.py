"""Are the arguments of ``run_fit`` possible? All that can be said without importing a library."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rf_notebook.automl.configs import RFModelConfig, TrainingConfig
from rf_notebook.automl.search import RFGridSearch, Search
from rf_notebook.automl.search_space import List
from rf_notebook.automl.validation import did_you_mean
from rf_notebook.core.errors import ConfigError
from rf_notebook.engine.keep import Keep
from rf_notebook.planning.fusion import Execution

_MOST_SAMPLES = 20
_DEVICE = re.compile(r"cpu|cuda:\d{1,3}")


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
    device: str | None
    """Of the worker process, "cpu" or "cuda:N"; None trains in the kernel."""


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
    seed: Any,
    data_seed: Any,
    execution: Any,
    keep: Any,
    fail_on_nan: Any,
    sample_prompts: Any,
) -> FitArguments:
    """Check the arguments of ``Experiment.run_fit``, which says what they mean.

    Raises:
        ConfigError: what is wrong, in one sentence.
    """
    chunks = _chunks(num_chunks, num_shards)
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
        raise ConfigError(
            f"run_fit(keep={keep!r}): there is no such policy; {did_you_mean(str(keep), tuple(Keep))}"
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
        device=_device(devices),
    )


def check_num_gpus(owner: str, given: Any) -> None:
    """Refuse a number of GPUs that an experiment cannot have.

    Raises:
        ConfigError: for all but None and 1.
    """
    if (
        isinstance(given, bool)
        or not isinstance(given, int | None)
        or (given is not None and given < 0)
    ):
        raise ConfigError(
            f"{owner}(num_gpus={given!r}): num_gpus must be a whole number; use num_gpus=1."
        )
    if given == 0:
        raise ConfigError(
            f"{owner}(num_gpus=0): to train on the CPU, set use_cpu=True in the training_args instead."
        )
    if given is None or given == 1:
        return
    raise ConfigError(
        f"{owner}(num_gpus={given}): all runs of an experiment share one GPU. Use num_gpus=1; for more GPUs, start a kernel "
        "for each (CUDA_VISIBLE_DEVICES=0, 1, ...) with an experiment of its own."
    )


def _device(devices: Any) -> str | None:
    if devices is None:
        return None
    listed = [devices] if isinstance(devices, str) else devices
    if not isinstance(listed, list | tuple) or len(listed) != 1:
        raise ConfigError(
            f"run_fit(devices={devices!r:.80}): give one device in a list, such as ['cuda:0'] or ['cpu'], for a worker process "
            "of its own; leave devices out to train in the kernel."
        )
    if not isinstance(listed[0], str) or not _DEVICE.fullmatch(listed[0]):
        raise ConfigError(
            f"run_fit(devices={devices!r:.80}): a device is 'cpu' or 'cuda:0', 'cuda:1', ..."
        )
    return listed[0]


def _chunks(num_chunks: Any, num_shards: Any) -> int:
    if num_shards is not None:
        if num_chunks != 4 and num_chunks != num_shards:
            raise ConfigError(
                f"run_fit has num_chunks={num_chunks!r} and num_shards={num_shards!r}; they mean the same, give one."
            )
        num_chunks = num_shards
    if isinstance(num_chunks, bool) or not isinstance(num_chunks, int) or num_chunks < 1:
        raise ConfigError(
            f"run_fit(num_chunks={num_chunks!r}): num_chunks must be a whole number of at least 1."
        )
    return num_chunks


def _check_seed(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32:
        raise ConfigError(
            f"run_fit({name}={value!r}): {name} must be a whole number between 0 and {2**32 - 1}."
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
