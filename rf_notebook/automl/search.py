"""Which concrete configs does a search make?"""

from __future__ import annotations

import itertools
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rf_notebook.automl.concrete import build_run_config
from rf_notebook.automl.configs import RFModelConfig
from rf_notebook.automl.library_configs import TRAINING_CONFIGS, ArgumentsConfig, TrainingConfig
from rf_notebook.automl.search_space import List, Range
from rf_notebook.automl.validation import did_you_mean
from rf_notebook.core.encoding import encode
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.objects import Objects
from rf_notebook.core.redaction import brief

if TYPE_CHECKING:
    from rf_notebook.core.run import RunConfig
    from rf_notebook.core.values import Json

#: A grid of more configs is taken for a slip.
MOST_CONFIGS = 1024


class Search(ABC):
    """Configs and a trainer; sub-classes say which concrete configs follow."""

    def __init__(
        self, configs: RFModelConfig | List | list[RFModelConfig], trainer_type: str | None = None
    ) -> None:
        self.configs = configs
        self.trainer_type = (
            self._method()
            if trainer_type is None
            else _known_method(type(self).__name__, trainer_type)
        )
        self._check()

    def templates(self) -> list[RFModelConfig]:
        """The configs as a plain list."""
        if isinstance(self.configs, List):
            return list(self.configs.values)
        return list(self.configs) if isinstance(self.configs, list | tuple) else [self.configs]

    def run_configs(
        self, objects: Objects, *, seed: int, data_seed: int | None = None
    ) -> list[RunConfig]:
        """The concrete configs, in a fixed order.

        Args:
            objects: Takes functions and other values that JSON cannot hold.
            seed: For configs that set none.
            data_seed: The experiment's seed of the data's order.

        Raises:
            ConfigError: for configs that exclude each other, and searches that make none or too
                many.
        """
        self._check()
        configs = []
        for fields in self._choices():
            configs.append(
                build_run_config(fields, self.trainer_type, objects, seed=seed, data_seed=data_seed)
            )
        return configs

    def as_given(self, objects: Objects) -> dict[str, Json]:
        """The search before it is expanded, as JSON.

        ``{"$list": [...]}`` and ``{"$range": ...}`` are its choices.
        """
        more = {name: getattr(self, name) for name in ("num_runs", "seed") if hasattr(self, name)}
        configs = [_as_given(template, objects) for template in self.templates()]
        return {
            "search": type(self).__name__,
            "trainer_type": self.trainer_type,
            "configs": configs,
            **more,
        }

    @abstractmethod
    def _choices(self) -> Iterator[dict[str, Any]]:
        """The fields of RFModelConfig of each concrete config."""

    def _method(self) -> str:
        """The method of the configs' training_args."""
        self._check_templates()
        found = {
            type(one).method for one in self._training_args() if isinstance(one, TrainingConfig)
        }
        if len(found) != 1:
            several = " and ".join(sorted(found))
            raise ConfigError(
                f"{type(self).__name__} has configs of {several}; give each method a search of its own, in a list."
                if found
                else f"{type(self).__name__}: no RFModelConfig has training_args; give it an RFSFTConfig, or another method's."
            )
        return found.pop()

    def _training_args(self) -> Iterator[Any]:
        for template in self.templates():
            args = template.training_args
            yield from args.values if isinstance(args, List) else [args]

    def _check_templates(self) -> None:
        name = type(self).__name__
        templates = self.templates()
        if not templates:
            raise ConfigError(f"{name} has no configs; give at least one RFModelConfig.")
        for template in templates:
            if not isinstance(template, RFModelConfig):
                raise ConfigError(
                    f"{name}(configs=...) holds a {type(template).__name__}; give RFModelConfig objects."
                )

    def _check(self) -> None:
        self._check_templates()
        name, wanted = type(self).__name__, TRAINING_CONFIGS[self.trainer_type]
        for one in self._training_args():
            if one is None:
                raise ConfigError(
                    f"{name}: an RFModelConfig has no training_args; give it an {wanted.__name__}."
                )
            if not isinstance(one, wanted | List):
                raise ConfigError(
                    f"{name}(trainer_type={self.trainer_type!r}) has training_args of {type(one).__name__}; "
                    f"use {wanted.__name__}, or another trainer_type."
                )

    @abstractmethod
    def copy(self) -> Search:
        """An independent search."""

    def _copied_configs(self) -> RFModelConfig | List | list[RFModelConfig]:
        return (
            [config.copy() for config in self.configs]
            if isinstance(self.configs, list)
            else self.configs.copy()
        )


class RFGridSearch(Search):
    """Every combination of the values in all Lists.

    Args:
        configs: One RFModelConfig, a list or a List of them.
        trainer_type: "SFT", "DPO", "KTO", "GRPO", "RLOO" or "Reward"; follows from the configs' training_args
            when omitted.
    """

    def _choices(self) -> Iterator[dict[str, Any]]:
        made = list(
            itertools.islice(
                itertools.chain.from_iterable(
                    _every(template.given()) for template in self.templates()
                ),
                MOST_CONFIGS + 1,
            )
        )
        if len(made) > MOST_CONFIGS:
            raise ConfigError(
                f"the grid makes more than {MOST_CONFIGS} configs; use fewer values, or RFRandomSearch(num_runs=...)."
            )
        return iter(made)

    def copy(self) -> RFGridSearch:
        """An independent search."""
        return RFGridSearch(self._copied_configs(), self.trainer_type)


