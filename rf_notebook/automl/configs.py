"""What does a user write? Configs with the names of RapidFire AI, any argument a List or a Range.

A config holds what was typed, checked at once by name, type and range; nothing is computed until a
run's concrete config is built, so attributes read back what was given and an attribute set later is
kept.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, ClassVar, Self

from rf_notebook.automl.arguments import Argument, arguments_of
from rf_notebook.automl.compatibility import (
    current_name,
    translate_model_kwargs,
    translate_training,
)
from rf_notebook.automl.search_space import List, Range
from rf_notebook.automl.validation import (
    check_argument,
    check_together,
    did_you_mean,
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
        twin._given.update({name: _copied(value) for name, value in self._given.items()})  # noqa: SLF001 - of its own class
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


class AdapterConfig(ArgumentsConfig):
    """Arguments of one of peft's kinds of adapters."""

    peft_type: ClassVar[str]
    """Peft's name of the kind."""


class RFLoraConfig(AdapterConfig):
    """Arguments of ``peft.LoraConfig``; each may be a List or a Range."""

    wraps = "peft.LoraConfig"
    peft_type = "LORA"


class RFIA3Config(AdapterConfig):
    """Arguments of ``peft.IA3Config``; each may be a List or a Range."""

    wraps = "peft.IA3Config"
    peft_type = "IA3"


class RFVeraConfig(AdapterConfig):
    """Arguments of ``peft.VeraConfig``; each may be a List or a Range."""

    wraps = "peft.VeraConfig"
    peft_type = "VERA"


class RFLoHaConfig(AdapterConfig):
    """Arguments of ``peft.LoHaConfig``; each may be a List or a Range."""

    wraps = "peft.LoHaConfig"
    peft_type = "LOHA"


class RFLoKrConfig(AdapterConfig):
    """Arguments of ``peft.LoKrConfig``; each may be a List or a Range."""

    wraps = "peft.LoKrConfig"
    peft_type = "LOKR"


class RFOFTConfig(AdapterConfig):
    """Arguments of ``peft.OFTConfig``; each may be a List or a Range."""

    wraps = "peft.OFTConfig"
    peft_type = "OFT"


class RFLNTuningConfig(AdapterConfig):
    """Arguments of ``peft.LNTuningConfig``; each may be a List or a Range."""

    wraps = "peft.LNTuningConfig"
    peft_type = "LN_TUNING"


class RFPromptTuningConfig(AdapterConfig):
    """Arguments of ``peft.PromptTuningConfig``; each may be a List or a Range."""

    wraps = "peft.PromptTuningConfig"
    peft_type = "PROMPT_TUNING"


class RFPromptEncoderConfig(AdapterConfig):
    """Arguments of ``peft.PromptEncoderConfig`` (P-tuning); each may be a List or a Range."""

    wraps = "peft.PromptEncoderConfig"
    peft_type = "P_TUNING"


class RFPrefixTuningConfig(AdapterConfig):
    """Arguments of ``peft.PrefixTuningConfig``; each may be a List or a Range."""

    wraps = "peft.PrefixTuningConfig"
    peft_type = "PREFIX_TUNING"


ADAPTER_CONFIGS: dict[str, type[AdapterConfig]] = {
    config.peft_type: config
    for config in (
        RFLoraConfig,
        RFIA3Config,
        RFVeraConfig,
        RFLoHaConfig,
        RFLoKrConfig,
        RFOFTConfig,
        RFLNTuningConfig,
        RFPromptTuningConfig,
        RFPromptEncoderConfig,
        RFPrefixTuningConfig,
    )
}


def adapter_config_of(peft: Mapping[str, Any] | None) -> type[AdapterConfig]:
    """The class of a run's adapter arguments, which name their kind unless it is LoRA."""
    return ADAPTER_CONFIGS[(peft or {}).get("peft_type", "LORA")]


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


TRAINING_CONFIGS: dict[str, type[TrainingConfig]] = {
    c.method: c for c in (RFSFTConfig, RFDPOConfig, RFKTOConfig, RFGRPOConfig, RFRLOOConfig)
}


