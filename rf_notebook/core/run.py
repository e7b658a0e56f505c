"""What is a run, and what is known of it?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import overload

from rf_notebook.core.values import Json, digest


class RunState(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    """In the rotation, not trained yet."""
    RUNNING = "running"
    """In the rotation, trained for at least one step."""
    STOPPED = "stopped"
    """Out of the rotation by request; nothing is lost."""
    COMPLETED = "completed"
    """Trained to the end of its plan."""
    DIVERGED = "diverged"
    """Trained to the end of its plan, with losses or gradients that are NaN or infinite."""
    FAILED = "failed"
    """Ended by an error of its own."""
    DELETED = "deleted"
    """Removed by request; its figures stay in the record."""


def objects_in(config: Json) -> Iterator[str]:
    """The names of the functions and other objects that a config's JSON refers to, in order."""
    if isinstance(config, Mapping):
        name = config.get("$object")
        if isinstance(name, str):
            yield name
        for item in config.values():
            yield from objects_in(item)
    elif isinstance(config, list | tuple):
        for item in config:
            yield from objects_in(item)


def secrets_in(config: Json) -> Iterator[str]:
    """The names of the secrets that a config's JSON refers to, in order."""
    if isinstance(config, Mapping):
        name = config.get("$secret")
        if isinstance(name, str):
            yield name
        for item in config.values():
            yield from secrets_in(item)
    elif isinstance(config, list | tuple):
        for item in config:
            yield from secrets_in(item)


@overload
def with_objects(config: Mapping[str, Json], name_of: Callable[[str], str]) -> dict[str, Json]: ...
@overload
def with_objects(config: Json, name_of: Callable[[str], str]) -> Json: ...
def with_objects(config: Json, name_of: Callable[[str], str]) -> Json:
    """A config's JSON with other names of its functions and other objects."""
    if isinstance(config, Mapping):
        name = config.get("$object")
        if isinstance(name, str):
            return {"$object": name_of(name)}
        return {key: with_objects(item, name_of) for key, item in config.items()}
    return [with_objects(item, name_of) for item in config] if isinstance(config, list) else config


def object_words(name: str) -> str:
    """What a table shows of a function or another object that a config refers to.

    Several of one class stay apart.
    """
    label, _, digits = name.partition("@")
    state, place = (digits.partition(sign)[2] for sign in ("~", "#"))
    return label + (f" #{place[:5]}" if place else f" ~{state[:4]}" if state else "")


