"""Runs that belong together: those with one value of a knob, or that differ in their seed alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from rf_notebook.views.words import config_value, knob_name, number, short_exponent

if TYPE_CHECKING:
    from rf_notebook.core.values import Json
    from rf_notebook.views.columns import Column
    from rf_notebook.views.run_row import RunRow

#: Groups of runs whose configs differ in a seed at most.
SEEDS = "all but the seed"
_SEED_NAMES = ("seed", "data_seed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Runs that have something in common."""

    key: str
    """Stays the same while runs come and go."""
    title: str
    """Such as "learning_rate 1e-4"."""
    rows: tuple[RunRow, ...]

    @property
    def first_run(self) -> int:
        """Whose colour and stroke it has."""
        return min(row.run_id for row in self.rows)


def groupings(varying: Sequence[str]) -> list[str]:
    """By what runs can be grouped: dotted keys of the knobs in which they differ, and SEEDS.

    Args:
        varying: Those keys.
    """
    return [*([SEEDS] if any(map(_is_seed, varying)) else []), *varying]


def groups_of(rows: Sequence[RunRow], by: str) -> list[Group]:
    """The groups, in the order in which their first runs come.

    Args:
        rows: In the order in which they are shown.
        by: One of ``groupings``.
    """
    members: dict[str, list[RunRow]] = {}
    for row in rows:
        members.setdefault(_title(row, by), []).append(row)
    return [
        Group(key=f"{by}\n{title}", title=title, rows=tuple(found))
        for title, found in members.items()
    ]


def group_text(group: Group, column: Column) -> str:
    """What a group's row says in a column: the common value, or the mean and its deviation."""
    if column.key == "state":
        counts = Counter(row.state_word for row in group.rows)
        return ", ".join(f"{count} {word}" for word, count in counts.items())
    texts = {column.text(row) for row in group.rows}
    if column.of == "knobs" or column.is_text:
        return texts.pop() if len(texts) == 1 else ""
    numbers = _numbers(group, column)
    if not numbers or column.key == "left":
        return ""
    if column.key == "progress":
        return f"{fmean(numbers):.0%}"
    if column.key == "memory":
        return texts.pop() if len(texts) == 1 else ""
    mean = number(fmean(numbers))
    if len(numbers) == 1:
        return mean
    return f"{mean} ± {short_exponent(f'{stdev(numbers):.2g}')}"


def group_value(group: Group, column: Column) -> float | None:
    """By what groups are sorted: the mean of a column; None without numbers."""
    numbers = _numbers(group, column)
    return fmean(numbers) if numbers else None


def _numbers(group: Group, column: Column) -> list[float]:
    values = [column.value(row) for row in group.rows]
    return [
        float(value) for value in values if type(value) in (int, float) and math.isfinite(value)
    ]


def _title(row: RunRow, by: str) -> str:
    if by != SEEDS:
        return f"{knob_name(by)} {config_value(row.config.get(by))}"
    return ", ".join(_knobs(row.knobs)) or "all runs"


def _knobs(knobs: Mapping[str, Json]) -> list[str]:
    return [
        f"{knob_name(key)} {config_value(value)}"
        for key, value in knobs.items()
        if not _is_seed(key)
    ]


def _is_seed(key: str) -> bool:
    return key.rpartition(".")[2] in _SEED_NAMES
