"""How does a concrete config become JSON, and what happens to values that JSON cannot hold?

Functions and other objects are replaced by ``{"$object": name}`` and secrets by ``{"$secret":
name}``; ``Objects`` keeps what stands behind the names. Secrets never leave the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.objects import Objects
from rf_notebook.core.redaction import is_secret_key, redact
from rf_notebook.core.values import Json, sequence, text

_TAGS = ("$object", "$secret", "$tuple", "$set", "$dict")


def encode(value: Any, objects: Objects, key: str = "") -> Json:
    """A value as JSON; what JSON cannot hold goes to ``objects``."""
    if isinstance(value, Enum):
        value = value.value
    if hasattr(value, "item") and hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0:
        value = value.item()  # a numpy number
    if isinstance(value, str):
        return _encode_text(value, objects, key)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        if any(tag in value for tag in _TAGS):
            raise ConfigError(f"{key or 'a dict'} has a key that begins with '$'; rename it.")
        if not all(isinstance(name, str) for name in value):
            return {
                "$dict": [
                    [encode(name, objects), encode(item, objects, str(name))]
                    for name, item in value.items()
                ]
            }
        return {name: encode(item, objects, name) for name, item in value.items()}
    if isinstance(value, list):
        return [encode(item, objects, key) for item in value]
    if isinstance(value, tuple):
        return {"$tuple": [encode(item, objects, key) for item in value]}
    if isinstance(value, set | frozenset):
        return {"$set": sorted((encode(item, objects, key) for item in value), key=repr)}
    if isinstance(value, PurePath):
        return str(value)
    if type(value).__module__ == "torch" and type(value).__name__ == "dtype":
        return str(value).removeprefix("torch.")
    return {"$object": objects.add(value, _described(value))}


def decode(value: Json, objects: Objects) -> Any:
    """The inverse of ``encode``."""
    if isinstance(value, list):
        return [decode(item, objects) for item in value]
    if isinstance(value, Mapping):
        if "$object" in value:
            return objects.get(text(value["$object"]))
        if "$secret" in value:
            return objects.get_secret(text(value["$secret"]))
        if "$tuple" in value:
            return tuple(decode(item, objects) for item in sequence(value["$tuple"]))
        if "$dict" in value:
            pairs = map(sequence, sequence(value["$dict"]))
            return {decode(name, objects): decode(item, objects) for name, item in pairs}
        if "$set" in value:
            return {decode(item, objects) for item in sequence(value["$set"])}
        return {name: decode(item, objects) for name, item in value.items()}
    return value


def _described(value: Any) -> Json:
    """What an object of a library says of itself, as quantisation configs do; None for others."""
    to_dict = getattr(value, "to_dict", None)
    if not callable(to_dict) or callable(value):
        return None
    try:
        return encode(to_dict(), Objects())
    except (TypeError, ValueError):
        return None


def _encode_text(text: str, objects: Objects, key: str) -> Json:
    if is_secret_key(key):
        return {"$secret": objects.add_secret(key, text)}
    shown = redact(text)
    return text if shown == text else {"$secret": objects.add_secret(shown, text)}
