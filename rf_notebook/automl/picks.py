"""How are the choices that a search leaves made by a study, and which choices made a config?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from rf_notebook.automl.library_configs import ArgumentsConfig
from rf_notebook.automl.search import has_choices
from rf_notebook.automl.search_space import List, Number, Range
from rf_notebook.core.encoding import encode
from rf_notebook.core.values import Json, canonical_json

if TYPE_CHECKING:
    import optuna

    from rf_notebook.core.objects import Objects

_LABEL = 60
#: What a parameter may be in a study.
_PLAIN = (bool, int, float, str, type(None))


class Pick(Protocol):
    """Chooses where a search leaves a choice."""

    def among(self, name: str, labels: Sequence[Any]) -> int:
        """The place of one of several values."""

    def number(self, name: str, space: Range) -> Number:
        """A number of a range."""


class Suggested:
    """By a trial."""

    def __init__(self, trial: optuna.trial.Trial) -> None:
        self._trial = trial

    def among(self, name: str, labels: Sequence[Any]) -> int:
        """See Pick."""
        return _place_of(self._trial.suggest_categorical(name, list(labels)), labels)

    def number(self, name: str, space: Range) -> Number:
        """See Pick."""
        steps = space.steps() if space.step is not None else []
        end = steps[-1] if steps else space.end
        if space.dtype == "int":
            step = {} if space.step is None else {"step": int(space.step)}
            return int(
                self._trial.suggest_int(name, int(space.start), int(end), log=space.log, **step)
            )
        return float(
            self._trial.suggest_float(
                name, float(space.start), float(end), log=space.log, step=space.step
            )
        )


class Chosen:
    """By parameters that are known."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._parameters = parameters

    def among(self, name: str, labels: Sequence[Any]) -> int:
        """See Pick."""
        return _place_of(self._parameters[name], labels)

    def number(self, name: str, space: Range) -> Number:
        """See Pick."""
        found: Number = self._parameters[name]
        return found


def picked(value: Any, path: str, pick: Pick) -> Any:
    """A value with all its choices made."""
    if isinstance(value, List):
        place = pick.among(path, _labels(value.values))
        return picked(value.values[place], f"{path}[{place}]", pick)
    if isinstance(value, Range):
        return pick.number(path, value)
    if isinstance(value, ArgumentsConfig):
        return type(value)(**picked(value.given(), path, pick))
    if isinstance(value, Mapping):
        return {name: picked(item, _below(path, name), pick) for name, item in value.items()}
    if isinstance(value, list | tuple) and has_choices(value):
        return type(value)(
            picked(item, f"{path}[{place}]", pick) for place, item in enumerate(value)
        )
    return value


def matches(
    value: Any, given: Json, path: str, found: dict[str, Any], objects: Objects, key: str = ""
) -> bool:
    """Whether a template can have made a config's JSON, and by which parameters.

    They are added to ``found``.
    """
    if isinstance(value, List):
        labels = _labels(value.values)
        for place, item in enumerate(value.values):
            inner: dict[str, Any] = {}
            if matches(item, given, f"{path}[{place}]", inner, objects, key):
                found.update({path: labels[place], **inner})
                return True
        return False
    if isinstance(value, Range):
        if (
            isinstance(given, bool)
            or not isinstance(given, int | float)
            or not value.start <= given <= value.end
        ):
            return False
        found[path] = given
        return True
    if isinstance(value, ArgumentsConfig):
        value = value.given()
    if isinstance(value, Mapping) and isinstance(given, Mapping):
        return all(
            item is None or matches(item, given.get(name), _below(path, name), found, objects, name)
            for name, item in value.items()
        )
    if isinstance(value, list | tuple) and has_choices(value):
        return isinstance(given, list) and all(
            matches(item, one, f"{path}[{place}]", found, objects, key)
            for place, (item, one) in enumerate(zip(value, given, strict=False))
        )
    return bool(encode(value, objects, key) == given)


def _below(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def _labels(values: Sequence[Any]) -> list[Any]:
    """What values are called in a study, which knows numbers, words and None only."""
    if all(isinstance(value, _PLAIN) for value in values) and len(
        {repr(value) for value in values}
    ) == len(values):
        return list(values)
    words = [_word(value)[:_LABEL] for value in values]
    return [
        f"{word} ({place})" if words.count(word) > 1 else word for place, word in enumerate(words)
    ]


def _word(value: Any) -> str:
    if isinstance(value, ArgumentsConfig):
        given = ", ".join(f"{name}={item!r}" for name, item in value.given().items())
        return f"{type(value).__name__}({given})"
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    if isinstance(value, str):
        return value
    name = getattr(value, "__name__", None)
    if isinstance(name, str):
        return name
    try:
        return canonical_json(value)
    except (TypeError, ValueError):
        return type(value).__name__


def _place_of(label: Any, labels: Sequence[Any]) -> int:
    return next(
        place for place, one in enumerate(labels) if one == label and type(one) is type(label)
    )
