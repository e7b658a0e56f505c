"""Where does the panel remember how it was arranged? In a file that nothing else depends on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rf_notebook.store import layout
from rf_notebook.store.plain_files import read_plain, write_whole

if TYPE_CHECKING:
    from rf_notebook.core.values import Json

_MOST_BYTES = 1 << 20


def read_arrangement(folder: Path) -> Json:
    """What was written last; None where there is nothing that can be read."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        read: Json = json.loads(read_plain(layout.panel(folder), _MOST_BYTES))
        return read
    return None


def write_arrangement(folder: Path, arrangement: Mapping[str, Json]) -> None:
    """Remember it; where it cannot be written, it is forgotten with the kernel."""
    with contextlib.suppress(OSError):
        write_whole(layout.panel(folder), json.dumps(arrangement).encode())
