"""Which older spellings does a notebook use, and what do they mean today?

A spelling with an exact meaning today is translated; one without is refused with what replaces it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from rf_notebook.automl.search_space import List, Range
from rf_notebook.automl.validation import ONE_GPU
from rf_notebook.core.errors import ConfigError

#: Same meaning, another name.
_RENAMED_TRAINING = {
    "evaluation_strategy": "eval_strategy",
    "max_seq_length": "max_length",
    "no_cuda": "use_cpu",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "push_to_hub_token": "hub_token",
    "warmup_ratio": "warmup_steps",
    "include_tokens_per_second": None,
}
_RENAMED_MODEL = {"torch_dtype": "dtype", "use_auth_token": "token"}

#: Accepted for what they say, because it always holds now; refused otherwise.
_ALWAYS: dict[str, tuple[Any, str]] = {
    "save_safetensors": (True, "checkpoints are always safetensors"),
    "overwrite_output_dir": (None, "the experiment keeps its own folders"),
    "ddp_timeout_seconds": (None, "nothing is distributed"),
    "dataset_batch_size": (None, "preparing does not depend on it"),
    "logging_dir": (None, "metrics go to the experiment's record and to MLflow"),
    "save_only_adapter": (None, "adapters are always saved alone"),
    "model_adapter_name": (None, "a run has one adapter, which is trained"),
    "ref_adapter_name": (
        None,
        "the reference is the adapter that the run starts from, or the base model",
    ),
    "force_use_ref_model": (False, "give ref_model_name for a reference of its own"),
}

#: Accepted with a warning: today's trl has no such thing, and mostly the data does not need it.
_WITHOUT_EFFECT: dict[str, str] = {
    "max_prompt_length": "today's trl does not shorten prompts; shorten them in formatting_func, or set max_length.",
    "max_completion_length": "today's trl does not shorten DPO's completions apart; set max_length.",
    "max_target_length": "today's trl does not shorten completions apart; set max_length.",
}

#: No exact meaning today.
_GONE: dict[str, str] = {
    "group_by_length": "set train_sampling_strategy='group_by_length'.",
    "per_gpu_batch_size": "set per_device_train_batch_size and per_device_eval_batch_size.",
    "fp16_backend": "mixed precision is always torch's; remove it.",
    "half_precision_backend": "mixed precision is always torch's; remove it.",
    "fp16_opt_level": "it belonged to apex; set fp16=True or bf16=True.",
    "fsdp_transformer_layer_cls_to_wrap": ONE_GPU,
    "fsdp_min_num_params": ONE_GPU,
    "use_ipex": "set bf16=True on the CPU; the extension is gone from transformers.",
    "use_mps_device": "an Apple GPU is used when there is one; remove it.",
    "tpu_num_cores": "TPUs are not supported.",
    "torchdynamo": "compiled training is not supported here; remove it.",
    "dataset_num_proc_eval": "set dataset_num_proc.",
    "num_of_sequences": "set max_length and packing=True.",
    "chars_per_token": "packing counts tokens now; remove it.",
    "neftune_alpha": "set neftune_noise_alpha.",
    "infinite": "set max_steps.",
    "formatting_func": "give it to RFModelConfig(formatting_func=...).",
    "compute_metrics": "give it to RFModelConfig(compute_metrics=...).",
    "peft_config": "give it to RFModelConfig(peft_config=...).",
}


#: From ``warnings.warn`` in here to the line of the user that makes or changes a config.
_CALLER = 4


def translate_training(
    owner: str, given: Mapping[str, Any], known: Mapping[str, Any]
) -> dict[str, Any]:
    """Arguments of a training config in today's spelling.

    Raises:
        ConfigError: for a spelling without an exact meaning today, and for one given in both
            spellings.
    """
    translated: dict[str, Any] = {}
    for name, value in given.items():
        if name in known:
            _put(owner, translated, name, name, value)
        elif name in _ALWAYS:
            required, reason = _ALWAYS[name]
            if required is not None and value != required:
                raise ConfigError(f"{owner} no longer takes {name}={value!r}: {reason}. Remove it.")
        elif name == "warmup_ratio":
            _check_ratio(owner, value)
            _put(owner, translated, name, "warmup_steps", value)
        elif _RENAMED_TRAINING.get(name):
            _put(owner, translated, name, str(_RENAMED_TRAINING[name]), value)
        elif name in _WITHOUT_EFFECT:
            warnings.warn(
                f"{owner}({name}={value!r}) has no effect: {_WITHOUT_EFFECT[name]}",
                stacklevel=_CALLER,
            )
        elif name in _GONE:
            raise ConfigError(f"{owner} no longer takes {name!r}: {_GONE[name]}")
        else:
            translated[name] = value  # unknown: refused by the check that knows all arguments
    return translated


def translate_model_kwargs(owner: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of ``from_pretrained`` in today's spelling.

    Raises:
        ConfigError: for an argument given in both spellings.
    """
    translated: dict[str, Any] = {}
    for name, value in given.items():
        if name in ("load_in_4bit", "load_in_8bit"):
            if (
                value
            ):  # as a dict, which from_pretrained takes as well, so that nothing is imported here
                quantised = {"quant_method": "bitsandbytes", name: True}
                _put(owner, translated, name, "quantization_config", quantised)
            continue
        _put(owner, translated, name, _RENAMED_MODEL.get(name, name), value)
    return translated


def current_name(name: str) -> str:
    """Today's name of an argument of a training config."""
    return _RENAMED_TRAINING.get(name) or name


def _put(owner: str, target: dict[str, Any], given_as: str, name: str, value: Any) -> None:
    if name in target and target[name] != value:
        raise ConfigError(
            f"{owner} has {name!r} twice, as {given_as!r} and in its other spelling; keep one."
        )
    target[name] = value


def _check_ratio(owner: str, value: Any) -> None:
    """A share of all steps.

    Today's warmup_steps means a share exactly when it is a float below 1.
    """
    is_share: Callable[[Any], bool] = lambda v: (  # noqa: E731 - two lines long, used twice
        isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v < 1
    )
    values = (
        value.values
        if isinstance(value, List)
        else [value.start, value.end]
        if isinstance(value, Range)
        else [value]
    )
    wrong = next((v for v in values if not is_share(v)), None)
    if wrong is not None:
        raise ConfigError(
            f"{owner}(warmup_ratio={wrong!r}): a warm-up ratio must be at least 0 and below 1."
        )
