"""What does a user write? Configs with the names of RapidFire AI, any argument a List or a Range.

A config holds what was typed, checked at once by name, type and range; nothing is computed until a
run's concrete config is built, so attributes read back what was given and an attribute set later is
kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

from rf_notebook.automl.adapter_configs import AdapterConfig
from rf_notebook.automl.compatibility import translate_model_kwargs
from rf_notebook.automl.library_configs import TrainingConfig, copied
from rf_notebook.automl.search_space import List
from rf_notebook.automl.validation import (
    did_you_mean,
    shown,
    unknown_argument,
)
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.redaction import brief


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
        training_args: An RFSFTConfig, RFDPOConfig, RFKTOConfig, RFGRPOConfig, RFRLOOConfig or RFRewardConfig, or
            several.
        model_type: "causal_lm", or "sequence_classification" for Reward, which means it anyway.
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
        return RFModelConfig(**{name: copied(value) for name, value in self.given().items()})

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
_CAUSAL_ONLY = "these methods train causal models only; use model_type='causal_lm'."
#: Model types and why some are refused; what a custom one is, only the user's create_model_fn
#: knows.
_MODEL_TYPES = {
    "causal_lm": None,
    "sequence_classification": None,
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
                        f"RFModelConfig(model_type={brief(value)}): there is no such type; {did_you_mean(value, _MODEL_TYPES)}"
                    )
                if _MODEL_TYPES[value] is not None:
                    raise ConfigError(
                        f"RFModelConfig(model_type={brief(value)}): {_MODEL_TYPES[value]}"
                    )
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
