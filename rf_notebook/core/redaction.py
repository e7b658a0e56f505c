"""What looks like a secret, and what is written in its place?"""

from __future__ import annotations

import os
import re
import time
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

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
#: What is a secret by its form, by what it is called; all of a match is replaced.
_TOKENS = {
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{16,}",
    "an API key": r"\bsk-[A-Za-z0-9_-]{16,}|\b[sr]k_live_[A-Za-z0-9]{16,}|\bSG\.[\w-]{16,}\.[\w-]{16,}",
    "a GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}",
    "a GitLab token": r"\bgl(?:pat|ptt|rt|dt|cbt)-[\w-]{20,}",
    "an npm token": r"\bnpm_[A-Za-z0-9]{36}\b",
    "a PyPI token": r"\bpypi-[\w-]{50,}",
    "an AWS key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a Google key": r"\bAIza[\w-]{35}|\bya29\.[\w-]{20,}",
    "a Slack token": r"\bxox[abeprs]-[A-Za-z0-9-]{10,}|\bxapp-[A-Za-z0-9-]{20,}",
    "a web token": r"(?<![\w-])eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}",
    "a private key": r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----(?:[^-]|-(?!----))*"
    r"(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?",
}
_TOKEN = re.compile("|".join(f"({one})" for one in _TOKENS.values()))
_URL_PASSWORD = re.compile(
    r"(?P<kept>\b[a-zA-Z][a-zA-Z0-9+.-]{0,30}://[^\s/:@]*:)(?P<secret>[^\s/@]+)(?=@)"
)
_BEARER = re.compile(r"(?P<kept>\bBearer\s+)(?P<secret>[A-Za-z0-9._~+/-]{8,}=*)", re.IGNORECASE)
_QUERY = re.compile(
    r"(?P<kept>[?&](?:token|access_token|api_key|password|sig|signature)=)(?P<secret>[^&\s'\"]+)",
    re.IGNORECASE,
)
# As in code, YAML, JSON and the files that cloud tools write. A name without quotes may be a variable.
_LITERAL = re.compile(
    r"""(?P<kept>\b\w{0,40}(?:password|passwd|passphrase|secret|api_?key|access_?key|auth_?token|private_?key)\w{0,40}['"]?
        \s{0,4}[:=]\s{0,4}[rbuf]?(?P<quote>['"]))(?P<secret>[^'"\n]+)(?=(?P=quote))""",
    re.IGNORECASE | re.VERBOSE,
)
_CLOUD_KEY = re.compile(
    r"(?P<kept>\b(?:aws_secret_access_key|AccountKey)\s{0,4}=\s{0,4})(?P<secret>[A-Za-z0-9+/]{40,}=*)",
    re.IGNORECASE,
)
_BY_WHAT_IS_BEFORE = {
    "a password in an address": _URL_PASSWORD,
    "a bearer token": _BEARER,
    "a token in an address": _QUERY,
    "a password or key": _LITERAL,
    "a cloud key": _CLOUD_KEY,
}
#: Names of environment variables that hold a secret.
_SECRET_VARIABLE = re.compile(
    r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY)($|_)"
)
#: Shorter values, and shorter ones of letters alone, may be words that stand in any text, as "postgres" is.
_SHORTEST_VALUE, _SHORTEST_OF_LETTERS = 8, 16
_LOOK_SECONDS = 1.0


def is_secret_key(key: str) -> bool:
    """Whether an argument of this name holds a secret: hub_token does, eos_token does not."""
    return bool(_SECRET_KEY.search(key))


def redact(text: str) -> str:
    """The text with everything that looks like a secret replaced.

    That is tokens by their form, passwords and keys by what is written before them, and the values of
    environment variables whose names say that they are secret.
    """
    return _replaced(text, [])


def secrets_in(text: str) -> list[str]:
    """What ``redact`` finds in a text, in words such as "a GitHub token"; each once."""
    found: list[str] = []
    _replaced(text, found)
    return list(dict.fromkeys(found))


