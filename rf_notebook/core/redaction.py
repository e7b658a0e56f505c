"""What looks like a secret, and what is written in its place?"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import overload

from rf_notebook.core.values import Json

#: Unicode's categories of control, format, surrogate and private signs, and of separators of lines
#: and paragraphs.
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
REDACTED = "[redacted]"
"""Stands where a secret stood."""

_SECRET_KEY = re.compile(
    r"(^|_)(password|passwd|secret|credentials?|api_?key|access_?key|auth|authorization)($|_)|(^|_)auth_token$|^token$"
    r"|^hub_token$|_access_token$|^use_auth_token$|^push_to_hub_token$",
    re.IGNORECASE,
)
# What comes before a match is bounded or begins a word, so that the time is linear in the text's length.
_SECRET_TEXT = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}"
    r"|AKIA[0-9A-Z]{16}|xox[abprs]-[A-Za-z0-9-]{10,})"
    r"|(?<![\w-])eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}"
)
_URL_PASSWORD = re.compile(
    r"(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.-]{0,30}://)(?P<user>[^\s/:@]*):[^\s/@]+@"
)
_BEARER = re.compile(r"(?P<word>\bBearer\s+)[A-Za-z0-9._~+/-]{8,}=*", re.IGNORECASE)
_QUERY = re.compile(
    r"(?P<key>[?&](?:token|access_token|api_key|password|sig|signature)=)[^&\s'\"]+", re.IGNORECASE
)


def is_secret_key(key: str) -> bool:
    """Whether an argument of this name holds a secret: hub_token does, eos_token does not."""
    return bool(_SECRET_KEY.search(key))


def redact(text: str) -> str:
    """The text with tokens and passwords in URLs replaced."""
    text = _URL_PASSWORD.sub(rf"\g<scheme>\g<user>:{REDACTED}@", text)
    text = _BEARER.sub(rf"\g<word>{REDACTED}", text)
    text = _QUERY.sub(rf"\g<key>{REDACTED}", text)
    return _SECRET_TEXT.sub(REDACTED, text)


def private(text: str) -> str:
    """The text as it may leave this machine.

    Without secrets, and with ``~`` for the home folder.
    """
    home = str(Path.home())
    if len(home) > 1:
        text = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text)
    return redact(text)


@overload
def private_json(value: Mapping[str, Json]) -> dict[str, Json]: ...
@overload
def private_json(value: Json) -> Json: ...
def private_json(value: Json) -> Json:
    """The same for every text in a JSON value, keys included."""
    if isinstance(value, str):
        return private(value)
    if isinstance(value, list | tuple):
        return [private_json(item) for item in value]
    if isinstance(value, Mapping):
        return {private(str(name)): private_json(item) for name, item in value.items()}
    return value


@overload
def at_home(value: Mapping[str, Json]) -> dict[str, Json]: ...
@overload
def at_home(value: Json) -> Json: ...
def at_home(value: Json) -> Json:
    """The inverse for this machine: texts that begin with ``~/`` begin with its home folder."""
    if isinstance(value, str):
        return str(Path(value).expanduser()) if value.startswith("~/") else value
    if isinstance(value, list | tuple):
        return [at_home(item) for item in value]
    if isinstance(value, Mapping):
        return {name: at_home(item) for name, item in value.items()}
    return value


def visible(text: str) -> str:
    """Text in which nothing hides.

    Signs that are not seen, or that turn the direction of writing, as escapes.
    """
    return "".join(
        sign if sign in "\n\t" or unicodedata.category(sign) not in _UNSEEN else repr(sign)[1:-1]
        for sign in text
    )
