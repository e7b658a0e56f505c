"""What is a JSON value, and how is one hashed the same way everywhere?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

#: A value that JSON can hold. Configs are kept as such values from the moment a concrete config
#: exists.
Json = Any


def canonical_json(value: Json) -> str:
    """The one text of a JSON value: sorted keys, no spaces.

    NaN and infinities as Python's json writes them.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest(value: Json) -> str:
    """The sha256 of a JSON value's canonical text, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


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
