"""Does an object hold something that can be compared in another process, and what is its digest?

Numbers, texts, arrays, frames and data sets have a form of their own, and so has what holds only
such: containers, functions with the variables around them, objects with their attributes. A file, a
lock or a loaded library object has none.
"""

from __future__ import annotations

import ast
import datetime
import decimal
import enum
import fractions
import functools
import hashlib
import inspect
import linecache
import random
import re
import sys
import types
import uuid
from collections import deque
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

#: Bytes of arrays and texts beyond which an object is not read.
_MOST_BYTES = 256 << 20
_MOST_PARTS = 200_000
_BY_REPR = (
    *(
        bool,
        int,
        float,
        complex,
        str,
        bytes,
        bytearray,
        range,
        slice,
        types.NoneType,
        types.EllipsisType,
    ),
    *(datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone),
    *(decimal.Decimal, fractions.Fraction, uuid.UUID),
)
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)


class _NotCanonicalError(Exception):
    """Something has no form that another process could compare."""


def canonical_digest(value: Any) -> str | None:
    """The sha256 of what a value holds, equal in every process.

    None where there is no such thing.
    """
    try:
        reader = _Reader()
        reader.read(value)
        return reader.sha.hexdigest()
    except (_NotCanonicalError, RecursionError):
        return None
    except Exception:  # noqa: BLE001 - attributes and arrays of the user's own classes may do anything
        return None


class _Reader:
    def __init__(self) -> None:
        self.sha = hashlib.sha256()
        self._seen: dict[int, tuple[int, Any]] = {}
        self._bytes = 0

    def read(self, value: Any) -> None:
        """Add a value to the digest."""
        if isinstance(value, enum.Enum):
            self._add(type(value).__qualname__, value.name)
        elif type(value) in _BY_REPR:
            self._add(type(value).__name__, repr(value))
        elif id(value) in self._seen:
            self._add("again", str(self._seen[id(value)][0]))
        else:
            if len(self._seen) > _MOST_PARTS:
                raise _NotCanonicalError
            self._seen[id(value)] = (len(self._seen), value)
            self._read_object(value)

    def _read_object(self, value: Any) -> None:
        library = type(value).__module__.partition(".")[0]
        if library in ("numpy", "torch", "pandas", "datasets") and self._read_array(library, value):
            return
        match value:
            case types.ModuleType():
                self._add("module", value.__name__)
            case type():
                source = _source(value)
                self._add("class", value.__module__, value.__qualname__, source)
                if not source:
                    self._all(
                        "methods", [one for one in vars(value).values() if inspect.isfunction(one)]
                    )
            case functools.partial():
                self._all("partial", (value.func, value.args, value.keywords))
            case types.MethodType():
                self._all("method", (value.__func__, value.__self__))
            case types.BuiltinFunctionType():
                self._all("builtin " + value.__qualname__, (value.__self__,))
            case types.FunctionType():
                self._read_function(value)
            case PurePath():
                self._add("path", str(value))
            case re.Pattern():
                self._add("pattern", repr(value.pattern), str(value.flags))
            case random.Random():
                self._all("random", value.getstate())
            case _:
                self._read_instance(value)

    def _read_function(self, function: types.FunctionType) -> None:
        code = function.__code__
        self._add("function", function.__qualname__, _source(function))
        self._read_code(code)
        cells = []
        for cell in function.__closure__ or ():
            try:
                cells.append(cell.cell_contents)
            except ValueError:  # not filled yet
                cells.append(None)
        self._all(
            "holds", (function.__defaults__, function.__kwdefaults__, cells, function.__dict__)
        )

    def _read_code(self, code: types.CodeType) -> None:
        self._add(code.co_code.hex(), repr(code.co_names))
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._read_code(constant)
            else:
                self.read(constant)

    def _read_instance(self, value: Any) -> None:
        """A container, or an object of a class that is written in Python.

        Its class and what it holds.
        """
        kind = type(value)
        self.read(kind)
        if not all(
            base is object or base in _CONTAINERS or _is_python(base) for base in kind.__mro__
        ):
            # written in another language: its state lies where Python does not see it
            raise _NotCanonicalError
        match value:
            case dict():
                self._unordered(value.items())
            case list() | tuple() | deque():
                self._all("in order", value)
            case set() | frozenset():
                self._unordered(value)
        names = [name for base in kind.__mro__ for name in _slots(base)]
        held = {name: getattr(value, name) for name in names if hasattr(value, name)}
        attributes = getattr(value, "__dict__", None)
        if attributes is None and not names and not isinstance(value, _CONTAINERS):
            raise _NotCanonicalError
        self._unordered({**held, **(attributes or {})}.items())

    def _read_array(self, library: str, value: Any) -> bool:
        """Whether it was an array, a frame or a data set, whose own form was read."""
        module = sys.modules[library]
        if library == "numpy":
            if isinstance(value, module.ndarray) and value.dtype.hasobject:
                self._all(f"array {value.shape}", value.ravel().tolist())
            elif isinstance(value, module.ndarray | module.generic):
                self._add("array", value.dtype.str, str(value.shape))
                self._add_bytes(value.nbytes, lambda: value.tobytes())
            elif isinstance(value, module.random.Generator):
                self._all("random", [value.bit_generator.state])
            elif isinstance(value, module.random.RandomState):
                self._all("random", [value.get_state(legacy=False)])
            elif isinstance(value, module.dtype):
                self._add("dtype", value.str)
            else:
                return False
        elif library == "torch":
            if isinstance(value, module.Tensor) and value.layout is module.strided:
                plain = value.detach()
                self._add(
                    "tensor", str(value.dtype), str(tuple(value.shape)), str(value.requires_grad)
                )
                flat = plain.contiguous().reshape(-1).view(module.uint8)
                self._add_bytes(plain.nbytes, lambda: flat.cpu().numpy().tobytes())
            elif isinstance(value, module.dtype | module.device):
                self._add("torch", str(value))
            else:
                return False
        elif library == "pandas":
            if not isinstance(value, module.DataFrame | module.Series | module.Index):
                return False
            self._add(
                type(value).__name__,
                repr(getattr(value, "dtypes", None)),
                repr(getattr(value, "columns", None)),
            )
            rows = module.util.hash_pandas_object(value)
            self._add_bytes(rows.nbytes, lambda: rows.to_numpy().tobytes())
        else:
            fingerprint = getattr(value, "_fingerprint", None)
            if not isinstance(fingerprint, str):
                raise _NotCanonicalError
            self._add("data set", fingerprint)
        return True

    def _all(self, word: str, values: Iterable[Any]) -> None:
        listed = list(values)
        self._add(word, str(len(listed)))
        for value in listed:
            self.read(value)

    def _unordered(self, values: Iterable[Any]) -> None:
        """What has no order of its own: by digest, each read by itself."""
        digests = []
        for value in values:
            inner = _Reader()
            inner._seen, inner._bytes = self._seen, self._bytes
            if isinstance(value, tuple):
                for part in value:
                    inner.read(part)
            else:
                inner.read(value)
            digests.append(inner.sha.hexdigest())
            self._bytes = inner._bytes
        self._add("unordered", *sorted(digests))

    def _add(self, *words: str) -> None:
        for word in words:
            data = word.encode(errors="surrogatepass")
            self._add_bytes(len(data), lambda data=data: data)

    def _add_bytes(self, size: int, data: Any) -> None:
        self._bytes += size
        if self._bytes > _MOST_BYTES:
            raise _NotCanonicalError
        self.sha.update(f"{size}:".encode())
        self.sha.update(data())


