"""Who trains runs?

A ChunkRunner, in whatever process: what it is asked and what it answers are values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from rf_notebook.core.run import (
    Failure,
    Generation,
    GenerationSpeed,
    LoadedModel,
    MetricPoint,
    Progress,
    RunConfig,
    StoredFolder,
    WarmStartReport,
)
from rf_notebook.core.values import Json


class TurnOutcome(StrEnum):
    """How a turn of a run ended."""

    BOUNDARY = "boundary"
    INTERRUPTED = "interrupted"
    COMPLETED = "completed"
    FAILED = "failed"
    DAMAGED = "damaged"
    """The checkpoint to continue from is not what was recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRequest:
    """One turn of one run."""

    run_id: int
    config: RunConfig
    progress: Progress
    """What is committed, or will be as soon as its checkpoint is written."""
    continue_from: StoredFolder | None
    """The newest checkpoint that is committed, for a runner that does not hold the run."""
    warm_start: StoredFolder | None
    """The adapter from which a run that has not trained starts."""
    fence: int
    """Of the lease; comes back in the result."""
    attempt: int
    """Names the checkpoint with the fence, so that nothing overwrites what another has written."""
    park_at: int | None = None
    """Steps after which the turn ends as if it had been interrupted, when they come before the
    boundary."""
    is_joint: bool = False
    """Whether it trains in joint steps where it can, with the turn's others or by itself; over a
    model on several GPUs, whether it fills its stages with them."""
    is_judged: bool = False
    """Whether a policy may end the run at its next boundary."""
    saves_behind: bool = False
    """Whether the checkpoint of a boundary may be written while others train, or the run itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkResult:
    """What a turn gave.

    ``points`` and ``progress`` are only to be committed together with ``checkpoint``.
    """

    run_id: int
    fence: int
    outcome: TurnOutcome
    progress: Progress
    """Of an interrupted run, where it stands now; nothing of it is committed yet."""
    points: tuple[MetricPoint, ...] = ()
    checkpoint: StoredFolder | None = None
    is_being_saved: bool = False
    """Whether the checkpoint is being written: a Saved tells of it, and then all this is to be
    committed."""
    failure: Failure | None = None
    """Why it failed, or what is damaged."""
    warm_start_report: WarmStartReport | None = None
    train_seconds: float = 0.0
    overhead_seconds: float = 0.0
    eval_seconds: float = 0.0
    """Of that: of the evaluation at the boundary."""
    reward_seconds: Mapping[str, float] = field(default_factory=dict)
    """Of those of training, by reward function; functions that wait at the same time count each."""
    setup_seconds: float = 0.0
    """Of those of training: spent on what is done once and serves later turns, too."""
    own_bytes: int = 0
    generations: tuple[Generation, ...] = ()
    """To the sample prompts, when the turn ended at a boundary."""
    generation_speed: GenerationSpeed | None = None
    """Where it was measured."""
    notes: tuple[str, ...] = ()
    is_joint: bool = False
    """Whether it trained in joint steps."""
    fused_with: tuple[int, ...] = ()
    """The runs with which it did, or with which it filled the stages of one model; none when it was
    by itself."""
    hindrance: str = ""
    """Why it cannot take part in joint steps, as its trainer tells; empty when it can, or was not
    asked."""
    loaded: tuple[LoadedModel, ...] = ()
    """Base models that were loaded for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A checkpoint that was written behind a turn, or could not be."""

    run_id: int
    steps: int
    """Of the result that it belongs to."""
    checkpoint: StoredFolder | None
    error: BaseException | None = None
    """Why it was not written.

    The result is void then: the runner adds what it said to the run's next one.
    """


@dataclass(frozen=True, slots=True)
class Fusibility:
    """Whether a run can train in joint steps with others."""

    key: str | None
    """Equal for runs that can train together; None for one that trains alone."""
    reason: str = ""
    """Why it trains alone."""
    line: str | None = None
    """Equal for runs that can fill the stages of one model on several GPUs together, each with
    passes of its own; None for one that cannot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveRun:
    """Checkpoint a run that was interrupted inside a chunk.

    The answer is a ChunkResult, or None when it is not held. It is that of a turn where one further
    on waits to be taken.
    """

    run_id: int
    fence: int
    attempt: int
    """As in ChunkRequest."""
    steps: int
    """At which the run stands, as far as it was told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRequest:
    """Save the adapter of a run, held or from its checkpoint, for another run to start from.

    A StoredFolder.
    """

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOfRun:
    """A run's model: as a runner holds it, or from its checkpoint."""

    run_id: int
    config: RunConfig
    checkpoint: StoredFolder | None
    """Its newest, for a runner that does not hold it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteTexts:
    """What the models of runs write; a list of texts for each.

    Training is not touched by it.
    """

    models: tuple[ModelOfRun, ...]
    prompts: tuple[str, ...]
    """What a user asks; the tokenizer's chat template is applied where it has one."""
    settings: Mapping[str, Json]
    """Arguments of ``generate``, and ``seed``."""
    is_joint: bool
    """Whether those that can share a step a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteModel:
    """Write the model of a checkpoint and its tokenizer to a folder of the user's."""

    config: RunConfig
    checkpoint: StoredFolder
    path: str
    """A new or empty folder, absolute."""
    merge: bool
    """Whether to write whole weights with the adapter folded in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadModel:
    """The model of a checkpoint, ready for inference.

    Only a runner in the kernel has an answer, others give None.
    """

    config: RunConfig
    checkpoint: StoredFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRuns:
    """Free the memory of runs."""

    run_ids: tuple[int, ...]


#: What is asked of a runner between two turns.
Errand = SaveRun | SnapshotRequest | WriteTexts | WriteModel | ReadModel | ReleaseRuns


class LiveListener(Protocol):
    """Hears of steps while a turn is under way.

    Called by the thread that trains, so it must be quick.
    """

    def __call__(self, run_id: int, progress: Progress, point: MetricPoint | None) -> None:
        """``point`` is None for a step that logged nothing."""


SavedListener = Callable[[Saved], None]


class ChunkRunner(Protocol):
    """Trains runs on one device.

    All methods but ``interrupt`` and ``abandon`` are called by one thread.
    """

    listener: LiveListener | None
    on_saved: SavedListener | None
    """Hears of checkpoints that were written behind turns, in any thread and in any order, before
    or after the result that they belong to."""

    def train(self, requests: Sequence[ChunkRequest]) -> tuple[ChunkResult, ...]:
        """Advance each run to its next chunk boundary, its end or its failure.

        An ``interrupt`` ends the turn at the next step.

        Several runs train in joint steps where they can. A result of an interrupted run carries no
        checkpoint and no points: the turn continues when it is asked for again. So does the rest of
        a turn that raised: a result that was there already, and is not in the request's
        ``progress`` yet, is given again.

        Returns:
            A result for each request.

        Raises:
            StorageFull: when a checkpoint did not fit; asking again writes it and trains nothing.
        """

    def do(self, errand: Errand) -> object:
        """Do an errand; its class says what the answer is.

        Raises:
            ConfigError: when there is neither a held run nor a checkpoint, or when a folder holds
                something already.
            CheckpointDamaged: when a checkpoint is not what was recorded.
            StorageFull: when there is no room to write.
        """

    @property
    def is_broken(self) -> bool:
        """Whether nothing can be trained in this process any more: most errors of CUDA stay."""

    def rearm(self) -> None:
        """Forget earlier interrupts."""

    def interrupt(self) -> None:
        """Ask the runs that train to park at their next optimizer step; any thread."""

    def abandon(self) -> None:
        """Ask the runs that train to give up at once, their uncommitted part lost; any thread."""

    def close(self) -> None:
        """Free everything."""


class ConfigRules(Protocol):
    """What is known of a config without a runner."""

    def validate(self, config: RunConfig) -> list[str]:
        """Refuse a config that cannot be trained; loads no model.

        Returns:
            What the user should know.

        Raises:
            ConfigError: why it cannot be trained.
        """

    def fusibility(self, config: RunConfig) -> Fusibility:
        """Whether a run of this config can train in joint steps, as far as the config tells."""
