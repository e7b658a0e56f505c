"""Which arguments do peft's and trl's config classes take?

Read from their source, so that nothing is imported.

Importing trl takes seconds and loads torch; a config must be refused in the cell that types it, at
once. The classes are dataclasses, so their arguments, annotations and defaults stand in the class
bodies. Where a later version moves the source, the class itself is imported instead.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rf_notebook.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a config class."""

    name: str
    annotation: str
    """As in the source."""
    default: Any
    """UNKNOWN when the source computes it."""


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = _Unknown()

_TRAINING = ("transformers", "training_args.py", "TrainingArguments")
_TRL_BASE = ("trl", "trainer/base_config.py", "_BaseConfig")
#: Where those of peft's classes are that are not in ``tuners/<name of the kind>/config.py``.
_PEFT = {
    "PeftConfigMixin": "config.py",
    "PeftConfig": "config.py",
    "PromptLearningConfig": "config.py",
    "LycorisConfig": "tuners/lycoris_utils.py",
    "LNTuningConfig": "tuners/ln_tuning/config.py",
    "PrefixTuningConfig": "tuners/prefix_tuning/config.py",
    "PromptEncoderConfig": "tuners/p_tuning/config.py",
    "PromptTuningConfig": "tuners/prompt_tuning/config.py",
    "TrainableTokensConfig": "tuners/trainable_tokens/config.py",
}
_SOURCES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "trl.SFTConfig": (_TRAINING, _TRL_BASE, ("trl", "trainer/sft_config.py", "SFTConfig")),
    "trl.DPOConfig": (_TRAINING, _TRL_BASE, ("trl", "trainer/dpo_config.py", "DPOConfig")),
    "trl.KTOConfig": (_TRAINING, _TRL_BASE, ("trl", "trainer/kto_config.py", "KTOConfig")),
    "trl.GRPOConfig": (_TRAINING, _TRL_BASE, ("trl", "trainer/grpo_config.py", "GRPOConfig")),
    "trl.RewardConfig": (_TRAINING, _TRL_BASE, ("trl", "trainer/reward_config.py", "RewardConfig")),
    "trl.RLOOConfig": (_TRAINING, _TRL_BASE, ("trl", "trainer/rloo_config.py", "RLOOConfig")),
}
_ENUMS = {
    "SchedulerType": ("transformers", "trainer_utils.py"),
    "IntervalStrategy": ("transformers", "trainer_utils.py"),
    "SaveStrategy": ("transformers", "trainer_utils.py"),
    "OptimizerNames": ("transformers", "training_args.py"),
}


@cache
def arguments_of(kind: str) -> Mapping[str, Argument]:
    """The arguments of a config class, by name.

    Args:
        kind: "trl.SFTConfig" or another of trl's, "peft.LoraConfig" or another of peft's.
    """
    found: dict[str, Argument] = {}
    try:
        if kind.startswith("peft."):
            return _of_peft(kind.partition(".")[2])
        for package, file, class_name in _SOURCES[kind]:
            found.update({a.name: a for a in _fields(_class(package, file, class_name))})
    except (OSError, LookupError, SyntaxError):
        return _imported(kind)
    return found


@cache
def enum_values(name: str) -> tuple[str, ...]:
    """The values of one of transformers' string enumerations; empty when it is not found."""
    try:
        body = _class(*_ENUMS[name], name).body
    except (OSError, LookupError, SyntaxError):
        return ()
    values = [
        node.value.value
        for node in body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    ]
    return tuple(str(value) for value in values)


def _of_peft(name: str) -> dict[str, Argument]:
    """The arguments of one of peft's classes, those that it inherits first, as dataclasses do."""
    folder = name.removesuffix("Config").lower()
    found: dict[str, Argument] = {}
    cls = _class("peft", _PEFT.get(name, f"tuners/{folder}/config.py"), name)
    for base in map(ast.unparse, cls.bases):
        if base.endswith(("Config", "ConfigMixin")):
            found.update(_of_peft(base))
    found.update({a.name: a for a in _fields(cls)})
    return found


@cache
def _module(package: str, file: str) -> ast.Module:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(package)
    return ast.parse((Path(spec.submodule_search_locations[0]) / file).read_text(encoding="utf-8"))


def _class(package: str, file: str, name: str) -> ast.ClassDef:
    for node in _module(package, file).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node
    raise LookupError(name)


def _fields(cls: ast.ClassDef) -> Iterator[Argument]:
    for node in cls.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        annotation = ast.unparse(node.annotation)
        call = node.value if isinstance(node.value, ast.Call) else None
        keywords = {k.arg: k.value for k in call.keywords} if call is not None else {}
        if (
            "ClassVar" in annotation
            or node.target.id.startswith("_")
            or _literal(keywords.get("init")) is False
        ):
            continue
        default: Any = UNKNOWN
        if "default" in keywords:
            default = _literal(keywords["default"])
        elif "default_factory" in keywords:
            factory: Any = {"list": [], "dict": {}}.get(
                ast.unparse(keywords["default_factory"]), UNKNOWN
            )
            default = factory
        elif node.value is not None and call is None:
            default = _literal(node.value)
        yield Argument(node.target.id, annotation, default)


def _literal(node: ast.expr | None) -> Any:
    if node is None:
        return UNKNOWN
    try:
        return ast.literal_eval(node)
    except ValueError:
        return UNKNOWN


def _imported(kind: str) -> Mapping[str, Argument]:
    package, _, name = kind.partition(".")
    module = importlib.import_module(package)
    cls = getattr(module, name, None)
    if cls is None:
        raise ConfigError(f"{package} {module.__version__} has no {name}; update {package}.")
    return {
        f.name: Argument(
            f.name, str(f.type), UNKNOWN if f.default is dataclasses.MISSING else f.default
        )
        for f in dataclasses.fields(cls)
        if f.init
    }