def _is_python(kind: type) -> bool:
    """Whether a class is written in Python, so that its objects hold nothing but attributes."""
    held = vars(kind)
    if any(isinstance(one, types.FunctionType) for one in held.values()) or "__slots__" in held:
        return True
    return any(base is object or _is_python(base) for base in kind.__bases__) and "__dict__" in dir(
        kind
    )


def _slots(kind: type) -> tuple[str, ...]:
    names = kind.__dict__.get("__slots__", ())
    names = (names,) if isinstance(names, str) else tuple(names)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def source_of(target: Any) -> str:
    """The source of a function or class.

    Of a class in a notebook's cell too, which ``inspect`` does not find.

    Raises:
        OSError, TypeError: where there is none.
    """
    try:
        return inspect.getsource(target)
    except (OSError, TypeError):
        if not inspect.isclass(target):
            raise
        return _class_in_cell(target)


def _class_in_cell(kind: type) -> str:
    """The class's statement, found by one of its methods, which knows its file and line."""
    codes = [one.__code__ for one in vars(kind).values() if inspect.isfunction(one)]
    code = next((code for code in codes if code.co_filename in linecache.cache), None)
    if code is None:
        raise OSError(f"no source of {kind.__qualname__}")
    text = "".join(linecache.getlines(code.co_filename))
    try:
        statements = ast.walk(ast.parse(text))
    except SyntaxError as error:
        raise OSError(f"no source of {kind.__qualname__}") from error
    for found in statements:
        if not isinstance(found, ast.ClassDef) or found.name != kind.__name__:
            continue
        if found.lineno <= code.co_firstlineno <= (found.end_lineno or found.lineno):
            first = min([found.lineno, *(one.lineno for one in found.decorator_list)])
            return "".join(text.splitlines(keepends=True)[first - 1 : found.end_lineno])
    raise OSError(f"no source of {kind.__qualname__}")


def _source(target: Any) -> str:
    try:
        return source_of(target)
    except (OSError, TypeError):
        return ""
