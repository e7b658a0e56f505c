"""What happened?

The log is a list of these values, appended and never changed; state is their fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rf_notebook.core.labels import Label
from rf_notebook.core.operations import Operation
from rf_notebook.core.run import (
    Failure,
    Generation,
    GenerationSpeed,
    LoadedModel,
    MetricPoint,
    Progress,
    RunConfig,
    RunState,
    StoredFolder,
    WarmStartReport,
)
from rf_notebook.core.values import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentStarted:
    """``run_fit`` was accepted for the first time: what all runs share."""

    name: str
    identity: str
    """Tells this experiment from others of its name, on a shared tracking server say."""
    num_chunks: int
    seed: int
    data_seed: int | None
    execution: str
    keep: str
    data: Mapping[str, Json]
    """Digest, rows and columns of "train" and of "eval" (None without evaluation data)."""
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRecorded:
    """What ``run_fit`` was first called from.

    With the functions, enough for somebody else to call it again.

    Secrets and the home folder are taken out of every text.
    """

    cells: tuple[str, ...]
    """Texts of the cells that had been run, the launching one last; empty in a script."""
    search: Json
    """The configs as given, before a search expanded them."""
    options: Mapping[str, Json]
    """The name in the launching cell, the loader's name, and what changes no figure: fail_on_nan
    and sample_prompts."""
    data: Mapping[str, Json]
    """Name, config and split of "train" and of "eval", where the data says so."""
    environment: Mapping[str, Json]
    """Python, platform, device, and the settings of torch that figures depend on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionsRecorded:
    """Functions that configs refer to, and the loader, became known."""

    functions: Mapping[str, str]
    """Their source by name, as it stands in configs and in ``LaunchRecorded.options``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModelLoaded:
    """A base model came into memory."""

    model: LoadedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentContinued:
    """``run_fit`` was called again, by a new kernel or after ``end``."""

    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicesChosen:
    """Runs train in worker processes on these devices from now on; in the kernel when none is named.

    For information: no figure depends on which of equal devices trains a run.
    """

    devices: Mapping[str, str]
    """What each is, by its name: {"cuda:0": "NVIDIA H100"}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentEnded:
    """``end`` or ``cancel_current`` closed the experiment; it can be continued."""

    cancelled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAdded:
    """A run joined: from the search, or as a clone."""

    run_id: int
    config: RunConfig
    parent_id: int | None = None
    edits: Mapping[str, Json] = field(default_factory=dict)
    warm_start: StoredFolder | None = None
    """The parent's adapter, saved at the moment the clone was obeyed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStarted:
    """A run took over its parent's adapter."""

    run_id: int
    report: WarmStartReport


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkTrained:
    """A run advanced, to a chunk's end or to the step at which it was stopped.

    The unit of durability.
    """

    run_id: int
    progress: Progress
    points: tuple[MetricPoint, ...]
    """Everything logged since the event before."""
    checkpoint: StoredFolder | None
    train_seconds: float
    """Wall time spent in this run's training since the event before, evaluation and saving not
    counted."""
    overhead_seconds: float
    """Wall time spent on evaluation, saving and hand-over."""
    eval_seconds: float = 0.0
    """Of that, on the evaluation at the chunk's end."""
    reward_seconds: Mapping[str, float] = field(default_factory=dict)
    """Of that of training, by reward function; functions that wait at the same time count each."""
    own_bytes: int = 0
    """Memory that this run alone holds: its adapter, its optimizer."""
    is_joint: bool = False
    """Whether it trained in joint steps; records of before tell it by ``fused_with`` alone."""
    fused_with: tuple[int, ...] = ()
    """The runs with which it trained in joint steps, on which its figures depend by rounding."""
    beside: tuple[int, ...] = ()
    """The runs with which it filled the stages of one model; its figures do not depend on them."""
    alone_because: str = ""
    """Why it trained alone where others train in joint steps."""
    device: str = ""
    """Of the worker process that trained it, as in ``DevicesChosen``; "" for the kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplesWritten:
    """A run's model answered the sample prompts at a chunk boundary."""

    run_id: int
    steps: int
    samples: int
    generations: tuple[Generation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationMeasured:
    """A run's model wrote by itself, against the clock."""

    run_id: int
    speed: GenerationSpeed


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRolledBack:
    """A checkpoint could not be used.

    The run goes on from the one before, and what came after is trained again.
    """

    run_id: int
    damaged: str
    """Path of the checkpoint that is out of use."""
    progress: Progress
    """Of the checkpoint before; zero when there is none."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged:
    """A run moved to another state."""

    run_id: int
    state: RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailed:
    """A run ended by an error of its own; the others go on."""

    run_id: int
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointsRemoved:
    """Checkpoints that the keep policy, a deletion or damage took out of use."""

    run_id: int
    paths: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationObeyed:
    """An operation took effect: what was asked, and how far its run was.

    Recorded before its effects.
    """

    operation: Operation
    steps: int
    samples: int
    origin: str
    """Who asked: "python", "magic", "button" or a policy's name."""
    run_state: RunState | None = None
    """In which the run was; None in records of earlier versions."""
    reason: str = ""
    """Why, when a policy asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChanged:
    """Another policy decides from now on, or none."""

    name: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPinned:
    """Policies leave a run alone from now on, or no longer."""

    run_id: int
    pinned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A run, or the experiment, has another name, tags or note."""

    run_id: int | None
    """None for the experiment."""
    label: Label
    """The whole of it, not what differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """Something the user should know."""

    text: str
    run_id: int | None = None


Event = (
    ExperimentStarted
    | LaunchRecorded
    | FunctionsRecorded
    | BaseModelLoaded
    | ExperimentContinued
    | DevicesChosen
    | ExperimentEnded
    | RunAdded
    | WarmStarted
    | ChunkTrained
    | SamplesWritten
    | GenerationMeasured
    | RunRolledBack
    | StateChanged
    | RunFailed
    | CheckpointsRemoved
    | OperationObeyed
    | PolicyChanged
    | RunPinned
    | Labelled
    | Noted
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """An event in the log."""

    seq: int
    """1, 2, 3, ... without gaps."""
    at: float
    """Seconds since 1970, for information only."""
    event: Event
