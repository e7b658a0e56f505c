"""How does a config read in a tracker? Flat, functions by name, and without secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rf_notebook.core.redaction import REDACTED, redact
from rf_notebook.core.values import Json, flatten

if TYPE_CHECKING:
    from rf_notebook.core.run import RunConfig

LONGEST_VALUE = 500


def shown_text(value: Json) -> str:
    """A value as text, of at most LONGEST_VALUE signs."""
    if isinstance(value, dict) and "$secret" in value:
        return REDACTED
    if isinstance(value, dict) and "$object" in value:
        value = value["$object"]
    return redact(str(value))[:LONGEST_VALUE]


def shown_config(config: RunConfig) -> dict[str, str | int | float | bool]:
    """By flat names ("training.learning_rate"); numbers stay numbers."""
    return {
        key: value if isinstance(value, bool | int | float) else shown_text(value)
        for key, value in flatten(config.as_json()).items()
    }
