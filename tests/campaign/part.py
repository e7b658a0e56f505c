"""What is one part of the campaign?"""

from __future__ import annotations

import random
from pathlib import Path
from types import TracebackType
from typing import Self


class Part:
    """Attempts of one kind; made once, in a folder of its own that is removed at the end."""

    most_seconds = 5.0
    """Of one attempt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends what was begun."""

    def attempt(self, draw: random.Random) -> str:
        """One attempt, drawn; what went wrong, or "" when it was survived. What it raises is a fault."""
        raise NotImplementedError
