"""What does the text of a ``%%rapidfire run`` cell ask for?

A grid in YAML, with the names that the Python API has.

model_name: TinyLlama/TinyLlama-1.1B-Chat-v1.0
peft_config:
  r: [8, 32]                            # a list is a search over its values
  target_modules: [[q_proj, v_proj], all-linear]   # of an argument that takes lists, a list of
  choices
training_args:
  learning_rate: {range: [1e-5, 1e-3], log: true}  # for search: random
  per_device_train_batch_size: 4
trainer_type: SFT
search: {random: 8, seed: 42}           # a grid when omitted; {optuna: 40, n_initial: 8} tries 40
that Optuna suggests formatting_func: my_format              # the name of a variable of the
notebook train_dataset: train num_chunks: 8
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from rf_notebook.automl.adapter_configs import ADAPTER_CONFIGS, REFUSED_ADAPTERS
from rf_notebook.automl.configs import RFModelConfig
from rf_notebook.automl.library_configs import TRAINING_CONFIGS, ArgumentsConfig
from rf_notebook.automl.optuna_search import RFOptuna
from rf_notebook.automl.search import RFGridSearch, RFRandomSearch, Search
from rf_notebook.automl.search_space import List, Range
from rf_notebook.automl.validation import did_you_mean, unknown_argument
from rf_notebook.core.errors import ConfigError

#: Fields whose text names a variable of the notebook.
_VARIABLES = ("formatting_func", "compute_metrics", "reward_funcs")
#: Arguments of run_fit that name a variable, and those that are values.
RUN_VARIABLES = ("create_model_fn", "train_dataset", "eval_dataset")
RUN_VALUES = (
    "num_chunks",
    "num_shards",
    "seed",
    "data_seed",
    "execution",
    "keep",
    "fail_on_nan",
    "sample_prompts",
    "track",
    "devices",
)
_OWN = ("trainer_type", "search")
#: Arguments of RFOptuna besides its budget.
_OPTUNA = ("n_initial", "objective", "sampler", "pruner", "seed", "granularity")
_MOST_CHARACTERS = 100_000


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-4 is a number and yes is a word.

    YAML 1.1 wants 1.0e-4 for the one, and reads the other as true.
    """


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if not tag.endswith((":float", ":bool", ":timestamp"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:\d[\d_]*\.[\d_]*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(?:inf|Inf|INF))"
    ),
    list("-+0123456789."),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlGrid:
    """What the cell asks for, variables looked up."""

    search: Search
    run_arguments: dict[str, Any]
    """For ``run_fit``."""