class RFModelConfig:
    """One config or a family of configs: what is trained, from which base model, how.

    Args:
        model_name: The base model's name on the hub, or a path; what ``create_model_fn`` makes of it
            otherwise.
        tokenizer: Name of the tokenizer; the model's own when omitted.
        tokenizer_kwargs: For ``AutoTokenizer.from_pretrained``.
        formatting_func: Maps a row of the data to trl's columns (prompt and completion, messages,
            text).
        compute_metrics: With ``generation_config``: called with (generated texts, reference texts),
            both lists of strings. Without: trl's own, called with an EvalPrediction. Returns a dict
            of numbers.
        peft_config: An RFLoraConfig (or RFIA3Config, RFVeraConfig, ...) or several; None trains all
            weights.
        training_args: An RFSFTConfig, RFDPOConfig, RFKTOConfig, RFGRPOConfig or RFRLOOConfig, or
            several.
        model_type: "causal_lm".
        model_kwargs: For ``from_pretrained``.
        ref_model_name: DPO's or KTO's reference model; the base model without adapter when omitted.
        ref_model_type: Type of the reference model.
        ref_model_kwargs: Arguments for loading the reference model.
        reward_funcs: GRPO's or RLOO's rewards: a function, the name of a reward model, or a list of both; a
            List of such lists gives each config its own. An async function is awaited while other
            runs write.
        generation_config: Arguments of ``generate`` for ``compute_metrics``; ``max_input_length``
            shortens prompts.
        num_gpus: GPUs over which the model is spread, for one that does not fit on a single one;
            runs then train in worker processes that have so many.
        warm_start_from: A folder with an adapter, as ``export`` writes it, from which the run
            starts; methods with a reference compare with it.

    Each may be a List; dicts may hold Lists and Ranges.
    """

    FIELDS = (
        "model_name",
        "tokenizer",
        "tokenizer_kwargs",
        "formatting_func",
        "compute_metrics",
        "peft_config",
        "training_args",
        "model_type",
        "model_kwargs",
        "ref_model_name",
        "ref_model_type",
        "ref_model_kwargs",
        "reward_funcs",
        "generation_config",
        "num_gpus",
        "warm_start_from",
    )

    model_name: str | List | None
    tokenizer: str | List | None
    tokenizer_kwargs: dict[str, Any] | List | None
    formatting_func: Callable[..., Any] | List | None
    compute_metrics: Callable[..., Any] | List | None
    peft_config: AdapterConfig | List | None
    training_args: TrainingConfig | List | None
    model_type: str | List | None
    model_kwargs: dict[str, Any] | List | None
    ref_model_name: str | List | None
    ref_model_type: str | List | None
    ref_model_kwargs: dict[str, Any] | List | None
    reward_funcs: Any
    generation_config: dict[str, Any] | List | None
    num_gpus: int | None
    warm_start_from: str | List | None

    def __init__(
        self,
        model_name: str | List | None = None,
        tokenizer: str | List | None = None,
        tokenizer_kwargs: dict[str, Any] | List | None = None,
        formatting_func: Callable[..., Any] | List | None = None,
        compute_metrics: Callable[..., Any] | List | None = None,
        peft_config: AdapterConfig | List | list[AdapterConfig] | None = None,
        training_args: TrainingConfig | List | list[TrainingConfig] | None = None,
        model_type: str | List | None = "causal_lm",
        model_kwargs: dict[str, Any] | List | None = None,
        ref_model_name: str | List | None = None,
        ref_model_type: str | List | None = None,
        ref_model_kwargs: dict[str, Any] | List | None = None,
        reward_funcs: Any = None,
        generation_config: dict[str, Any] | List | None = None,
        num_gpus: int | None = None,
        warm_start_from: str | PurePath | List | None = None,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise unknown_argument("RFModelConfig", next(iter(unknown)), self.FIELDS)
        values = locals()
        for name in self.FIELDS:
            setattr(self, name, values[name])

    def given(self) -> dict[str, Any]:
        """All fields by name."""
        return {name: getattr(self, name) for name in self.FIELDS}

    def copy(self) -> RFModelConfig:
        """An independent config with the same values; functions are shared."""
        return RFModelConfig(**{name: _copied(value) for name, value in self.given().items()})

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.FIELDS:
            raise unknown_argument("RFModelConfig", name, self.FIELDS)
        if name in ("peft_config", "training_args") and isinstance(value, list):
            value = List(value)
        _check_field(name, value)
        if name in ("model_kwargs", "ref_model_kwargs") and isinstance(value, Mapping):
            value = translate_model_kwargs(f"RFModelConfig({name}=...)", value)
        object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RFModelConfig) and other.given() == self.given()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        inside = ", ".join(f"{n}={shown(n, v)}" for n, v in self.given().items() if v is not None)
        return f"RFModelConfig({inside})"


