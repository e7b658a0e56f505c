"""What stands behind the names in configs.

Functions, other objects and secrets, which JSON cannot hold.

A name says what the object is, so that the same one handed in again by a new kernel is recognised,
and another one is not taken for it: ``plain_name``, which is its class and source, and where it
holds more than its source tells, what that is. ``Reward@3f2a…~91c0…`` has a state with a canonical
form (numbers, texts, arrays, data sets); ``Reward@3f2a…#2`` has none and is the second such object
in the order in which the search was written; ``Reward@3f2a…#x5e1b…`` came later, with a clone.
Secrets are named by their argument and place alone; ``SecretNames`` tells which is which.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import itertools
import textwrap
import threading
import types
import uuid
from collections.abc import Callable
from typing import Any

from rf_notebook.core.canonical import canonical_digest, source_of
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.secret_names import SecretNames, is_of
from rf_notebook.core.values import Json, digest

_EMPTY_CELL = types.CellType()
#: Characters of a function's source beyond which it is not recorded.
_MOST_SOURCE = 50_000
_STATE, _PLACE = "~", "#"
_PLAIN = (type(None), bool, int, float, complex, str, bytes)


class Objects:
    """The live values behind the names in encoded configs; may be used from several threads."""

    def __init__(self, secret_names: SecretNames | None = None) -> None:
        """Nothing yet.

        Args:
            secret_names: Names that secrets have in the record.
        """
        self._secret_names = secret_names or SecretNames()
        self._live: dict[str, Any] = {}
        self._names: dict[tuple[int, ...], str] = {}
        """Of what has a state: the same object keeps its name when its state changes."""
        self._met: set[str] = set()
        """Names that were added here, and not taken over from the launch before."""
        self._is_sealed = False
        self._lock = threading.RLock()

    def for_launch(self) -> Objects:
        """What a search is encoded into that may continue the one before.

        Names that do not follow its order are kept.
        """
        twin = Objects(self.secret_names())
        with self._lock:
            twin._live = {
                name: value for name, value in self._live.items() if not _is_by_place(name)
            }
            twin._names = {key: name for key, name in self._names.items() if not _is_by_place(name)}
        return twin

    def scratch(self) -> Objects:
        """A copy for trying something out: what it takes in stays in it."""
        twin = Objects(self._secret_names)
        with self._lock:
            twin._live, twin._names = dict(self._live), dict(self._names)
            twin._met, twin._is_sealed = set(self._met), self._is_sealed
        return twin

    def seal(self) -> None:
        """From here on places are not counted.

        What comes later is of a clone, and no other kernel counts it alike.
        """
        self._is_sealed = True

    def put(self, name: str, value: Any) -> None:
        """Remember a value under a name."""
        with self._lock:
            self._live[name] = value
            self._names[_identity(value)] = name
            self._met.add(name)

    def add(self, value: Any, described: Json = None) -> str:
        """Remember an object; returns its name.

        Args:
            value: Not a secret.
            described: What an object of a library says of itself, which is then all that counts.
        """
        with self._lock:
            known = self._names.get(_identity(value))
            if (
                known is not None
                and known in self._live
                and _identity(self._live[known]) == _identity(value)
            ):
                self._met.add(known)
                return known
            name, state = plain_name(value), _hidden_state(value)
            if described is not None:
                name, state = f"{type(value).__qualname__}@{digest(described)[:12]}", ""
            if state is None:
                name = self._place(name, first=1)
            elif state:
                name = f"{name}{_STATE}{state[:12]}"
                if (
                    callable(value) and name in self._met
                ):  # equal, but each will have a state of its own
                    name = self._place(name, first=2)
            self.put(name, value)
        return name

    def add_secret(self, key: str, text: str) -> str:
        """Remember a secret; returns its name, which tells nothing of it but the argument.

        One that is in the record keeps its name there, wherever it stands now. A new one takes the
        first name that is free: so a renewed token takes that of the token before.
        """
        with self._lock:
            for name, known in self._secrets().items():
                if is_of(key, name) and known == text:
                    return name
            name = self._secret_names.name_of(key, text) or key
            if f"secret {name}" in self._live:
                name = self._place(key, first=2, prefix="secret ")
            self._live[f"secret {name}"] = text
        return name

    def secret_names(self) -> SecretNames:
        """What the next kernel needs to give these secrets their names."""
        with self._lock:
            return self._secret_names.including(self._secrets())

    def _secrets(self) -> dict[str, str]:
        return {
            name.removeprefix("secret "): str(text)
            for name, text in self._live.items()
            if name.startswith("secret ")
        }

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

    def get_secret(self, name: str) -> str:
        """The text of a secret; raises as ``get``."""
        return str(self.get(f"secret {name}"))

    def update(self, other: Objects) -> None:
        """Take in what another one holds."""
        with self._lock:
            self._live.update(other._live)
            self._names.update(other._names)

    def sources(self) -> dict[str, str]:
        """The source of every function, and of the class of every other callable, by name."""
        found = {}
        with self._lock:
            live = list(self._live.items())
        for name, value in live:
            source = source_text(value)
            if source is not None:
                found[name] = source
        return found

    def __contains__(self, name: str) -> bool:
        return name in self._live

    def _place(self, base: str, *, first: int, prefix: str = "") -> str:
        """A name that is free, for one of several that are known by nothing but their places."""
        if self._is_sealed:
            return f"{base}{_PLACE}x{uuid.uuid4().hex[:12]}"
        places = (f"{base}{_PLACE}{number}" for number in itertools.count(first))
        return next(name for name in places if prefix + name not in self._live)


def source_text(value: Any) -> str | None:
    """The source of a function, or of the class of what can be called like one.

    None where there is none to record.
    """
    if not callable(value) or isinstance(value, functools.partial):
        return None
    try:
        source = _written(value if _is_code(value) else type(value))
    except (OSError, TypeError):
        return None
    return source if len(source) <= _MOST_SOURCE else None


def plain_name(value: Any) -> str:
    """A name for an object that is the same whenever the same code makes it."""
    if isinstance(value, functools.partial):
        inner = plain_name(value.func)
        if not all(map(_is_plain, (*value.args, *value.keywords.values()))):
            return f"partial:{inner}"
        return f"partial:{inner}:{digest([repr(value.args), repr(sorted(value.keywords.items()))])[:12]}"
    label = getattr(value, "__qualname__", None) or type(value).__qualname__
    return f"{label}@{_source_digest(value, _held_plainly)[:12]}"


def name_of_version_1(value: Any) -> str:
    """The name that rf_notebook 0.1.0 gave to an object; records made with it are continued."""
    if isinstance(value, functools.partial):
        inner = name_of_version_1(value.func)
        return f"partial:{inner}:{digest([repr(value.args), repr(sorted(value.keywords.items()))])[:12]}"
    label = getattr(value, "__qualname__", None) or type(value).__qualname__
    return f"{label}@{_source_digest(value, _stable)[:12]}"


def without_state(name: str) -> str:
    """A name as it is for every object of this class and source."""
    head, at, rest = name.partition("@")
    return (
        head + at + rest.partition(_STATE)[0].partition(_PLACE)[0]
        if at
        else name.partition(_PLACE)[0]
    )


def has_state(name: str) -> bool:
    """Whether a name is of an object that holds more than its source tells."""
    return without_state(name) != name


def has_canonical_state(name: str) -> bool:
    """Whether a name tells what the object holds."""
    return _STATE in without_place(name)


def without_place(name: str) -> str:
    """A name without the place by which several equal objects are told apart."""
    head, at, rest = name.partition("@")
    return head + at + rest.partition(_PLACE)[0]


def came_later(name: str) -> bool:
    """Whether an object came with a clone and has no canonical state.

    No other kernel can be given such an object.
    """
    return f"{_PLACE}x" in name


def _is_by_place(name: str) -> bool:
    """Whether a name follows from the order in which a search was written, as those of secrets do."""
    return not came_later(name) and (
        name.startswith("secret ") or (_PLACE in name and has_state(name))
    )


def _identity(value: Any) -> tuple[int, ...]:
    """Equal for the same object, and for the same method of the same object.

    Python makes a new method object each time it is read.
    """
    if inspect.ismethod(value):
        return id(value.__self__), id(value.__func__)
    return (id(value),)


def _is_code(value: Any) -> bool:
    return inspect.isroutine(value) or inspect.isclass(value)


def _is_plain(value: Any) -> bool:
    """Whether a value's repr says all of it, and the same in every process."""
    if type(value) in _PLAIN:
        return True
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    return type(value) is dict and all(map(_is_plain, (*value, *value.values())))


