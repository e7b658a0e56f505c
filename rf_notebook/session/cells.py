"""Does a notebook still say what its experiment was made from?

The kernel tells a page the digests of the cells that had been run when the experiment was launched;
the page compares the notebook's cells with them. Its twin is labextension/src/provenance.ts.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from rf_notebook.core.values import Json, digest

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState

_MOST_CELLS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The cells that were run before the experiment began; the last one began it."""

    cells: tuple[str, ...]
    """Their texts, in the order in which they were run last."""

    @property
    def ran(self) -> tuple[str, ...]:
        """Their digests."""
        return tuple(source_digest(cell) for cell in self.cells)

    @property
    def launch(self) -> str:
        """The digest of the last."""
        return source_digest(self.cells[-1])


@lru_cache(maxsize=1024)  # asked again at every look
def source_digest(source: str) -> str:
    """The sha256 of a cell's text, without the line ends after it, which IPython does not keep."""
    return hashlib.sha256(source.rstrip("\n").encode("utf-8", "surrogatepass")).hexdigest()


def sources_now() -> Sources | None:
    """Those of the running cell; None outside of IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    history = getattr(getattr(shell, "history_manager", None), "input_hist_raw", None)
    if not history:
        return None
    cells = [source for source in history[-_MOST_CELLS:] if source]
    newest_first = dict.fromkeys(reversed(cells))
    return Sources(cells=tuple(reversed(newest_first))) if cells else None


def spec_digest(state: ExperimentState) -> str | None:
    """Equal for experiments that were asked to do the same: configs, data, chunks, seeds, versions.

    Clones are not part of it: they are made later, by operations.
    """
    started = state.started
    if started is None:
        return None
    configs: list[Json] = [
        record.config.as_json() for record in list(state.runs.values()) if record.parent_id is None
    ]
    return digest(
        {
            "configs": configs,
            "data": dict(started.data),
            "num_chunks": started.num_chunks,
            "seed": started.seed,
            "data_seed": started.data_seed,
            "execution": started.execution,
            "versions": dict(started.versions),
        }
    )
