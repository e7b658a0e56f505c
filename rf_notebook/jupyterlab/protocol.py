"""What do the kernel and the JupyterLab extension say to each other?

The twin of labextension/src/protocol.ts; both pass labextension/fixtures/protocol.json. Every
message is a JSON object with ``rf_notebook`` (the protocol's number), ``version`` (of the package
that speaks) and ``kind``; these three mean the same in every protocol to come, so that two packages
of different ages can tell each other apart.

kernel → page: announce; snapshot {seq, state}; patch {seq, changes}; answer {id, value | error};
mismatch {sentence} page → kernel: hello {every_seconds, colours}; command {id, name, arguments}

A patch is a JSON merge patch (RFC 7396): ``None`` takes a key away, so no value of a state is ever
``None``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import ConfigError

if TYPE_CHECKING:
    from rf_notebook.core.values import Json

#: Raise it when an older page or kernel would misunderstand.
PROTOCOL = 1
#: The name of the comm.
TARGET = "rf_notebook"

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_MOST_COLOURS = 32
_LONGEST_WORD = 100
_SECONDS = (0.2, 60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """A page is there; it wants a snapshot now and patches from now on."""

    every_seconds: float | None = None
    """Between two patches; None for the usual."""
    colours: tuple[str, ...] = ()
    """CSS colours of the runs; empty for the usual."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Something to be done, and answered under its id."""

    id: str
    name: str
    arguments: Mapping[str, Json] = field(default_factory=dict)


class ProtocolMismatch(ConfigError):  # noqa: N818 - named for what is wrong, as in core/errors.py
    """The other side speaks another protocol.

    The message tells which package to bring up to date.
    """


def message(kind: str, version: str, **content: Json) -> dict[str, Json]:
    """A message to a page.

    Args:
        kind: See the module.
        version: Of this package.
        content: Of that kind.
    """
    return {"rf_notebook": PROTOCOL, "version": version, "kind": kind, **content}


def read_message(data: object, version: str) -> Hello | Command:
    """What a page said.

    Args:
        data: As it came.
        version: Of this package, for the sentence about other ones.

    Raises:
        ProtocolMismatch: when the page speaks another protocol.
        ConfigError: for what is not a message.
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("rf_notebook"), int):
        raise ConfigError("this is not a message of rf_notebook's JupyterLab extension.")
    if data["rf_notebook"] != PROTOCOL:
        raise ProtocolMismatch(mismatch_sentence(data, version))
    match data.get("kind"):
        case "hello":
            return Hello(
                every_seconds=_seconds(data.get("every_seconds")),
                colours=_colours(data.get("colours", [])),
            )
        case "command":
            arguments = data.get("arguments", {})
            if not isinstance(arguments, Mapping):
                raise ConfigError("a command's arguments are an object.")
            return Command(
                id=_word(data, "id"), name=_word(data, "name"), arguments=dict(arguments)
            )
        case kind:
            raise ConfigError(f"{kind!r:.60} is not a kind of message.")


def mismatch_sentence(data: Mapping[str, Any], version: str) -> str:
    """What to do when the page's package is older or newer than the kernel's."""
    theirs = str(data.get("version", "?"))[:40]
    older = data["rf_notebook"] < PROTOCOL
    where = (
        "JupyterLab's environment and reload the page"
        if older
        else "the kernel's environment and restart the kernel"
    )
    return (
        f"JupyterLab has rf_notebook {theirs} and this kernel {version}, and they do not understand each other; "
        f"upgrade rf-notebook in {where}."
    )


def changes(before: Mapping[str, Json], after: Mapping[str, Json]) -> dict[str, Json]:
    """The merge patch that makes one state of another; empty when they are equal."""
    patch: dict[str, Json] = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            if inner := changes(old, value):
                patch[key] = inner
        elif key not in before or old != value:
            patch[key] = value
    return patch


def merged(before: Mapping[str, Json], patch: Mapping[str, Json]) -> dict[str, Json]:
    """The state after a merge patch; the twin of what the page does."""
    result = dict(before)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            old = result.get(key)
            result[key] = merged(old if isinstance(old, dict) else {}, value)
        else:
            result[key] = value
    return result


def present(**values: Json) -> dict[str, Json]:
    """Those of the values that are not None, and no number that JSON cannot hold."""
    return {
        key: value
        for key, value in values.items()
        if value is not None and not _is_unspeakable(value)
    }


def _is_unspeakable(value: Json) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _word(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_WORD:
        raise ConfigError(f"a command's {key} is a text of 1 to {_LONGEST_WORD} characters.")
    return value


def _seconds(value: object) -> float | None:
    if value is None:
        return None
    low, high = _SECONDS
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ConfigError(f"every_seconds={value!r:.40}: a number from {low} to {high}.")
    return float(value)


def _colours(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > _MOST_COLOURS:
        raise ConfigError(f"colours is a list of at most {_MOST_COLOURS}.")
    if not all(isinstance(one, str) and _COLOUR.fullmatch(one) for one in value):
        raise ConfigError("a colour is written #rrggbb.")
    return tuple(value)