def _replaced(text: str, found: list[str]) -> str:
    def without_what_follows(what: str) -> Callable[[re.Match[str]], str]:
        def replaced(match: re.Match[str]) -> str:
            if match["secret"].startswith(REDACTED):
                return match[0]
            found.append(what)
            return match["kept"] + REDACTED

        return replaced

    def without(match: re.Match[str]) -> str:
        found.append(names[(match.lastindex or 1) - 1])
        return REDACTED

    names = list(_TOKENS)
    for value in _secret_variables():
        if value in text:
            found.append("the value of a secret environment variable")
            text = text.replace(value, REDACTED)
    text = _TOKEN.sub(without, text)
    for what, pattern in _BY_WHAT_IS_BEFORE.items():
        text = pattern.sub(without_what_follows(what), text)
    return text


def _secret_variables() -> list[str]:
    """Values of environment variables, looked up once a second."""
    return _variables_at(int(time.monotonic() / _LOOK_SECONDS))


@lru_cache(maxsize=1)
def _variables_at(_moment: int) -> list[str]:
    found = (value for name, value in list(os.environ.items()) if _SECRET_VARIABLE.search(name))
    secret = {
        one
        for one in found
        if len(one) >= (_SHORTEST_OF_LETTERS if one.isalpha() else _SHORTEST_VALUE)
        and not one.startswith(("/", "~", "."))  # a path says where a secret is
    }
    return sorted(secret, key=len, reverse=True)


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
    found: Json = _with_texts(value, private)
    return found


@overload
def at_home(value: Mapping[str, Json]) -> dict[str, Json]: ...
@overload
def at_home(value: Json) -> Json: ...
def at_home(value: Json) -> Json:
    """The inverse for this machine: texts that begin with ``~/`` begin with its home folder."""
    found: Json = _with_texts(value, _at_home, keys=str)
    return found


def visible(text: str) -> str:
    """Text in which nothing hides.

    Signs that are not seen, that a terminal obeys, or that turn the direction of writing, as escapes.
    """
    return text if text.isprintable() else "".join(map(_sign, text))


def visible_line(text: str) -> str:
    """The same in one line, so that no text can pass for a line of its own."""
    return visible(text).replace("\n", "\\n").replace("\t", " ")


def visible_json(value: Any) -> Any:
    """The same as ``visible`` for every text in a JSON value, keys included."""
    return _with_texts(value, visible)


def brief(value: object) -> str:
    """Any value in a few words, without secrets, in one line."""
    try:
        text = visible_line(redact(repr(value)))
    except Exception:  # noqa: BLE001 - lists that are too deep, numbers that are too long, whatever a class does
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 80 else text[:77] + "..."


def as_told(text: str, most: int) -> str:
    """A text of an error as it is recorded: without secrets, with nothing that hides, and bounded.

    Args:
        text: Of any length.
        most: Signs that are kept, half of them from its end; how many are left out is said.
    """
    if len(text) > 4 * most:  # where this cuts through a secret, the next cut leaves it out
        half = 2 * most
        head, tail = redact(text[:half]), redact(text[-half:])
    else:
        whole = redact(text)
        if len(whole) <= most:
            return visible(whole)
        head, tail = whole, whole
    half = most // 2
    left_out = len(text) - 2 * half
    return visible(f"{head[:half]} ... [{left_out:,} signs left out] ... {tail[-half:]}")


def _sign(sign: str) -> str:
    if sign in "\n\t" or unicodedata.category(sign) not in _UNSEEN:
        return sign
    return repr(sign)[1:-1]


def _at_home(text: str) -> str:
    return str(Path(text).expanduser()) if text.startswith("~/") else text


def _with_texts(
    value: Any, change: Callable[[str], str], *, keys: Callable[[str], str] | None = None
) -> Any:
    """A JSON value with every text changed, and keys as ``keys`` says, or like texts."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list | tuple):
        return [_with_texts(item, change, keys=keys) for item in value]
    if isinstance(value, Mapping):
        of_key = keys or change
        return {
            of_key(str(name)): _with_texts(item, change, keys=keys) for name, item in value.items()
        }
    return value