class RFRandomSearch(Search):
    """``num_runs`` different configs drawn at random.

    Args:
        configs: One RFModelConfig, a list or a List of them.
        trainer_type: "SFT", "DPO", "KTO", "GRPO", "RLOO" or "Reward"; follows from the configs' training_args
            when omitted.
        num_runs: How many configs.
        seed: Seed of the draws; it does not seed the training.
    """

    def __init__(
        self,
        configs: RFModelConfig | List | list[RFModelConfig],
        trainer_type: str | None = None,
        num_runs: int = 1,
        seed: int = 42,
    ) -> None:
        if (
            isinstance(num_runs, bool)
            or not isinstance(num_runs, int)
            or not 1 <= num_runs <= MOST_CONFIGS
        ):
            raise ConfigError(
                f"RFRandomSearch(num_runs={brief(num_runs)}): num_runs must be between 1 and {MOST_CONFIGS}."
            )
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ConfigError(
                f"RFRandomSearch(seed={brief(seed)}): seed must be a whole number of at least 0."
            )
        self.num_runs = num_runs
        self.seed = seed
        super().__init__(configs, trainer_type)

    def _choices(self) -> Iterator[dict[str, Any]]:
        rng = random.Random(self.seed)
        templates = self.templates()
        seen: set[str] = set()
        scratch = Objects()
        drawn: list[dict[str, Any]] = []
        for _ in range(self.num_runs * 50):
            one = _draw(rng.choice(templates).given(), rng)
            key = build_run_config(one, self.trainer_type, scratch, seed=0).digest()
            if key not in seen:
                seen.add(key)
                drawn.append(one)
            if len(drawn) == self.num_runs:
                return iter(drawn)
        raise ConfigError(
            f"RFRandomSearch(num_runs={self.num_runs}) found only {len(drawn)} different configs; "
            "give more values, or a smaller num_runs."
        )

    def copy(self) -> RFRandomSearch:
        """An independent search."""
        return RFRandomSearch(self._copied_configs(), self.trainer_type, self.num_runs, self.seed)


def _known_method(search: str, given: Any) -> str:
    known = {name.upper(): name for name in TRAINING_CONFIGS}
    method = known.get(given.upper()) if isinstance(given, str) else None
    if method is None:
        hint = did_you_mean(given.upper() if isinstance(given, str) else given, TRAINING_CONFIGS)
        raise ConfigError(
            f"{search}(trainer_type={brief(given)}): there is no such trainer; {hint}"
        )
    return str(method)


def _as_given(value: Any, objects: Objects, key: str = "") -> Json:
    if isinstance(value, List):
        return {"$list": [_as_given(item, objects, key) for item in value.values]}
    if isinstance(value, Range):
        drawn = {
            name: getattr(value, name)
            for name in ("sample_n", "seed")
            if getattr(value, name) is not None
        }
        return {
            "$range": [value.start, value.end],
            "dtype": value.dtype,
            "log": value.log,
            "step": value.step,
            **drawn,
        }
    if isinstance(value, RFModelConfig | ArgumentsConfig):
        return {name: _as_given(item, objects, name) for name, item in value.given().items()}
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            return {
                "$dict": [
                    [encode(name, objects), _as_given(item, objects, str(name))]
                    for name, item in value.items()
                ]
            }
        return {name: _as_given(item, objects, name) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_given(item, objects, key) for item in value]
    return encode(value, objects, key)


def _every(value: Any) -> Iterator[Any]:
    """Every concrete value of something that may hold Lists, the last one varying fastest."""
    if isinstance(value, List):
        for item in value.values:
            yield from _every(item)
    elif isinstance(value, Range):
        yield from value.tried()
    elif isinstance(value, ArgumentsConfig):
        for given in _every(value.given()):
            yield type(value)(**given)
    elif isinstance(value, Mapping):
        for combination in itertools.product(*(_Again(item) for item in value.values())):
            yield dict(zip(value.keys(), combination, strict=True))
    elif isinstance(value, list | tuple) and has_choices(value):
        for combination in itertools.product(*(_Again(item) for item in value)):
            yield type(value)(combination)
    else:
        yield value


class _Again:
    """An iterable over the concrete values, so that itertools.product can take it."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __iter__(self) -> Iterator[Any]:
        return _every(self._value)


def _draw(value: Any, rng: random.Random) -> Any:
    """One concrete value at random."""
    if isinstance(value, List):
        return _draw(value.sample(rng), rng)
    if isinstance(value, Range):
        return value.sample(rng)
    if isinstance(value, ArgumentsConfig):
        return type(value)(**_draw(value.given(), rng))
    if isinstance(value, Mapping):
        return {name: _draw(item, rng) for name, item in value.items()}
    if isinstance(value, list | tuple) and has_choices(value):
        return type(value)(_draw(item, rng) for item in value)
    return value


def has_choices(value: Any) -> bool:
    """Whether several concrete values may follow from one."""
    if isinstance(value, List | Range):
        return True
    if isinstance(value, ArgumentsConfig):
        return has_choices(value.given())
    if isinstance(value, Mapping):
        return any(has_choices(item) for item in value.values())
    return isinstance(value, list | tuple) and any(has_choices(item) for item in value)