#: States from which the engine gives a run its turns.
READY = frozenset({RunState.QUEUED, RunState.RUNNING})
#: States of runs that trained to the end of their plan.
FINISHED = frozenset({RunState.COMPLETED, RunState.DIVERGED})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """All choices of one run, fixed once the run exists.

    Values are JSON. Objects that JSON cannot hold (functions, quantisation configs) stand as
    ``{"$object": name}`` and are handed in again by the cell that calls ``run_fit``.
    """

    method: str
    """The trainer: "SFT", "DPO", "KTO", "GRPO", "RLOO" or "Reward"."""
    model: Mapping[str, Json]
    """What decides which base model is loaded: model_name, model_type, model_kwargs, tokenizer,
    tokenizer_kwargs."""
    peft: Mapping[str, Json] | None
    """Arguments of peft.LoraConfig; None trains all weights."""
    training: Mapping[str, Json]
    """Arguments of trl's config class, seed and data_seed included."""
    extras: Mapping[str, Json] = field(default_factory=dict)
    """formatting_func, compute_metrics, generation_config and the other fields of RFModelConfig
    that were set."""

    @property
    def use_cpu(self) -> bool:
        """Whether the run trains on the CPU although there may be a GPU."""
        return bool(self.training.get("use_cpu", False))

    @property
    def writes(self) -> bool:
        """Whether its model writes texts; a reward model scores them."""
        return self.method != "Reward"

    @property
    def adapter(self) -> str | None:
        """The kind of its adapter, as peft names it; None when all weights are trained."""
        return None if self.peft is None else str(self.peft.get("peft_type", "LORA"))

    @property
    def num_gpus(self) -> int:
        """Over how many GPUs the model is spread at least."""
        given = self.extras.get("num_gpus")
        return given if isinstance(given, int) else 1

    def as_json(self) -> dict[str, Json]:
        """The config as one JSON object, in the shape that users edit: keys of RFModelConfig."""
        body: dict[str, Json] = {"trainer_type": self.method, **self.model, **self.extras}
        body["peft_config"] = None if self.peft is None else dict(self.peft)
        body["training_args"] = dict(self.training)
        return body

    def digest(self) -> str:
        """Equal for configs that choose the same."""
        return digest(self.as_json())


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is. Samples count rows of the training data as the user handed them in."""

    steps: int = 0
    samples: int = 0
    epoch: float = 0.0
    chunks: int = 0
    total_steps: int = 0
    """0 until the run's trainer has been built."""
    total_samples: int = 0
    total_chunks: int = 0
    diverged_at: int | None = None
    """The first step whose loss or gradients were NaN or infinite, while they still are; None for a
    healthy run."""

    @property
    def fraction(self) -> float:
        """Between 0 and 1."""
        return self.steps / self.total_steps if self.total_steps else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricPoint:
    """The metrics that were logged at one step."""

    step: int
    samples: int
    epoch: float
    chunk: int
    """The chunk in which the step lies, counted from 1."""
    metrics: Mapping[str, float]
    at: float = field(default=0.0, compare=False)
    """Seconds since 1970 when it was logged, for information only: two equal runs differ in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSpeed:
    """How fast a run's model writes one answer by itself, on the device that trains it."""

    prompt_tokens: int
    new_tokens: int
    first_token_seconds: float
    """From the prompt to the first token."""
    seconds: float
    """For all tokens after the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """What a run's model wrote.

    To one of the experiment's sample prompts, or in training by reward.
    """

    prompt: str
    """As the model was given it, marks of a chat template included."""
    text: str
    asked: str = ""
    """The prompt as a person reads it; "" where it is ``prompt``."""
    expected: str = ""
    """The data's own answer, where it has one."""
    rewards: Mapping[str, float] = field(default_factory=dict)
    """By reward function, when it was written in training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFolder:
    """A folder of the experiment whose content is fixed: a checkpoint or an adapter."""

    path: str
    """Relative to the experiment's folder."""
    sha256: str
    """Of the folder's manifest, which holds the sha256 of each file."""
    steps: int
    samples: int
    bytes: int
    weights: str = ""
    """Digest of the trained weights in it: equal for runs that are equal, which ``sha256`` is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRun:
    """A checkpoint, and how far the run was."""

    folder: StoredFolder
    progress: Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A base model as it was loaded."""

    chosen_by: Mapping[str, Json]
    """The part of the configs that chose it."""
    facts: Mapping[str, Json]
    """What tells it from another of its name: class, revision, dtype, parameters, digests of
    weights and tokenizer."""

    @property
    def name(self) -> str:
        """As the configs say."""
        return str(self.chosen_by.get("model_name", ""))

    def is_same(self, other: LoadedModel) -> bool:
        """Whether it has the weights and the tokenizer of another one."""
        return all(
            self.facts.get(name) == other.facts.get(name) for name in ("weights", "tokenizer")
        )


#: Of what is recorded of an error, in signs.
LONGEST_MESSAGE, LONGEST_TRACEBACK = 4_000, 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a run ended: text only, for frames would hold activations and GPU memory."""

    message: str
    traceback: str
    out_of_memory: bool = False
    peak_bytes: int | None = None
    """Highest device memory in use while the run had its turn, when it ran out of it."""
    estimated_bytes: int | None = None
    """What the memory plan had estimated."""
    retry: Mapping[str, Json] = field(default_factory=dict)
    """Edits, by dotted key, with which a clone may not fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStartReport:
    """What a warm start took over from the parent's adapter, module by module."""

    copied: tuple[str, ...] = ()
    """Same shape: the parent's function is kept exactly."""
    grown: tuple[str, ...] = ()
    """Larger rank: the parent's function is kept exactly, the new directions start at zero."""
    shrunk: Mapping[str, float] = field(default_factory=dict)
    """Smaller rank: the best approximation, with the share of the update's Frobenius norm that was
    lost (0 to 1)."""
    fresh: tuple[str, ...] = ()
    """Only in the child: starts at zero."""
    dropped: tuple[str, ...] = ()
    """Only in the parent: its contribution is gone."""

    def sentence(self) -> str:
        """The report in one line."""
        parts = [
            f"{len(names)} {word}"
            for word, names in (
                ("copied", self.copied),
                ("grown", self.grown),
                ("fresh", self.fresh),
            )
            if names
        ]
        if self.shrunk:
            parts.append(
                f"{len(self.shrunk)} shrunk (at most {max(self.shrunk.values()):.1%} lost)"
            )
        if self.dropped:
            parts.append(f"{len(self.dropped)} dropped")
        return "warm start: " + (", ".join(parts) if parts else "nothing to copy")
