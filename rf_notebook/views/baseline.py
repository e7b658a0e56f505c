"""How far is a run from the one that the others are compared to?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rf_notebook.views.words import short_exponent

if TYPE_CHECKING:
    from rf_notebook.views.columns import Column
    from rf_notebook.views.run_row import RunRow

#: Columns that say how far training is, not what came of it.
_NOT_COMPARED = ("run", "progress", "left", "parent")


def against(column: Column, row: RunRow, base: RunRow | None) -> str:
    """What is written behind a run's value: " (+0.02)", or " (=)"; empty where nothing compares.

    Args:
        column: Of the table.
        row: The run.
        base: The run to which it is compared, if there is one.
    """
    if base is None or row.run_id == base.run_id or column.key in _NOT_COMPARED:
        return ""
    mine, its = column.value(row), column.value(base)
    if column.of == "knobs" and not (_is_number(mine) and _is_number(its)):
        return " (=)" if column.text(row) == column.text(base) else " (≠)"
    if not (_is_number(mine) and _is_number(its)):
        return ""
    difference = mine - its
    return f" ({short_exponent(f'{difference:+.3g}')})" if difference else " (=)"


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
