"""Where do events go, and who hears of a commit?

Protocols; each has a real implementation and a shipped double.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from rf_notebook.core.events import Event, Recorded


class CommitPoint(StrEnum):
    """Moments of a commit between which a kill must lose nothing.

    Tests kill the process at each.
    """

    CHECKPOINT_WRITTEN = "checkpoint written to its temporary folder"
    CHECKPOINT_SYNCED = "checkpoint flushed to the disk"
    CHECKPOINT_RENAMED = "checkpoint at its final name"
    EVENTS_INSERTED = "events inserted, transaction open"
    EVENTS_COMMITTED = "transaction committed"
    CHECKPOINTS_REMOVED = "older checkpoints removed"


class CommitObserver(Protocol):
    """Told of each commit point; does nothing outside the crash tests."""

    def __call__(self, point: CommitPoint) -> None:
        """Called by the thread that commits, or by one that it waits for."""


def unobserved(point: CommitPoint) -> None:
    """The observer of everyday use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds an experiment's lease."""

    host: str
    pid: int
    process_started: float
    """Seconds since 1970; tells a process from a later one with the same pid."""


class EventStore(Protocol):
    """The log of one experiment."""

    def append(self, events: Sequence[Event], fence: int) -> list[Recorded]:
        """Write events in one transaction.

        Raises:
            LeaseLost: when ``fence`` is not the newest.
            StorageFull: when there is no room; nothing was written.
        """

    def read(self, after: int = 0) -> list[Recorded]:
        """Events with a number above ``after``, in order."""

    def acquire(self, holder: Holder, *, take_over: bool = False) -> int:
        """Become the writer; returns the fence.

        Raises:
            ReadOnlyExperiment: when another living holder has it and ``take_over`` is not set.
        """

    def renew(self, fence: int) -> None:
        """Say that the holder lives. Raises LeaseLost."""

    def release(self, fence: int) -> None:
        """Give the lease back; nothing happens when it was lost."""

    def holder(self) -> Holder | None:
        """Who holds the lease, living or not."""

    def living_holder(self) -> Holder | None:
        """Who holds the lease and may still write; None when the holder's process is gone."""

    def close(self) -> None:
        """Close the files."""