def _hidden_state(value: Any) -> str | None:
    """What an object holds beyond its source.

    Empty for nothing, None where that has no canonical form.
    """
    if inspect.isclass(value):
        return ""
    if isinstance(value, functools.partial):
        plain = all(map(_is_plain, (*value.args, *value.keywords.values())))
        if plain:
            return _hidden_state(value.func)
    elif inspect.ismethod(value):
        if inspect.isclass(value.__self__):
            return ""
    elif (
        inspect.isroutine(value)
        and _has_source(value)
        and all(map(_is_held_plainly, _held_by(value)))
    ):
        return ""
    return canonical_digest(value)


def _is_held_plainly(value: Any) -> bool:
    if inspect.isfunction(value):
        return value.__name__ != "<lambda>" and _has_source(value) and not _held_by(value)
    return (
        inspect.isbuiltin(value)
        or inspect.isclass(value)
        or inspect.ismodule(value)
        or _is_plain(value)
    )


def _source_digest(value: Any, word: Callable[[Any], str]) -> str:
    target = value if _is_code(value) else type(value)
    return hashlib.sha256((_source(target) + _held(target, word)).encode()).hexdigest()


def _written(target: Any) -> str:
    """The source; raises OSError or TypeError where there is none."""
    return textwrap.dedent(source_of(target))


