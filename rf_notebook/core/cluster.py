"""Which cluster is asked for?"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A running Ray cluster."""

    address: str
    """ "auto" for the one that this machine belongs to, host:port, or ray://host:port."""
    allow_unauthenticated: bool = False
    """Whether to join without a token."""
    storage: str | None = None
    """Where checkpoints lie that its workers write; None for the experiment's folder."""
