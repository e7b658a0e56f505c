"""How does a user write the arguments of a class of peft or trl? Any of them a List or a Range.

A config holds what was typed, checked at once by name, type and range; attributes read back what was
given and an attribute set later is kept.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from rf_notebook.automl.arguments import Argument, arguments_of
from rf_notebook.automl.compatibility import (
    current_name,
    translate_training,
)
from rf_notebook.automl.search_space import List, Range
from rf_notebook.automl.validation import (
    check_argument,
    check_together,
    shown,
    unknown_argument,
)
from rf_notebook.core.errors import ConfigError


class ArgumentsConfig:
    """The arguments of one class of peft or trl, as typed."""

    wraps: ClassVar[str]
    """The class whose arguments these are."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args:
            raise ConfigError(
                f"{type(self).__name__} takes named arguments only, as in {type(self).__name__}(name=value)."
            )
        object.__setattr__(self, "_given", {})
        for name, value in self._translated(kwargs).items():
            self._set(name, value)
        check_together(type(self).__name__, self._given)

    @classmethod
    def known(cls) -> Mapping[str, Argument]:
        """The arguments that there are, by name."""
        return arguments_of(cls.wraps)

    @classmethod
    def _translated(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        return dict(given)

    def given(self) -> dict[str, Any]:
        """The arguments that were set, in today's spelling."""
        return dict(self._given)

    def copy(self) -> Self:
        """An independent config with the same values.

        Functions and models among them are shared.
        """
        twin = type(self)()
        twin._given.update({name: copied(value) for name, value in self._given.items()})  # noqa: SLF001 - of its own class
        return twin

    def _set(self, name: str, value: Any) -> None:
        argument = self.known().get(name)
        if argument is None:
            raise unknown_argument(type(self).__name__, name, self.known())
        check_argument(type(self).__name__, argument, value)
        self._given[name] = value

    def __setattr__(self, name: str, value: Any) -> None:
        for today, translated in self._translated({name: value}).items():
            self._set(today, translated)
        check_together(type(self).__name__, self._given)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        today = current_name(name)
        if today in self._given:
            return self._given[today]
        argument = self.known().get(today)
        if argument is None:
            raise AttributeError(str(unknown_argument(type(self).__name__, name, self.known())))
        return argument.default

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.known()})

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, type(self))
            and type(other) is type(self)
            and other.given() == self.given()
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={shown(name, value)}" for name, value in self._given.items())
        return f"{type(self).__name__}({inside})"


class TrainingConfig(ArgumentsConfig):
    """Arguments of one of trl's trainers; older spellings are translated."""

    method: ClassVar[str]
    """The trainer_type that goes with it."""

    @classmethod
    def _translated(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        return translate_training(cls.__name__, given, cls.known())


class RFSFTConfig(TrainingConfig):
    """Arguments of ``trl.SFTConfig``; each may be a List or a Range."""

    wraps = "trl.SFTConfig"
    method = "SFT"


class RFDPOConfig(TrainingConfig):
    """Arguments of ``trl.DPOConfig``; each may be a List or a Range."""

    wraps = "trl.DPOConfig"
    method = "DPO"


class RFKTOConfig(TrainingConfig):
    """Arguments of ``trl.KTOConfig``; each may be a List or a Range."""

    wraps = "trl.KTOConfig"
    method = "KTO"


class RFGRPOConfig(TrainingConfig):
    """Arguments of ``trl.GRPOConfig``; each may be a List or a Range."""

    wraps = "trl.GRPOConfig"
    method = "GRPO"


class RFRLOOConfig(TrainingConfig):
    """Arguments of ``trl.RLOOConfig``; each may be a List or a Range."""

    wraps = "trl.RLOOConfig"
    method = "RLOO"


class RFRewardConfig(TrainingConfig):
    """Arguments of ``trl.RewardConfig``; each may be a List or a Range."""

    wraps = "trl.RewardConfig"
    method = "Reward"


TRAINING_CONFIGS: dict[str, type[TrainingConfig]] = {
    c.method: c
    for c in (RFSFTConfig, RFDPOConfig, RFKTOConfig, RFGRPOConfig, RFRLOOConfig, RFRewardConfig)
}


def copied(value: Any) -> Any:
    """A value of a config that can be changed without changing the config; functions are shared."""
    if isinstance(value, ArgumentsConfig | List | Range):
        return value.copy()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return copy.copy(value) if isinstance(value, set) else value