def parse_grid(text: str, variables: Mapping[str, Any]) -> YamlGrid:
    """The search and the arguments of ``run_fit``.

    Args:
        text: The cell's text.
        variables: The notebook's variables.

    Raises:
        ConfigError: what is wrong, and where.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ConfigError(
            f"the cell has {len(text)} characters; a grid has at most {_MOST_CHARACTERS}."
        )
    try:
        given = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = "" if line is None else f" in line {line + 1}"
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"the cell is not YAML{where}: {problem}.") from None
    if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
        raise ConfigError(
            "the cell must hold names and values, such as 'training_args:' with lines below it."
        )
    known = (*RFModelConfig.FIELDS, *RUN_VARIABLES, *RUN_VALUES, *_OWN)
    for key in given:
        if key not in known:
            raise unknown_argument("the grid", key, known)
    trainer_type = given.get("trainer_type", "SFT")
    if trainer_type not in TRAINING_CONFIGS:
        raise ConfigError(
            f"trainer_type: {trainer_type!r} does not exist; {did_you_mean(str(trainer_type), TRAINING_CONFIGS)}"
        )
    fields = {
        key: _field(key, value, trainer_type, variables)
        for key, value in given.items()
        if key in RFModelConfig.FIELDS
    }
    arguments = {
        key: value if _is_data(key, value) else _variable(key, value, variables)
        for key, value in given.items()
        if key in RUN_VARIABLES
    }
    arguments |= {key: value for key, value in given.items() if key in RUN_VALUES}
    return YamlGrid(
        search=_search(given.get("search", "grid"), RFModelConfig(**fields), trainer_type),
        run_arguments=arguments,
    )


def _is_data(key: str, value: Any) -> bool:
    """Whether this names data on the hub or in a folder, and no variable."""
    return key.endswith("_dataset") and isinstance(value, dict)


def _field(key: str, value: Any, trainer_type: str, variables: Mapping[str, Any]) -> Any:
    if key in _VARIABLES:
        if isinstance(value, list):
            found = [_variable(key, one, variables) for one in value]
            return found if key == "reward_funcs" else List(found)
        return _variable(key, value, variables)
    if key == "peft_config":
        return _adapter(key, value)
    if key == "training_args":
        return _section(key, value, TRAINING_CONFIGS[trainer_type])
    return _choices(value) if isinstance(value, list) else value


def _adapter(key: str, value: Any) -> Any:
    if isinstance(value, list):
        return List([_adapter(key, one) for one in value])
    kind = value.get("peft_type", "LORA") if isinstance(value, dict) else "LORA"
    if kind in REFUSED_ADAPTERS:
        raise ConfigError(
            f"{key}: peft_type {kind!r} does not train here: {REFUSED_ADAPTERS[kind]}."
        )
    if kind not in ADAPTER_CONFIGS:
        raise ConfigError(
            f"{key}: peft_type {kind!r:.40} does not exist; {did_you_mean(str(kind), ADAPTER_CONFIGS)}"
        )
    given = (
        {name: one for name, one in value.items() if name != "peft_type"}
        if isinstance(value, dict)
        else value
    )
    return _section(key, given, ADAPTER_CONFIGS[kind])


def _section(key: str, value: Any, config: type[ArgumentsConfig]) -> Any:
    if value is None:
        return None
    if isinstance(value, list):
        return List([_section(key, one, config) for one in value])
    if not isinstance(value, dict):
        raise ConfigError(f"{key}: give its arguments on lines below it, not {value!r:.60}.")
    known = config.known()
    return config(**{str(name): _argument(str(name), one, known) for name, one in value.items()})


def _argument(name: str, value: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(value, dict) and "range" in value:
        return _range(name, value)
    if not isinstance(value, list):
        return value
    argument = known.get(name)
    takes_list = argument is not None and "list[" in argument.annotation
    if takes_list and not any(isinstance(one, list) for one in value):
        return value
    return _choices(value)


def _choices(values: list[Any]) -> Any:
    return List(values)


def _range(name: str, value: dict[str, Any]) -> Range:
    bounds = value["range"]
    unknown = set(value) - {"range", "log", "step", "dtype"}
    if unknown or not isinstance(bounds, list) or len(bounds) != 2:
        raise ConfigError(
            f"{name}: a range is {{range: [low, high]}}, with log: true or step: number; it is {value!r:.80}."
        )
    return Range(bounds[0], bounds[1], **{key: one for key, one in value.items() if key != "range"})


def _search(given: Any, config: RFModelConfig, trainer_type: str) -> Search:
    if given == "grid":
        return RFGridSearch(config, trainer_type)
    if isinstance(given, dict) and "random" in given and set(given) <= {"random", "seed"}:
        return RFRandomSearch(
            config, trainer_type, num_runs=given["random"], seed=given.get("seed", 42)
        )
    if isinstance(given, dict) and "optuna" in given and set(given) <= {"optuna", *_OPTUNA}:
        more = {key: value for key, value in given.items() if key != "optuna"}
        return RFOptuna(config, trainer_type, budget=given["optuna"], **more)
    raise ConfigError(
        f"search: {given!r:.60} does not exist; write 'search: grid', 'search: {{random: 8}}' or 'search: {{optuna: 40}}'."
    )


def _variable(key: str, name: Any, variables: Mapping[str, Any]) -> Any:
    """The variable of a dotted name; only names are looked up, nothing is evaluated."""
    if name is None:
        return None
    if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"{key}: {name!r:.60} is not the name of a variable.")
    first, *rest = name.split(".")
    if first not in variables:
        raise ConfigError(
            f"{key}: there is no variable {first!r}; {did_you_mean(first, [v for v in variables if v[:1] != '_'])}"
        )
    found = variables[first]
    for part in rest:
        if part.startswith("_") or not hasattr(found, part):
            raise ConfigError(f"{key}: {first!r} has no {part!r}.")
        found = getattr(found, part)
    return found
