"""What is a JSON value, and how is one hashed the same way everywhere?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    #: A value that JSON can hold. Configs are kept as such values from the moment a concrete config
    #: exists.
    Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None
else:
    Json = Any  # what pydantic sees, which has just parsed it


def canonical_json(value: Json) -> str:
    """The one text of a JSON value: sorted keys, no spaces.

    NaN and infinities as Python's json writes them.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest(value: Json) -> str:
    """The sha256 of a JSON value's canonical text, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def whole(value: Json) -> int:
    """A value that is a whole number.

    Raises:
        TypeError: when it is something else.
    """
    if not isinstance(value, int):
        raise TypeError(f"{value!r:.60} is not a whole number.")
    return value


def number(value: Json) -> float:
    """A value that is a number.

    Raises:
        TypeError: when it is something else.
    """
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r:.60} is not a number.")
    return value


def text(value: Json) -> str:
    """A value that is a text.

    Raises:
        TypeError: when it is something else.
    """
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} is not a text.")
    return value


def mapping(value: Json) -> Mapping[str, Json]:
    """A value that is an object, in JSON's sense.

    Raises:
        TypeError: when it is something else.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r:.60} is not an object.")
    return value


def sequence(value: Json) -> Sequence[Json]:
    """A value that is a list.

    Raises:
        TypeError: when it is something else.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{value!r:.60} is not a list.")
    return value


def flatten(value: Mapping[str, Json], prefix: str = "") -> dict[str, Json]:
    """A nested mapping with dotted keys; lists and empty mappings stay values."""
    flat: dict[str, Json] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if (
            isinstance(item, Mapping)
            and item
            and not any(str(inner).startswith("$") for inner in item)
        ):
            flat.update(flatten(item, f"{name}."))
        else:
            flat[name] = item
    return flat


def is_array(value: object) -> bool:
    """Whether a value is an array, a tensor, a Series or a DataFrame, which compare element by element."""
    shape = () if isinstance(value, type) else getattr(value, "shape", ())
    return isinstance(shape, tuple) and shape != ()
