"""What would a replay do? Said before anything of a stranger's notebook is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rf_notebook.core.redaction import REDACTED, visible
from rf_notebook.core.values import Json, canonical_json, flatten
from rf_notebook.record.verify import brought_by_clones, is_definition, verify

if TYPE_CHECKING:
    from rf_notebook.record.against import Standard
    from rf_notebook.record.files import Shared
    from rf_notebook.record.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPlan:
    """A dry run: what would be trained, what differs here, and which code would be run."""

    experiment: str
    """That was recorded."""
    target: Path
    """The folder that a replay would make."""
    trains: tuple[str, ...]
    differs: tuple[str, ...]
    cells: tuple[str, ...]
    """The notebook's cells that would be run, in this order."""
    functions: tuple[str, ...]
    """Sources of recorded functions that would be run, because only clones use them."""
    hinders: tuple[str, ...]
    """Why it cannot be replayed."""

    def __str__(self) -> str:
        parts = [
            f"Replay of {self.experiment!r} into {self.target}",
            _section("It would train", self.trains),
            _section(
                "What differs", self.differs or ("nothing that can be told before the code is run",)
            ),
            *([_section("It cannot be replayed", self.hinders)] if self.hinders else []),
            "Code that would be run\n"
            + "\n".join(
                f"  [{i}] " + code.replace("\n", "\n      ")
                for i, code in enumerate((*self.cells, *self.functions), start=1)
            ),
        ]
        return visible("\n\n".join(parts))


def plan_replay(
    shared: Shared,
    target: Path,
    standard: Standard,
    versions: Mapping[str, str],
    environment: Mapping[str, Json],
) -> ReplayPlan:
    """The dry run of a replay; nothing is executed, imported, fetched or written for it.

    Args:
        shared: From a file.
        target: Where the replay would lie.
        standard: How equal it would have to be.
        versions: Versions of the packages here.
        environment: Here.
    """
    record = shared.record
    findings = verify(shared)
    hinders = [finding.text for finding in findings if finding.hinders]
    if not record.spec.cells:
        hinders.append("it was made by a script, whose code is not recorded")
    if target.exists():
        hinders.append(f"{target.name!r} is there already; give the replay another name")
    changes = [finding.text for finding in findings if not (finding.is_right or finding.hinders)]
    return ReplayPlan(
        experiment=record.experiment,
        target=target,
        trains=tuple(_trains(record, standard)),
        differs=(*_elsewhere(record, versions, environment), *changes, *_secrets(shared)),
        cells=shared.code,
        functions=tuple(
            source
            for name, source in brought_by_clones(record).items()
            if source is not None and is_definition(name.partition("@")[0], source)
        ),
        hinders=tuple(hinders),
    )


def _trains(record: Record, standard: Standard) -> Sequence[str]:
    spec, steps = record.spec, sum(result.steps for result in record.results)
    methods = ", ".join(dict.fromkeys(config.method for config in spec.configs))
    rows = (spec.data.get("train") or {}).get("rows")
    how = (
        "to be equal bit for bit"
        if not standard.tolerance
        else f"to be equal within {standard.tolerance:.1%} of every figure: {standard.reason}"
    )
    models = [
        f"base model {model.facts.get('name') or model.chosen_by.get('model_name')}: {model.facts.get('parameters'):,} weights"
        for model in record.spec.models
        if isinstance(model.facts.get("parameters"), int)
    ]
    return [
        f"{len(record.results)} runs ({methods}), {steps} steps in all, over {rows if rows else 'a stream of'} rows, {how}",
        *models,
        *_operations(record),
    ]


def _operations(record: Record) -> Iterator[str]:
    """With what a clone's config really changes, whatever its edits say.

    A model from elsewhere has to be seen here.
    """
    configs = dict(enumerate(record.spec.configs, start=1))
    for one in record.operations:
        line = f"{one.what} run {one.run} at its step {one.steps}"
        if one.config is not None and one.run in configs:
            parent, child = (
                flatten(config.as_run_config().as_json())
                for config in (configs[one.run], one.config)
            )
            changed = [
                key for key in dict.fromkeys([*parent, *child]) if parent.get(key) != child.get(key)
            ]
            edits = ", ".join(f"{key}={canonical_json(child.get(key))}" for key in changed)
            number = len(configs) + 1
            line += f" as run {number}{', warm' if one.warm_start else ''}{': ' + edits if edits else ''}"
            configs[number] = one.config
        yield line


def _elsewhere(
    record: Record, versions: Mapping[str, str], environment: Mapping[str, Json]
) -> Sequence[str]:
    told = [
        f"{name} {then} was used, here is {versions.get(name, 'none')}"
        for name, then in record.spec.versions.items()
        if versions.get(name) != then
    ]
    told += [
        f"{name} was {then!r}, here it is {environment.get(name)!r}"
        for name, then in record.spec.environment.items()
        if environment.get(name) != then
    ]
    return told


def _secrets(shared: Shared) -> Sequence[str]:
    taken_out = any(REDACTED in cell for cell in shared.code)
    return ["a secret was taken out of a cell; the code may need it"] if taken_out else []


def _section(title: str, lines: Sequence[str]) -> str:
    return title + "\n" + "\n".join(f"  {line}" for line in lines)
