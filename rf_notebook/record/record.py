"""What is the record of an experiment, as it travels?

JSON that defines it, what was done to it, and what it gave.

The schema is ``record.schema.json`` next to this file. A record comes from anywhere: nothing in it
is run, and nothing is believed that ``verify`` did not check.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, overload

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.redaction import at_home, visible_line
from rf_notebook.core.run import RunConfig, RunState
from rf_notebook.core.values import Json, digest, mapping, sequence

FORMAT = "rf_notebook experiment"
#: Raise it when an older reader would misread a record.
VERSION = 1
#: Of the record in the output of a cell.
RECORD_MIME = "application/vnd.rf-notebook.experiment+json"

#: Hexadecimal digits of a chunk's digests: 128 bits of a sha256.
SHORT = 32
_MOST_RUNS = 4096
#: Whole numbers up to which a browser, which writes notebooks too, keeps every digit.
_EXACT_INTEGER = 2**53

Count = Annotated[int, Field(ge=0, le=10**15)]
RunId = Annotated[int, Field(ge=1, le=_MOST_RUNS)]
Digest = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
ShortDigest = Annotated[str, Field(pattern=r"^([0-9a-f]{32})?$")]
Name = Annotated[str, Field(min_length=1, max_length=200)]
_LONGEST = 100_000


def _limited(text: str, info: ValidationInfo) -> str:
    """Texts of others have a limit; of its own, this process knows where they come from."""
    if len(text) > _LONGEST and not info.context:
        raise PydanticCustomError(
            "string_too_long", f"String should have at most {_LONGEST} characters"
        )
    return text


Text = Annotated[str, AfterValidator(_limited), Field(json_schema_extra={"maxLength": _LONGEST})]
#: Code: written line by line, so that notebooks which hold it are compared line by line.
Source = Annotated[
    str,
    AfterValidator(_limited),
    BeforeValidator(lambda given: _joined(given) if isinstance(given, list) else given),
    PlainSerializer(lambda text: text.splitlines(keepends=True), return_type=list[str]),
]
#: A figure; "nan", "inf" and "-inf" are written as text, for JSON has no such numbers.
Figure = float | Literal["nan", "inf", "-inf"]


class _Part(BaseModel):
    # what checks a record is built when the first one is read: 0.1 s that an import need not take
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Config(_Part):
    """The config of a run: see ``core.run.RunConfig``."""

    method: Name
    model: dict[str, Any]
    peft: dict[str, Any] | None
    training: dict[str, Any]
    extras: dict[str, Any]

    def as_run_config(self) -> RunConfig:
        """The same, as the engine takes it."""
        return RunConfig(
            method=self.method,
            model=self.model,
            peft=self.peft,
            training=self.training,
            extras=self.extras,
        )

    def here(self) -> RunConfig:
        """The same for this machine, whose home folder is another one."""
        return RunConfig(
            method=self.method,
            model=at_home(self.model),
            peft=None if self.peft is None else at_home(self.peft),
            training=at_home(self.training),
            extras=at_home(self.extras),
        )


class Model(_Part):
    """A base model as it was loaded."""

    chosen_by: dict[str, Any]
    """The part of the configs that chose it."""
    facts: dict[str, Any]
    """Class, name, revision, dtype, parameters, digests of weights and tokenizer."""


class Spec(_Part):
    """Everything that defines the experiment; operations are not part of it."""

    search: Any
    """The configs as given; ``{"$list": [...]}`` and ``{"$range": ...}`` are their choices."""
    configs: Annotated[list[Config], Field(max_length=_MOST_RUNS)]
    """Of runs 1, 2, 3, ...: the search expanded."""
    num_chunks: Annotated[int, Field(ge=1)]
    seed: Count
    data_seed: Count | None
    execution: Name
    keep: Name
    options: dict[str, Any]
    """The name in the launching cell, the loader's name, and what changes no figure."""
    data: dict[str, Any]
    """Rows, columns and digest of "train" and "eval"."""
    data_origin: dict[str, Any]
    """Name, config and split of both, where the data said so."""
    models: list[Model]
    functions: dict[str, Source]
    """The source of every function that a config refers to, and of the loader, by its name there."""
    cells: list[Source]
    """The code that made it: cells in the order in which they were run, the launching one last."""
    versions: dict[str, str]
    environment: dict[str, Any]
    """Python, platform, device, and settings of torch that figures depend on."""
    devices: dict[str, str] = Field(default_factory=dict)
    """Of worker processes: what each is, by name; no figure depends on how many there were."""


class Operation(_Part):
    """Something that was done to a run, and how far the run was."""

    what: Literal["stop", "resume", "delete", "clone"]
    run: RunId
    steps: Count
    samples: Count
    run_state: RunState | None
    origin: Annotated[str, Field(max_length=200)]
    """Who asked: "python", "magic", "button" or a policy's name."""
    at: float
    """Seconds since 1970; for information, no replay looks at it."""
    config: Config | None
    """Of a clone."""
    edits: dict[str, Any]
    warm_start: bool
    reason: Text
    """Why, when a policy asked."""


class Chunk(_Part):
    """What a run had at the end of a chunk, or where it was stopped."""

    steps: Count
    samples: Count
    metrics: ShortDigest
    """Of everything that was logged since the chunk before."""
    weights: ShortDigest
    """Of the trained weights; empty where they are not known."""
    last: dict[str, Figure]
    """The newest values in it of the metrics that matter most."""


class Result(_Part):
    """What a run gave."""

    run: RunId
    parent: RunId | None
    state: RunState
    steps: Count
    samples: Count
    failure: Text | None
    fused: bool
    """Whether it trained in joint steps in its last turn."""
    metrics: dict[str, Figure]
    """The newest value of every metric."""
    chunks: list[Chunk]


