"""What does a person mean who types a value into a form or after ``key=``?

One value, several, or a range.

5e-4            one value              5e-4, 2e-3            two
8..64 step 8    8, 16, ..., 64         1e-5..1e-3 log 3      three, evenly in the logarithm
q_proj, v_proj  for an argument that takes a list: one list; "|" separates several
"""

from __future__ import annotations

import ast
import itertools
import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rf_notebook.automl.adapter_configs import adapter_config_of
from rf_notebook.automl.library_configs import TRAINING_CONFIGS
from rf_notebook.automl.search_space import Range
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.values import Json, flatten

if TYPE_CHECKING:
    from rf_notebook.automl.arguments import Argument
    from rf_notebook.core.run import RunConfig

_RANGE = re.compile(r"\s*([^\s.][^\s]*?)\s*\.\.\s*(\S+)(?:\s+(step|log|x)\s*(\S+))?\s*")
_WORDS = {"true": True, "false": False, "none": None, "null": None}
_LARGEST = 1e300
#: More clones than these from one form are a slip of the keyboard.
MOST_CLONES = 64


def parse_values(text: str, *, takes_list: bool = False) -> list[Any]:
    """The values that a text means.

    Args:
        text: As typed.
        takes_list: Whether the argument's own value is a list.

    Raises:
        ConfigError: for a text that means nothing, or a range without an end.
    """
    if not text.strip():
        raise ConfigError("give a value; None means nothing.")
    values: list[Any] = []
    for part in _split(text, "|"):
        if takes_list:
            values.append(_list_value(part))
            continue
        for piece in _split(part, ","):
            values.extend(_range_values(piece) or [_value(piece)])
    if len(values) > MOST_CLONES:
        raise ConfigError(
            f"{text!r} means {len(values)} values; at most {MOST_CLONES} are possible at once."
        )
    return values


def edits_of(typed: Mapping[str, str], config: RunConfig) -> list[dict[str, Any]]:
    """Every combination of the typed values, as edits of a config by dotted key.

    Raises:
        ConfigError: naming the argument whose text means nothing, or when there are too many
            combinations.
    """
    choices: dict[str, list[Any]] = {}
    flat = flatten(config.as_json())
    for key, text in typed.items():
        try:
            choices[key] = parse_values(text, takes_list=takes_list(key, config, flat.get(key)))
        except ConfigError as error:
            raise ConfigError(f"{key}: {error}") from None
    count = math.prod(len(values) for values in choices.values())
    if count > MOST_CLONES:
        raise ConfigError(
            f"these values make {count} combinations; at most {MOST_CLONES} clones are possible at once."
        )
    return [
        dict(zip(choices, combination, strict=True))
        for combination in itertools.product(*choices.values())
    ]


def takes_list(key: str, config: RunConfig, current: Json) -> bool:
    """Whether the argument behind a key takes a list."""
    if isinstance(current, list):
        return True
    argument = argument_of(key, config)
    return (
        argument is not None
        and "list[" in argument.annotation
        and "dict" not in argument.annotation
    )


def argument_of(key: str, config: RunConfig) -> Argument | None:
    """The argument behind a key, dotted or bare; None for a field of RFModelConfig itself."""
    section, _, name = key.rpartition(".")
    training, adapter = (
        TRAINING_CONFIGS[config.method].known(),
        adapter_config_of(config.peft).known(),
    )
    if section:
        return (adapter if section == "peft_config" else training).get(name)
    return training.get(name) or adapter.get(name)


def config_keys(config: RunConfig) -> list[str]:
    """Every key that a run's config can have, dotted."""
    return [
        *(f"training_args.{name}" for name in TRAINING_CONFIGS[config.method].known()),
        *(f"peft_config.{name}" for name in adapter_config_of(config.peft).known()),
    ]


def _value(text: str) -> Any:
    word = text.strip()
    if word.lower() in _WORDS:
        return _WORDS[word.lower()]
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return word


def _list_value(text: str) -> Any:
    value = _value(text)
    if isinstance(value, list) or value is None:
        return value
    if isinstance(value, tuple):
        return list(value)
    word = str(value)
    if word.startswith("[") and word.endswith("]"):
        word = word[1:-1]
    elif word == "all-linear" or re.search(r"[*?()\\^$]", word):
        return word  # peft's own word, or a pattern
    return [_value(piece) for piece in _split(word, ",") if piece.strip()]


def _range_values(text: str) -> list[Any] | None:
    matched = _RANGE.fullmatch(text)
    if matched is None:
        return None
    start, end = _value(matched[1]), _value(matched[2])
    if not all(
        isinstance(bound, int | float) and not isinstance(bound, bool) for bound in (start, end)
    ):
        return None
    if max(abs(start), abs(end)) > _LARGEST:
        raise ConfigError(f"{text.strip()!r:.80}: numbers above 1e300 are too large.")
    how, amount = matched[3], _value(matched[4]) if matched[4] else None
    if how is None:
        if isinstance(start, int) and isinstance(end, int):
            if end - start >= MOST_CLONES:
                raise ConfigError(f"{text.strip()!r} means more than {MOST_CLONES} values.")
            return Range(start, end, step=1).steps()
        raise ConfigError(f"{text.strip()!r} is endless; add 'step 0.1', 'x 5' or 'log 3'.")
    if how == "step":
        if not isinstance(amount, int | float) or isinstance(amount, bool):
            raise ConfigError(f"{text.strip()!r}: the step is not a number.")
        if amount > 0 and end - start > MOST_CLONES * amount:
            raise ConfigError(f"{text.strip()!r} means more than {MOST_CLONES} values.")
        return Range(start, end, step=amount).steps()
    if not isinstance(amount, int) or not 2 <= amount <= MOST_CLONES:
        raise ConfigError(f"{text.strip()!r}: give how many values, from 2 to {MOST_CLONES}.")
    if how == "log":
        if start <= 0 or end <= 0:
            raise ConfigError(f"{text.strip()!r}: a logarithmic range needs bounds above 0.")
        ratio = (end / start) ** (1 / (amount - 1))
        made = [float(f"{start * ratio**i:.6g}") for i in range(amount)]
    else:
        made = [float(f"{start + (end - start) * i / (amount - 1):.6g}") for i in range(amount)]
    whole = isinstance(start, int) and isinstance(end, int) and all(v == int(v) for v in made)
    return [int(v) for v in made] if whole else list(made)


def _split(text: str, separator: str) -> Iterator[str]:
    """The parts of a text, commas inside brackets and quotes left alone."""
    depth, quote, start = 0, "", 0
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth = max(depth - 1, 0)
        elif char == separator and depth == 0:
            yield text[start:i]
            start = i + 1
    yield text[start:]
