"""Which runs meet what somebody typed?"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import ConfigError
from rf_notebook.views.words import knob_name

if TYPE_CHECKING:
    from rf_notebook.views.run_row import RunRow
    from rf_notebook.views.runs_table import RunsView

_CONDITION = re.compile(r"\s*([\w./ -]+?)\s*(>=|<=|!=|==|=|>|<|~)\s*(.+?)\s*")
#: What people call the usual knobs.
SHORT_NAMES = {
    "learning_rate": "lr",
    "per_device_train_batch_size": "batch",
    "num_train_epochs": "epochs",
}
_LONG_NAMES = {short: name for name, short in SHORT_NAMES.items()} | {"id": "run"}
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
}


def filtered(view: RunsView, text: str) -> set[int]:
    """Ids of the runs that meet all conditions, such as ``lr > 1e-4, r = 32`` or ``stopped``.

    Raises:
        ConfigError: for a column that the table does not have, naming those that there are.
    """
    tests = [_test(view, part) for part in text.split(",") if part.strip()]
    return {row.run_id for row in view.rows if all(test(row) for test in tests)}


def _test(view: RunsView, part: str) -> Callable[[RunRow], bool]:
    matched = _CONDITION.fullmatch(part)
    if matched is None:
        word = part.strip().lower()
        return lambda row: (
            word in row.label.note.lower()
            or any(word in column.text(row).lower() for column in view.columns)
        )
    name, sign, wanted = matched.groups()
    name = _LONG_NAMES.get(name, name)
    column = next((c for c in view.available if name in (c.key, knob_name(c.key), c.title)), None)
    if column is None:
        known = ", ".join(knob_name(c.key) for c in view.columns)
        raise ConfigError(f"the filter's {name!r} is not a column; there are: {known}.")
    if sign == "~":
        return lambda row: wanted.lower() in column.text(row).lower()
    try:
        limit = float(wanted)
    except ValueError:
        if sign not in ("=", "==", "!="):
            raise ConfigError(
                f"the filter's {part.strip()!r} compares with {wanted!r}, which is not a number."
            ) from None
        equal = sign != "!="
        return lambda row: (column.text(row).lower() == wanted.strip("'\"").lower()) is equal
    compare = _COMPARISONS[sign]

    def holds(row: RunRow) -> bool:
        value = column.value(row)
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and compare(float(value), limit)
        )

    return holds
