"""How does a concrete config become JSON, and what happens to values that JSON cannot hold?

Functions and other objects are replaced by ``{"$object": name}`` and kept beside; the name holds a digest of a
function's source, so that the same function handed in again by a new kernel is recognised. Secrets are replaced by
``{"$secret": key}`` and never leave the process.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import textwrap
import types
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.redaction import is_secret_key, redact
from rf_notebook.core.values import Json, digest

_EMPTY_CELL = types.CellType()
#: Characters of a function's source beyond which it is not recorded.
_MOST_SOURCE = 50_000
_TAGS = ("$object", "$secret", "$tuple", "$set")


class Objects:
    """The live values behind the names in encoded configs."""

    def __init__(self) -> None:
        self._live: dict[str, Any] = {}

    def put(self, name: str, value: Any) -> None:
        """Remember a value."""
        self._live[name] = value

    def get(self, name: str) -> Any:
        """The value of a name.

        Raises:
            ConfigError: when this kernel was not given it.
        """
        try:
            return self._live[name]
        except KeyError:
            raise ConfigError(
                f"the config refers to {name!r}, which this kernel has not been given. "
                "Run the cell that defines it and call run_fit again with it, or clone the run without it."
            ) from None

    def update(self, other: Objects) -> None:
        """Take in what another one holds."""
        self._live.update(other._live)

    def sources(self) -> dict[str, str]:
        """The source of every function among them that has one, by name."""
        found = {}
        for name, value in self._live.items():
            if inspect.isroutine(value):
                with contextlib.suppress(OSError, TypeError):
                    found[name] = _written(value)
        return {name: source for name, source in found.items() if len(source) <= _MOST_SOURCE}

    def __contains__(self, name: str) -> bool:
        return name in self._live


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
        return {str(name): encode(item, objects, str(name)) for name, item in value.items()}
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
    name = object_name(value)
    objects.put(name, value)
    return {"$object": name}


def decode(value: Json, objects: Objects) -> Any:
    """The inverse of ``encode``."""
    if isinstance(value, list):
        return [decode(item, objects) for item in value]
    if isinstance(value, Mapping):
        if "$object" in value:
            return objects.get(value["$object"])
        if "$secret" in value:
            return objects.get(f"secret {value['$secret']}")
        if "$tuple" in value:
            return tuple(decode(item, objects) for item in value["$tuple"])
        if "$set" in value:
            return {decode(item, objects) for item in value["$set"]}
        return {name: decode(item, objects) for name, item in value.items()}
    return value


def object_name(value: Any) -> str:
    """A name for an object that is the same whenever the same code makes it."""
    if isinstance(value, functools.partial):
        inner = object_name(value.func)
        return f"partial:{inner}:{digest([repr(value.args), repr(sorted(value.keywords.items()))])[:12]}"
    label = getattr(value, "__qualname__", None) or type(value).__qualname__
    return f"{label}@{_source_digest(value)[:12]}"


def _source_digest(value: Any) -> str:
    to_dict = getattr(value, "to_dict", None)
    if callable(to_dict) and not inspect.isclass(value):
        try:
            return digest(encode(to_dict(), Objects()))
        except (TypeError, ValueError):
            pass
    target = value if inspect.isroutine(value) or inspect.isclass(value) else type(value)
    return hashlib.sha256((_source(target) + _held(target)).encode()).hexdigest()


def _written(target: Any) -> str:
    """The source; raises OSError or TypeError where there is none."""
    return textwrap.dedent(inspect.getsource(target))


def _source(target: Any) -> str:
    try:
        return _written(target)
    except (OSError, TypeError):
        code = getattr(target, "__code__", None)
        return repr((code.co_code, code.co_names)) if code is not None else getattr(target, "__qualname__", "")


def _held(function: Any) -> str:
    """What a function holds beside its source: its defaults, the variables around it, and which lambda of a line it is."""
    code = getattr(function, "__code__", None)
    if code is None:
        return ""
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != _EMPTY_CELL]
    held = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *cells]
    words = "".join(f" {_source(one) if inspect.isfunction(one) else _stable(one)}" for one in held)
    if function.__name__ == "<lambda>":
        words += (
            f" {code.co_names} {[one for one in code.co_consts if not hasattr(one, 'co_code')]} {code.co_code.hex()}"
        )
    return words


def _stable(value: Any) -> str:
    """A value as text that is the same in the next process; of one that has no such text, its type."""
    text = repr(value)
    return text if " at 0x" not in text else type(value).__qualname__


def _encode_text(text: str, objects: Objects, key: str) -> Json:
    if is_secret_key(key):
        objects.put(f"secret {key}", text)
        return {"$secret": key}
    shown = redact(text)
    if shown != text:
        objects.put(f"secret {shown}", text)
        return {"$secret": shown}
    return text
