"""Can this argument take this value? Answered when it is typed, in one sentence."""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import cache
from typing import Any

from rf_notebook.automl.arguments import Argument, enum_values
from rf_notebook.automl.search_space import List, Range
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.redaction import REDACTED, brief, is_secret_key
from rf_notebook.core.values import is_array


def unknown_argument(owner: str, name: str, known: Iterable[str]) -> ConfigError:
    """The refusal of an argument that does not exist, with the nearest that does."""
    near = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    hint = (
        f"; did you mean {near[0]!r}?"
        if near
        else ". See help() of the class it wraps for what it takes."
    )
    return ConfigError(f"{owner} has no argument {name!r}{hint}")


def did_you_mean(value: object, choices: Iterable[str]) -> str:
    """The end of a sentence about a value that is none of the choices."""
    listed = list(choices)
    text = value[:_LONGEST_WORD] if isinstance(value, str) else ""
    near = difflib.get_close_matches(text, listed, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
    return f"choose one of {', '.join(map(repr, listed[:8]))}{more}."


def shown(name: str, value: object) -> str:
    """A value as a message shows it: short, without secrets."""
    if is_secret_key(name) and isinstance(value, str):
        return REDACTED
    return brief(value)


def check_argument(owner: str, argument: Argument, value: object) -> None:
    """Refuse a value that the argument cannot take; looks inside List and Range.

    Raises:
        ConfigError: naming the class, the argument, the value and what would do.
    """
    name = argument.name
    check_value(owner, name, value)
    if isinstance(value, List):
        for item in value.values:
            check_argument(owner, argument, item)
        return
    if isinstance(value, Range):
        for bound in (value.start, value.end):
            check_argument(owner, argument, int(bound) if value.dtype == "int" else float(bound))
        return
    if isinstance(value, Mapping):
        for inner in value.values():
            if isinstance(inner, List | Range):
                return  # a search space inside a dict: its values are checked when they are chosen
    if isinstance(value, Enum):
        value = value.value
    refused = _REFUSED.get(name)
    if refused is not None and refused[0](value):
        raise ConfigError(f"{owner}({name}={shown(name, value)}): {refused[1]}")
    choices = _choices(name, owner)
    if (owner == "RFDPOConfig" and name == "loss_type") or name == "report_to":
        _check_each(owner, name, choices, value)
        return
    if not _fits(argument.annotation, value):
        raise ConfigError(
            f"{owner}({name}={shown(name, value)}) has a {type(value).__name__}; {name} takes {_words(argument.annotation)}."
        )
    limit = _LIMITS.get(name)
    if (
        limit is not None
        and value is not None
        and isinstance(value, int | float)
        and not limit[0](value)
    ):
        raise ConfigError(f"{owner}({name}={shown(name, value)}): {name} must be {limit[1]}.")
    if choices and value not in choices:
        raise ConfigError(
            f"{owner}({name}={shown(name, value)}): there is no such {name}; {did_you_mean(value, choices)}"
        )


def check_value(owner: str, name: str, value: object) -> None:
    """Refuse what is no value of any argument.

    Raises:
        ConfigError: for arrays and for numbers that no computer counts with.
    """
    if is_array(value):
        raise ConfigError(
            f"{owner}({name}={shown(name, value)}): a {type(value).__name__} is no value; give one of its elements, "
            "or List(...) to try several."
        )
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise ConfigError(
            f"{owner}({name}=...): a number of {value.bit_length()} bits is too large."
        )


def _check_each(owner: str, name: str, choices: tuple[str, ...], value: object) -> None:
    """For arguments that take one of their choices or a list of several: DPO's losses, trackers."""
    given = list(value) if isinstance(value, list | tuple) else [value]
    may_be_empty = name == "report_to"
    for one in given or ([] if may_be_empty else [None]):
        check_value(owner, name, one)
        if one not in choices and not (one is None and may_be_empty):
            raise ConfigError(
                f"{owner}({name}={shown(name, value)}): there is no such {name}; {did_you_mean(one, choices)}"
            )


def check_together(owner: str, values: Mapping[str, Any]) -> None:
    """Refuse arguments that exclude each other, where all of them are single values.

    Raises:
        ConfigError: naming both.
    """
    if values.get("bf16") is True and values.get("fp16") is True:
        raise ConfigError(f"{owner} has bf16=True and fp16=True; choose one precision.")
    if values.get("load_best_model_at_end") is True and values.get("eval_strategy", "no") == "no":
        raise ConfigError(
            f"{owner} has load_best_model_at_end=True without evaluation; set eval_strategy and eval_steps."
        )
    if values.get("load_best_model_at_end") is True and values.get("save_strategy") in (
        "chunk",
        "shard",
    ):
        raise ConfigError(
            f"{owner} has load_best_model_at_end=True and save_strategy={values['save_strategy']!r}; the best checkpoint is "
            "chosen among evaluations, so give save_strategy the value of eval_strategy, or leave it out."
        )
    if (
        values.get("padding_free") is True
        and values.get("packing") is not True
        and values.get("max_length", 1)
    ):
        raise ConfigError(
            f"{owner} has padding_free=True without packing; set packing=True or max_length=None."
        )
    if values.get("packing") is True and values.get("max_length", 1) is None:
        raise ConfigError(
            f"{owner} has packing=True and max_length=None; packing needs a max_length."
        )


# ---------------------------------------------------------------- what values are impossible

#: Of a number: more than a double has room for. Of a word: nobody has mistyped a longer one.
_MOST_BITS, _LONGEST_WORD = 1000, 100
_Check = Callable[[Any], bool]

_POSITIVE = (lambda v: v >= 1, "at least 1")
_ABOVE_ZERO = (lambda v: math.isfinite(v) and v > 0, "a finite number above 0")
_NOT_NEGATIVE = (lambda v: math.isfinite(v) and v >= 0, "a finite number of at least 0")
_SHARE = (lambda v: 0 <= v < 1, "at least 0 and below 1")

_LIMITS: dict[str, tuple[_Check, str]] = {
    **dict.fromkeys(
        (
            "r",
            "per_device_train_batch_size",
            "per_device_eval_batch_size",
            "gradient_accumulation_steps",
            "max_length",
            "max_completion_length",
            "max_prompt_length",
            "num_iterations",
            "steps_per_generation",
            "pad_to_multiple_of",
        ),
        _POSITIVE,
    ),
    **dict.fromkeys(
        ("logging_steps", "eval_steps", "save_steps", "num_train_epochs", "adam_epsilon"),
        _ABOVE_ZERO,
    ),
    **dict.fromkeys(("lora_alpha", "temperature"), _ABOVE_ZERO),
    **dict.fromkeys(
        (
            "learning_rate",
            "weight_decay",
            "warmup_steps",
            "max_grad_norm",
            "neftune_noise_alpha",
            "beta",
        ),
        _NOT_NEGATIVE,
    ),
    **dict.fromkeys(("lora_dropout", "adam_beta1", "adam_beta2", "label_smoothing_factor"), _SHARE),
    "max_steps": (lambda v: v == -1 or v >= 1, "at least 1, or -1 to train by epochs"),
    "num_generations": (
        lambda v: v >= 2,
        "at least 2, for completions are compared with each other",
    ),
    "seed": (lambda v: 0 <= v < 2**32, "between 0 and 4294967295"),
    "data_seed": (lambda v: 0 <= v < 2**32, "between 0 and 4294967295"),
    "top_p": (lambda v: 0 < v <= 1, "above 0 and at most 1"),
}

_ONE_PROCESS = "runs of one experiment share a process and a device; remove it."
ONE_GPU = (
    "all runs of an experiment share the base model, which is whole on one GPU or spread over several. Remove fsdp and fsdp_config; "
    "a model that is too large for one GPU is spread by RFModelConfig(num_gpus=2), or fits in 4 bits with "
    "model_kwargs={'device_map': 'auto', 'load_in_4bit': True}."
)
_SHARED_CASTS = (
    "it casts the base model that all runs share; use bf16=True or fp16=True, which does not."
)

_REFUSED: dict[str, tuple[_Check, str]] = {
    "psoft_svd": (
        lambda given: given == "lowrank",
        "peft seeds the process's random stream for it, which other runs and cells draw from; remove it.",
    ),
    "generator_seed": (
        lambda given: given is not None,
        "the generator's state is in no checkpoint, so a continued run would draw other noise; remove it.",
    ),
    "deepspeed": (bool, _ONE_PROCESS),
    "fsdp": (bool, ONE_GPU),
    "fsdp_config": (bool, ONE_GPU),
    "parallelism_config": (bool, _ONE_PROCESS),
    "fp16_full_eval": (bool, _SHARED_CASTS),
    "bf16_full_eval": (bool, _SHARED_CASTS),
    "auto_find_batch_size": (
        bool,
        "a run that changes its batch size changes its plan; set per_device_train_batch_size.",
    ),
    "use_liger_kernel": (
        bool,
        "it patches the model classes of the whole process, other runs included; remove it.",
    ),
    "use_transformers_continuous_batching": (
        bool,
        "it keeps a server of its own on the shared base model; remove it.",
    ),
    "use_vllm": (
        bool,
        "generation uses the resident base model, so no vLLM server is needed; remove it.",
    ),
    "torch_compile": (bool, "compiled graphs would be built again for every run; remove it."),
    "push_to_hub": (
        bool,
        "nothing is uploaded during an experiment; call export(run, path) and upload that.",
    ),
    "enable_jit_checkpoint": (
        bool,
        "it replaces the process's signal handlers; the experiment has its own checkpoints.",
    ),
    "resume_from_checkpoint": (
        bool,
        "the experiment continues its runs itself; call run_fit again under the same name.",
    ),
    "log_completions_hub_repo": (
        bool,
        "nothing is uploaded during an experiment; completions are in the samples view.",
    ),
    "megatron_config": (bool, _ONE_PROCESS),
    "model_init_kwargs": (
        bool,
        "the base model is loaded before the trainer; use RFModelConfig(model_kwargs=...).",
    ),
}


#: Of transformers 5.3 and newer; a test looks each up in its source.
_TRACKERS = (
    *(
        "none",
        "all",
        "azure_ml",
        "clearml",
        "codecarbon",
        "comet_ml",
        "dagshub",
        "dvclive",
        "flyte",
        "kubeflow",
    ),
    *("mlflow", "neptune", "swanlab", "tensorboard", "trackio", "wandb"),
)

#: Of trl 1.16; a test looks each up in trl's source.
_LOSSES: dict[str, tuple[str, ...]] = {
    "RFSFTConfig": ("nll", "dft", "chunked_nll"),
    "RFDPOConfig": (
        *(
            "sigmoid",
            "hinge",
            "ipo",
            "exo_pair",
            "nca_pair",
            "robust",
            "bco_pair",
            "sppo_hard",
            "aot",
            "aot_unpaired",
        ),
        *("apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
    ),
    "RFKTOConfig": ("kto", "apo_zero_unpaired"),
    "RFGRPOConfig": ("grpo", "dapo", "bnpo", "dr_grpo", "cispo", "sapo", "luspo", "vespo"),
}


def _choices(name: str, owner: str) -> tuple[str, ...]:
    match name:
        case "lr_scheduler_type":
            return enum_values("SchedulerType")
        case "optim":
            return enum_values("OptimizerNames")
        case "eval_strategy" | "logging_strategy":
            return enum_values("IntervalStrategy")
        case "save_strategy":
            return (
                *enum_values("SaveStrategy"),
                "chunk",
                "shard",
            )  # the last two are RapidFire AI's
        case "report_to":
            return _TRACKERS
        case "packing_strategy":
            return ("bfd", "bfd_split", "wrapped")
        case "truncation_mode":
            return ("keep_start", "keep_end")
        case "loss_type":
            return _LOSSES.get(owner, ())
        case _:
            return ()


# ---------------------------------------------------------------- annotations, read as text


@cache
def _annotation(text: str) -> ast.expr | None:
    try:
        node = ast.parse(text, mode="eval").body
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return _annotation(node.value)
        return node
    except SyntaxError:
        return None


def _fits(annotation: str, value: object) -> bool:
    node = _annotation(annotation)
    return True if node is None else _matches(node, value)


_SIMPLE: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "dict": (dict, Mapping),
    "list": (list, tuple, set, frozenset),
    "tuple": (list, tuple),
    "set": (list, tuple, set, frozenset),
}


def _matches(node: ast.expr, value: object) -> bool:
    """Whether a value fits an annotation; names that are not built-in types accept anything."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()  # a numpy number
    match node:
        case ast.BinOp(op=ast.BitOr()):
            return _matches(node.left, value) or _matches(node.right, value)
        case ast.Constant(value=None):
            return value is None
        case ast.Constant(value=str() as text):
            return _fits(text, value)
        case ast.Subscript(value=ast.Name(id="Optional")):
            return value is None or _matches(node.slice, value)
        case ast.Subscript(value=ast.Name(id="Union")):
            members = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            return any(_matches(member, value) for member in members)
        case ast.Subscript(value=ast.Name(id="Literal")):
            return value in _literal_values(node)
        case ast.Subscript(value=ast.Name(id=name)):
            return _matches(ast.Name(id=name.lower()), value)
        case ast.Name(id=name) if name in _SIMPLE:
            if isinstance(value, bool) and name in ("int", "float"):
                return False
            return isinstance(value, _SIMPLE[name])
        case _:
            return True


def _literal_values(node: ast.Subscript) -> list[object]:
    members = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    return [member.value for member in members if isinstance(member, ast.Constant)]


_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a string",
    "bool": "True or False",
    "dict": "a dict",
    "list": "a list",
    "tuple": "a tuple",
    "set": "a list",
}


def _words(annotation: str) -> str:
    """What an annotation allows, in words."""
    node = _annotation(annotation)
    words: list[str] = []

    def collect(part: ast.expr) -> None:
        match part:
            case ast.BinOp():
                collect(part.left)
                collect(part.right)
            case ast.Constant(value=None):
                words.append("None")
            case ast.Constant(value=str() as text):
                words.append(_words(text))
            case ast.Subscript(value=ast.Name(id="Optional")):
                collect(part.slice)
                words.append("None")
            case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=members)):
                for member in members:
                    collect(member)
            case ast.Subscript(value=ast.Name(id="Literal")):
                words.extend(map(repr, _literal_values(part)))
            case ast.Subscript(value=ast.Name(id=name)) | ast.Name(id=name):
                words.append(_WORDS.get(name.lower(), name))
            case _:
                words.append(ast.unparse(part))

    if node is not None:
        collect(node)
    return " or ".join(dict.fromkeys(words)) or annotation
