"""What does a callback in the style of RapidFire AI look like?

It is told of every chunk and may prune the run.

Hand one to ``run_fit(policy=...)`` or ``experiment.automate``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

#: By name: the steps at which a metric was logged and its values.
Metrics = Mapping[str, list[tuple[int, float]]]


@dataclass
class RunDecision:
    """What is to become of a run that has trained a chunk."""

    action: Literal["continue", "prune"]
    replacement_config: Mapping[str, Any] | None = None
    """Edits of the pruned run's config, which make the run that takes its place."""


class _Callback(Protocol):
    def register_runs(self, run_id_to_config: dict[int, dict[str, Any]]) -> None:
        """These runs are new."""

    def finalize(self, final_metrics: dict[int, Metrics]) -> None:
        """No run is left that trains."""


class ChunkCallback(_Callback, Protocol):
    """Called in this order: ``register_runs``, ``on_chunk_complete`` for every chunk, ``finalize``."""

    def on_chunk_complete(self, run_id: int, chunk_id: int, metrics: Metrics) -> RunDecision:
        """A run has trained a chunk, counted from 0."""


class FitShardCallback(_Callback, Protocol):
    """The same with the older name of a chunk."""

    def on_shard_complete(self, run_id: int, shard_id: int, metrics: Metrics) -> RunDecision:
        """A run has trained a chunk, counted from 0."""
