"""What do people call runs? Names, tags and notes, which change nothing that is trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rf_notebook.core.errors import ConfigError

_LONGEST_NAME = 60
_MOST_TAGS, _LONGEST_TAG = 20, 40
_LONGEST_NOTE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """Of a run, or of the experiment, which has no name besides its own."""

    name: str = ""
    tags: tuple[str, ...] = ()
    note: str = ""


#: Of what nobody labelled.
UNLABELLED = Label()


def label_changes(
    *, name: str | None = None, tags: Iterable[str] | None = None, note: str | None = None
) -> dict[str, Any]:
    """What is to differ in a ``Label``.

    Args:
        name: See ``Label``; None leaves it, "" takes it away.
        tags: All that it has from now on; None leaves them. Those given twice count once.
        note: Like ``name``.

    Raises:
        ConfigError: for what cannot be one, or nothing at all.
    """
    changes: dict[str, Any] = {}
    if name is not None:
        changes["name"] = _line("name", name, _LONGEST_NAME)
    if tags is not None:
        changes["tags"] = _tags(tags)
    if note is not None:
        if not isinstance(note, str) or len(note) > _LONGEST_NOTE:
            raise ConfigError(
                f"note={note!r:.40} is not possible: a note is text of up to {_LONGEST_NOTE:,} characters."
            )
        changes["note"] = _storable(note.strip())
    if not changes:
        raise ConfigError("give a name, tags or a note; each of them can be empty to take it away.")
    return changes


def run_words(run_id: int, label: Label) -> str:
    """How a run is called where there is room for its name: "run 3", or "run 3 · small rate"."""
    return f"run {run_id} · {label.name}" if label.name else f"run {run_id}"


def _tags(given: Iterable[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        raise ConfigError(
            f"tags={given!r:.40} is one text; give a list, as in tags=[{given!r:.40}]."
        )
    try:
        tags = tuple(dict.fromkeys(_line("a tag", tag, _LONGEST_TAG) for tag in given))
    except TypeError:
        raise ConfigError(f"tags={given!r:.40} is not a list of texts.") from None
    if "" in tags or any("," in tag for tag in tags):
        raise ConfigError("a tag is not empty and has no comma.")
    if len(tags) > _MOST_TAGS:
        raise ConfigError(f"{len(tags)} tags are too many; {_MOST_TAGS} at most.")
    return tags


def _line(what: str, given: Any, longest: int) -> str:
    if not isinstance(given, str):
        raise ConfigError(f"{what} is text, not {given!r:.40}.")
    line = given.strip()
    if len(line) > longest or not line.isprintable():
        raise ConfigError(
            f"{line!r:.80} is not possible: {what} is one line of up to {longest} characters that can be seen."
        )
    return _storable(line)


def _storable(text: str) -> str:
    """Half a character, as a slice of an emoji leaves it, cannot be written."""
    return text.encode("utf-8", "replace").decode().replace("\0", "�")