def _has_source(value: Any) -> bool:
    """Whether the source is there; what is not written in Python needs none."""
    try:
        source_of(value)
    except (OSError, TypeError):
        return getattr(value, "__code__", None) is None
    return True


def _source(target: Any) -> str:
    try:
        return _written(target)
    except (OSError, TypeError):
        code = getattr(target, "__code__", None)
        return (
            repr((code.co_code, code.co_names))
            if code is not None
            else getattr(target, "__qualname__", "")
        )


def _held_by(function: Any) -> list[Any]:
    """What a function holds beside its source: its defaults, and the variables around it."""
    if getattr(function, "__code__", None) is None:
        return []
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != _EMPTY_CELL]
    return [
        one
        for one in (
            *(function.__defaults__ or ()),
            *(function.__kwdefaults__ or {}).values(),
            *cells,
        )
        if one is not function
    ]


def _held(function: Any, word: Callable[[Any], str]) -> str:
    """In words what a function holds, and which lambda of a line it is."""
    code = getattr(function, "__code__", None)
    if code is None:
        return ""
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != _EMPTY_CELL]
    held = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *cells]
    words = "".join(f" {_source(one) if inspect.isfunction(one) else word(one)}" for one in held)
    if function.__name__ == "<lambda>":
        constants = ", ".join(
            _constant(one) for one in code.co_consts if not hasattr(one, "co_code")
        )
        words += f" {code.co_names} [{constants}] {code.co_code.hex()}"
    return words


def _constant(value: Any) -> str:
    """A constant of a function's code; a set's order differs from process to process."""
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _stable(value: Any) -> str:
    """A value as text that is the same in the next process.

    Of one that has no such text, its type.
    """
    text = repr(value)
    return text if " at 0x" not in text else type(value).__qualname__


def _held_plainly(value: Any) -> str:
    """A plain value as text, any other as its type: its state is told apart from it."""
    return (
        repr(value)
        if _is_held_plainly(value) and " at 0x" not in repr(value)
        else type(value).__qualname__
    )
