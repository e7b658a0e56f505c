"""What is known of a data set, so that it can be told from another one?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rf_notebook.core.values import Json


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Equal for data sets with equal rows."""

    rows: int | None
    """How many; None for a stream."""
    columns: tuple[str, ...]
    sha256: str
    """Of the rows, or of many of them where they are very many; empty for a stream."""
    blocks: tuple[str, ...] = field(default=(), compare=False)
    """Short digests of equal blocks of rows, which tell where two data sets differ."""

    @classmethod
    def read(cls, value: Json) -> Fingerprint | None:
        """From JSON, which may come from anywhere; None for data that was not given."""
        if not isinstance(value, Mapping):
            return None
        rows = value.get("rows")
        return cls(
            rows=rows if isinstance(rows, int) else None,
            columns=_texts(value.get("columns")),
            sha256=str(value.get("sha256", "")),
            blocks=_texts(value.get("blocks")),
        )

    def __str__(self) -> str:
        if self.rows is None:
            return "a stream"
        return f"{self.rows} rows (sha256 {self.sha256[:8]})"


def _texts(value: Json) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, Sequence) else ()
