"""In what do two experiments differ?

Configs, data, environment, operations and results, side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import zip_longest

from rf_notebook.core.values import Json, canonical_json, flatten
from rf_notebook.record.record import Operation, Record, portable

_WIDTH = 200


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which two experiments differ."""

    part: str
    """configs, data, functions, code, versions, environment, operations or results."""
    what: str
    first: str
    second: str


def differences(first: Record, second: Record) -> list[Difference]:
    """All of them, part by part."""
    one, other = first.spec, second.spec
    found: list[Difference] = []
    for i, (a, b) in enumerate(zip_longest(one.configs, other.configs), start=1):
        found += _of("configs", f"run {i}: ", _config(a), _config(b))
    found += _of("configs", "", _settings(first), _settings(second))
    found += _of("data", "", one.data, other.data)
    found += _of("base models", "", _models(first), _models(second))
    found += _of("functions", "", _functions(first), _functions(second))
    found += _of(
        "code",
        "",
        *({f"cell {i}": cell for i, cell in enumerate(spec.cells, 1)} for spec in (one, other)),
    )
    found += _of("versions", "", one.versions, other.versions)
    found += _of("environment", "", one.environment, other.environment)
    found += _of("operations", "", _operations(first.operations), _operations(second.operations))
    found += _of("results", "", _results(first), _results(second))
    return found


def _of(
    part: str, prefix: str, first: Mapping[str, Json], second: Mapping[str, Json]
) -> Iterable[Difference]:
    a, b = flatten(portable(first)), flatten(portable(second))
    for name in dict.fromkeys([*a, *b]):
        if name not in a or name not in b or canonical_json(a[name]) != canonical_json(b[name]):
            yield Difference(part, f"{prefix}{name}"[:_WIDTH], _shown(a, name), _shown(b, name))


def _shown(values: Mapping[str, Json], name: str) -> str:
    if name not in values:
        return "-"
    value = values[name]
    return (value if isinstance(value, str) else canonical_json(value))[:_WIDTH]


def _config(config: object) -> Mapping[str, Json]:
    as_run_config = getattr(config, "as_run_config", None)
    return {} if as_run_config is None else as_run_config().as_json()


def _settings(record: Record) -> dict[str, Json]:
    names = ("num_chunks", "seed", "data_seed", "execution")
    options = {
        name: value for name, value in record.spec.options.items() if name != "experiment_name"
    }
    return {**{name: getattr(record.spec, name) for name in names}, **options}


def _models(record: Record) -> dict[str, Json]:
    return {str(model.chosen_by.get("model_name")): model.facts for model in record.spec.models}


def _functions(record: Record) -> dict[str, Json]:
    """By their plain names, so that a changed function is one difference, not two."""
    return {name.partition("@")[0]: source for name, source in record.spec.functions.items()}


def _operations(operations: Iterable[Operation]) -> dict[str, Json]:
    return {
        f"operation {i}": f"{one.what} run {one.run} at step {one.steps}"
        + (f" with {canonical_json(one.edits)}" if one.edits else "")
        + (", warm" if one.warm_start else "")
        for i, one in enumerate(operations, start=1)
    }


def _results(record: Record) -> dict[str, Json]:
    return {
        f"run {one.run}": {"state": str(one.state), "steps": one.steps, **one.metrics}
        for one in record.results
    }