#: Of one machine.
_MOST_GPUS = 16
_CAUSAL_ONLY = (
    "trl's SFT, DPO and GRPO trainers train causal models only; use model_type='causal_lm'."
)
#: Model types and why some are refused; what a custom one is, only the user's create_model_fn
#: knows.
_MODEL_TYPES = {
    "causal_lm": None,
    "seq2seq_lm": _CAUSAL_ONLY,
    "masked_lm": _CAUSAL_ONLY,
    "custom": None,
}


def _check_field(name: str, value: Any) -> None:  # noqa: C901 - a case for each field
    """Refuse a field of RFModelConfig that cannot be; looks inside List.

    Raises:
        ConfigError: naming the field and what would do.
    """
    if isinstance(value, List):
        for item in value.values:
            _check_field(name, item)
        return
    if value is None:
        return
    wrong: str | None = None
    match name:
        case "model_name" | "tokenizer" | "ref_model_name" | "ref_model_type" | "model_type":
            if not isinstance(value, str) or not value.strip():
                wrong = "takes a name"
            elif name == "model_type":
                if value not in _MODEL_TYPES:
                    raise ConfigError(
                        f"RFModelConfig(model_type={value!r}): there is no such type; {did_you_mean(value, _MODEL_TYPES)}"
                    )
                if _MODEL_TYPES[value] is not None:
                    raise ConfigError(f"RFModelConfig(model_type={value!r}): {_MODEL_TYPES[value]}")
        case "formatting_func" | "compute_metrics":
            if not callable(value):
                wrong = "takes a function"
        case "peft_config":
            if not isinstance(value, AdapterConfig):
                wrong = "takes an RFLoraConfig or another adapter's, a List of them, or None"
        case "training_args":
            if not isinstance(value, TrainingConfig):
                wrong = "takes an RFSFTConfig, RFDPOConfig or RFGRPOConfig, or a List of them"
        case "tokenizer_kwargs" | "model_kwargs" | "ref_model_kwargs" | "generation_config":
            if not isinstance(value, Mapping) or any(not isinstance(key, str) for key in value):
                wrong = "takes a dict with names as keys"
        case "reward_funcs":
            rewards = value if isinstance(value, list | tuple) else [value]
            if not rewards or any(
                not callable(r) and not isinstance(r, str | List) for r in rewards
            ):
                wrong = "takes functions or names of reward models"
        case "warm_start_from":
            if not isinstance(value, str | PurePath):
                wrong = "takes the path of a folder"
        case "num_gpus":
            if isinstance(value, bool) or not isinstance(value, int):
                wrong = "takes a whole number"
            elif not 1 <= value <= _MOST_GPUS:
                wrong = f"takes a number of GPUs between 1 and {_MOST_GPUS}"
    if wrong is not None:
        raise ConfigError(
            f"RFModelConfig({name}={shown(name, value)}) has a {type(value).__name__}; {name} {wrong}."
        )


def _copied(value: Any) -> Any:
    if isinstance(value, ArgumentsConfig | RFModelConfig | List | Range):
        return value.copy()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return copy.copy(value) if isinstance(value, set) else value