class Curve(_Part):
    """The values of a metric, thinned."""

    samples: list[Count]
    values: list[Figure]


class Labelled(_Part):
    """What a run, or the experiment, is called: see ``core.labels.Label``."""

    run: RunId | None
    """None for the experiment."""
    name: Annotated[str, Field(max_length=200)]
    tags: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=100)]
    note: Text


class Record(_Part):
    """An experiment as it travels."""

    format: Literal["rf_notebook experiment"]
    version: Literal[1]
    experiment: Annotated[str, Field(pattern=r"^\w[\w .+-]{0,99}$")]
    identity: Annotated[str, Field(pattern=r"^[0-9a-f]{1,64}$")]
    spec: Spec
    operations: Annotated[list[Operation], Field(max_length=100_000)]
    results: Annotated[list[Result], Field(max_length=_MOST_RUNS)]
    curves: dict[str, dict[str, Curve]]
    """By metric, then by run."""
    labels: Annotated[list[Labelled], Field(max_length=_MOST_RUNS + 1)] = Field(
        default_factory=list
    )
    """No figure depends on them."""
    parts: dict[Name, Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]]
    """Short digests of its parts, so that what was changed can be named."""
    digest: Digest
    """Of all the rest."""

    def as_json(self) -> dict[str, Json]:
        """What is written."""
        exclude: dict[str, Any] = {}  # what older records do not have
        if not self.spec.devices:
            exclude["spec"] = {"devices"}
        if not self.labels:
            exclude["labels"] = True
        written: dict[str, Json] = portable(self.model_dump(mode="json", exclude=exclude))
        return written

    def digest_now(self) -> str:
        """What ``digest`` has to be."""
        return record_digest(self.as_json())


def _joined(lines: Sequence[Any]) -> Any:
    """A text from its lines; what is not a list of texts, as it is, for pydantic to refuse."""
    return "".join(lines) if all(isinstance(line, str) for line in lines) else lines


def parse_record(given: Json, *, is_own: bool = False) -> Record:
    """A record from JSON that comes from anywhere.

    Args:
        given: The JSON.
        is_own: It was made by this process just now, so texts may have any length.

    Raises:
        ConfigError: when it is none, in one sentence.
    """
    if not isinstance(given, dict) or given.get("format") != FORMAT:
        raise ConfigError("this holds no record of an rf_notebook experiment.")
    version = given.get("version")
    if version != VERSION:
        raise ConfigError(
            f"the record is of version {version!r:.20}, and this rf_notebook reads version {VERSION}; update rf_notebook."
        )
    try:
        record = Record.model_validate(
            portable(given), context={"is_own": True} if is_own else None
        )
        record.as_json()  # pydantic reads a little deeper than it writes
        return record
    except ValidationError as error:
        first = error.errors()[0]
        where = visible_line(".".join(map(str, first["loc"]))[:100])
        why = visible_line(first["msg"][:150])
        raise ConfigError(f"the record is damaged at {where}: {why}.") from None
    except (RecursionError, ValueError):
        raise ConfigError("the record is damaged: it is nested too deeply.") from None


def record_digest(written: Mapping[str, Json]) -> str:
    """Of a record, its own digest left out."""
    return digest({name: value for name, value in written.items() if name != "digest"})


def part_digests(written: Mapping[str, Json]) -> dict[str, str]:
    """A short digest of each part of a record, by what the part is called."""
    spec = mapping(written["spec"])
    shared = (
        "configs",
        "data",
        "functions",
        "cells",
        "versions",
        "environment",
        "models",
        "devices",
    )
    parts: dict[str, Json] = {
        "the search's settings": {
            name: value for name, value in spec.items() if name not in shared
        },
        "the recorded data": spec["data"],
        "the recorded base models": spec["models"],
        "the recorded versions": spec["versions"],
        "the recorded environment": spec["environment"],
        **({"the recorded devices": spec["devices"]} if "devices" in spec else {}),
        "the curves": written["curves"],
        **({"the labels": written["labels"]} if "labels" in written else {}),
        **{
            f"the config of run {i}": config
            for i, config in enumerate(sequence(spec["configs"]), start=1)
        },
        **{
            f"the source of {name:.150}": source
            for name, source in mapping(spec["functions"]).items()
        },
        **{f"recorded cell {i}": cell for i, cell in enumerate(sequence(spec["cells"]), start=1)},
        **{
            f"operation {i}": operation
            for i, operation in enumerate(sequence(written["operations"]), start=1)
        },
        **{
            f"the results of run {i}": result
            for i, result in enumerate(sequence(written["results"]), start=1)
        },
    }
    return {name: digest(part)[:16] for name, part in parts.items()}


@overload
def portable(value: Mapping[str, Json]) -> dict[str, Json]: ...
@overload
def portable(value: Json) -> Json: ...
def portable(value: Json) -> Json:
    """JSON that is the same after a browser has read and written it.

    Whole floats are whole numbers, no NaN.
    """
    if isinstance(value, float):
        return _portable_number(value)
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list | tuple):
        return [portable(item) for item in value]
    if isinstance(value, Mapping):
        return {str(portable(str(name))): portable(item) for name, item in value.items()}
    return value


def _portable_number(value: float) -> Json:
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return int(value) if value.is_integer() and abs(value) < _EXACT_INTEGER else value


def schema() -> dict[str, Json]:
    """The JSON Schema of a record, as it is published."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{FORMAT}, version {VERSION}",
        **Record.model_json_schema(mode="serialization"),
    }


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1, sort_keys=True))  # noqa: T201 - what record.schema.json is written from
