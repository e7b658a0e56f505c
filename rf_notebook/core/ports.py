"""What does the engine need from the outside? Protocols; each has a real implementation and a shipped double."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from rf_notebook.core.events import Event, Recorded
from rf_notebook.core.run import (
    Failure,
    Generation,
    LoadedModel,
    MetricPoint,
    Progress,
    RunConfig,
    StoredFolder,
    WarmStartReport,
)
from rf_notebook.core.values import Json


class CommitPoint(StrEnum):
    """Moments of a commit between which a kill must lose nothing; tests kill the process at each."""

    CHECKPOINT_WRITTEN = "checkpoint written to its temporary folder"
    CHECKPOINT_SYNCED = "checkpoint flushed to the disk"
    CHECKPOINT_RENAMED = "checkpoint at its final name"
    EVENTS_INSERTED = "events inserted, transaction open"
    EVENTS_COMMITTED = "transaction committed"
    CHECKPOINTS_REMOVED = "older checkpoints removed"


class CommitObserver(Protocol):
    """Told of each commit point; does nothing outside the crash tests."""

    def __call__(self, point: CommitPoint) -> None:
        """Called by the thread that commits."""


def unobserved(point: CommitPoint) -> None:
    """The observer of everyday use."""


class TurnOutcome(StrEnum):
    """How a turn of a run ended."""

    BOUNDARY = "boundary"
    INTERRUPTED = "interrupted"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRequest:
    """One turn, by value: all that a runner elsewhere would need."""

    run_id: int
    config: RunConfig
    progress: Progress
    """What is committed."""
    continue_from: StoredFolder | None
    """The checkpoint of ``progress``, for a runner that does not hold the run."""
    warm_start: StoredFolder | None
    """The adapter from which a run that has not trained starts."""
    fence: int
    """Of the lease; comes back in the result."""
    park_at: int | None = None
    """Steps after which the turn ends as if it had been interrupted, when they come before the boundary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkResult:
    """What a turn gave. ``points`` and ``progress`` are only to be committed together with ``checkpoint``."""

    run_id: int
    fence: int
    outcome: TurnOutcome
    progress: Progress
    points: tuple[MetricPoint, ...] = ()
    checkpoint: StoredFolder | None = None
    failure: Failure | None = None
    warm_start_report: WarmStartReport | None = None
    train_seconds: float = 0.0
    overhead_seconds: float = 0.0
    own_bytes: int = 0
    generations: tuple[Generation, ...] = ()
    """To the sample prompts, when the turn ended at a boundary."""
    notes: tuple[str, ...] = ()
    fused_with: tuple[int, ...] = ()
    """The runs with which it trained in joint steps."""
    loaded: tuple[LoadedModel, ...] = ()
    """Base models that were loaded for it."""


@dataclass(frozen=True, slots=True)
class Fusibility:
    """Whether a run can train in joint steps with others."""

    key: str | None
    """Equal for runs that can train together; None for one that trains alone."""
    reason: str = ""
    """Why it trains alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRequest:
    """What a new run is to start from."""

    run_id: int
    """Whose adapter it is."""
    config: RunConfig
    """Of that run."""
    checkpoint: StoredFolder | None
    """Its newest, for a runner that does not hold it."""
    started_from: StoredFolder | None
    """What that run itself started from; its reference is there."""
    target: str
    """The folder to write, relative to the experiment's."""
    becomes_reference: bool
    """Whether the new run, of another method, is to be compared with what it starts from."""


class LiveListener(Protocol):
    """Hears of steps while a turn goes on; called by the thread that trains, so it must be quick."""

    def __call__(self, run_id: int, progress: Progress, point: MetricPoint | None) -> None:
        """``point`` is None for a step that logged nothing."""


class ChunkRunner(Protocol):
    """Trains runs. All methods but ``interrupt`` and ``abandon`` are called by one thread."""

    def train(self, request: ChunkRequest) -> ChunkResult:
        """Advance a run to its next chunk boundary, its end, its failure, or the next step after ``interrupt``.

        An interrupted result carries no checkpoint and no points: the turn can go on by calling ``train`` again.

        Raises:
            CheckpointDamaged: when ``continue_from`` is not what was recorded.
            StorageFull: when the checkpoint did not fit; ``train`` again writes it and trains nothing.
        """

    def fusibility(self, run_id: int, config: RunConfig) -> Fusibility:
        """Whether a run can train in joint steps; more is known of one that is held."""

    def train_together(self, requests: Sequence[ChunkRequest]) -> tuple[int, ...]:
        """Advance runs of one key in joint steps, each as far as ``train`` would.

        Returns:
            The runs whose turn is over; ``train`` gives the result of each and trains it no further.
        """

    def holds(self, run_id: int) -> bool:
        """Whether a run is in memory, possibly beyond what is committed."""

    def save(self, run_id: int, fence: int) -> ChunkResult:
        """Checkpoint a run that was interrupted inside a chunk."""

    def snapshot(self, request: SnapshotRequest) -> StoredFolder:
        """Save the adapter of a run, held or from its checkpoint, for another run to start from."""

    def adopt(self, path: str, target: str) -> StoredFolder:
        """Copy an adapter of the user's into the folder ``target`` of the experiment.

        Raises:
            ConfigError: when there is no adapter at ``path``.
        """

    def verify(self, folder: StoredFolder) -> None:
        """Raise CheckpointDamaged unless the folder is what was hashed when it was written."""

    def validate(self, config: RunConfig) -> list[str]:
        """Raise ConfigError when the config cannot be trained; loads no model. Returns what the user should know."""

    def generate(
        self,
        run_id: int,
        config: RunConfig,
        checkpoint: StoredFolder | None,
        prompts: Sequence[str],
        settings: Mapping[str, Json],
    ) -> list[str]:
        """What a run's model writes, held or from its checkpoint; training goes on as if nothing had been asked.

        Args:
            run_id: The run.
            config: Its config.
            checkpoint: Its newest, for a runner that does not hold it.
            prompts: What a user asks; the tokenizer's chat template is applied where it has one.
            settings: Arguments of ``generate``, and ``seed``.

        Raises:
            ConfigError: when there is neither a held run nor a checkpoint.
        """

    def load(self, run_id: int, config: RunConfig, checkpoint: StoredFolder) -> object:
        """The model of a run's checkpoint, ready for inference."""

    def export(self, run_id: int, config: RunConfig, checkpoint: StoredFolder, path: str, *, merge: bool) -> None:
        """Write the model of a run's checkpoint and its tokenizer to a folder of the user's.

        Args:
            run_id: The run.
            config: Its config.
            checkpoint: Its newest.
            path: A new or empty folder.
            merge: Whether to write whole weights with the adapter folded in.

        Raises:
            ConfigError: when the folder holds something.
        """

    def remove(self, run_id: int, paths: Sequence[str]) -> None:
        """Delete checkpoint folders."""

    def release(self, run_id: int) -> None:
        """Free the memory of a run."""

    def rearm(self) -> None:
        """Forget earlier interrupts; called before the operations that caused them are looked at."""

    def interrupt(self) -> None:
        """Ask the run that trains to park at its next optimizer step; any thread."""

    def abandon(self) -> None:
        """Ask the run that trains to give up at once, its uncommitted part lost; any thread."""

    def close(self) -> None:
        """Free everything."""


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
