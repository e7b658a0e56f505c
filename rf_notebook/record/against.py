"""Did a replay give what a record says?

Run by run and chunk by chunk, to the last bit where that can be asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from rf_notebook.core.events import OperationObeyed
from rf_notebook.core.operations import CloneRun, DeleteRun, Operation, ResumeRun, StopRun, verb
from rf_notebook.core.redaction import private_json
from rf_notebook.core.run import READY, RunState, with_objects
from rf_notebook.core.values import Json, digest
from rf_notebook.record.compare import RunComparison
from rf_notebook.record.record import Chunk, Record, Result, portable
from rf_notebook.record.record import Operation as RecordedOperation
from rf_notebook.record.recording import chunks_of

if TYPE_CHECKING:
    from rf_notebook.core.state import ExperimentState, RunRecord

#: How far apart figures may be, of themselves, where bits cannot be asked for: in 32 and in 16
#: bits.
TOLERANCES = {"float32": 1e-3, "16 bits": 2e-2}
#: Figures below this are compared as if they were this large: a loss of 1e-9 need not agree in its
#: digits.
_SMALL = 1e-3


@dataclass(frozen=True, slots=True)
class Standard:
    """How equal a replay has to be."""

    tolerance: float
    """Of themselves; 0 asks for equal bits."""
    reason: str
    """Why not for bits; empty when it is."""


def standard_for(
    record: Record, versions: Mapping[str, str], environment: Mapping[str, Json]
) -> Standard:
    """Equal bits on the same versions and the same device; otherwise a tolerance.

    Args:
        record: What was recorded.
        versions: Versions of the packages here.
        environment: Here.
    """
    spec = record.spec
    reasons = [
        f"{name} {spec.versions.get(name)}"
        for name in spec.versions
        if spec.versions[name] != versions.get(name)
    ]
    on_gpu = spec.environment.get("device_type") == "cuda"
    for name in ("device",) if on_gpu else ("device", "cpu", "threads"):
        if spec.environment.get(name) != environment.get(name):
            reasons.append(f"{spec.environment.get(name)}{' threads' if name == 'threads' else ''}")
    if len(set(spec.devices.values())) > 1:
        reasons.append("devices of several kinds")
    if spec.execution != "exact":
        reasons.append(f"execution={spec.execution!r}")
    if not reasons:
        return Standard(0.0, "")
    is_whole = all(_computes_in_float32(record, config.training) for config in spec.configs)
    tolerance = TOLERANCES["float32" if is_whole else "16 bits"]
    return Standard(tolerance, "recorded with " + ", ".join(reasons[:4]))


def script_of_record(record: Record) -> list[OperationObeyed]:
    """The recorded operations, and a stop of each run that was left unfinished where it was."""
    done = [
        OperationObeyed(
            operation=_operation(one),
            steps=one.steps,
            samples=one.samples,
            origin=one.origin,
            run_state=one.run_state,
            reason=one.reason,
        )
        for one in record.operations
    ]
    left = [
        OperationObeyed(
            operation=StopRun(run_id=one.run), steps=one.steps, samples=one.samples, origin="replay"
        )
        for one in record.results
        if one.state in READY
    ]
    return done + left


def compare_with_record(
    record: Record, state: ExperimentState, standard: Standard
) -> list[RunComparison]:
    """Every run of the record or of the replay, by id."""
    results = {result.run: result for result in record.results}
    ids = sorted({*results, *state.runs})
    return [
        _compare(run_id, results.get(run_id), state.runs.get(run_id), record, standard)
        for run_id in ids
    ]


def without_object_digests(config: Mapping[str, Json]) -> dict[str, Json]:
    """A config in which functions stand by their plain names.

    A lambda's digest changes with Python's version.
    """
    return with_objects(config, lambda name: name.partition("@")[0])


def operations_difference(record: Record, state: ExperimentState) -> str | None:
    """The first operation that was not obeyed as recorded, in words; None when all were."""
    then = [(one.what, one.run, one.steps, one.samples, one.origin) for one in record.operations]
    now = [
        (verb(event.operation), event.operation.run_id, event.steps, event.samples, event.origin)
        for event in (recorded.event for recorded in state.operations)
        if isinstance(event, OperationObeyed)
    ]
    for number, (old, new) in enumerate(zip_longest(then, now), start=1):
        if old == new or (
            old is None and new is not None and new[0] == "stop" and new[-1] == "replay"
        ):
            continue
        return f"operation {number} was {_words(old)} and is {_words(new)}"
    return None


def models_difference(record: Record, state: ExperimentState) -> str | None:
    """The first base model that is another one here, in words.

    None when all are the same or not known.
    """
    here = {
        digest(private_json(portable(model.chosen_by))): model.facts
        for model in state.base_models.values()
    }
    for model in record.spec.models:
        facts = here.get(digest(portable(model.chosen_by)))
        for name in ("class", "parameters", "dtype", "weights", "tokenizer"):
            if facts is not None and facts.get(name) != model.facts.get(name):
                return f"the base model's {name} was {model.facts.get(name)!s:.20} and is {facts.get(name)!s:.20}"
    return None


def verdict_on_record(record: Record, state: ExperimentState, standard: Standard) -> str:
    """The comparison in a sentence."""
    comparisons = compare_with_record(record, state, standard)
    differing = [one for one in comparisons if one.difference is not None]
    operations = models_difference(record, state) or operations_difference(record, state)
    chunks = sum(one.steps for one in comparisons)
    if not differing and operations is None:
        how = (
            "bit for bit"
            if not standard.tolerance
            else f"within {standard.tolerance:.1%} of every figure ({standard.reason})"
        )
        return (
            f"the replay of {record.experiment!r} is equal: {len(comparisons)} runs, {chunks} chunks, "
            f"{len(record.operations)} operations, {how}."
        )
    told = [f"run {one.run_id}: {one.difference}" for one in differing[:4]] + (
        [operations] if operations else []
    )
    allowed = (
        f" (allowed: {standard.tolerance:.1%}, {standard.reason})" if standard.tolerance else ""
    )
    return f"the replay of {record.experiment!r} differs{allowed}: {'; '.join(told)}."


def _compare(
    run_id: int, before: Result | None, now: RunRecord | None, record: Record, standard: Standard
) -> RunComparison:
    if before is None or now is None:
        where = "the record" if before is None else "the replay"
        return RunComparison(run_id=run_id, steps=0, difference=f"{where} has no such run")
    chunks, difference = 0, None
    if run_id <= len(record.spec.configs):
        config = record.spec.configs[run_id - 1].as_run_config()
        before_config, now_config = (
            without_object_digests(portable(one.as_json())) for one in (config, now.config)
        )
        if digest(before_config) != digest(private_json(now_config)):
            difference = "its config is another"
    found = [Chunk.model_validate(chunk) for chunk in chunks_of(now)]
    for old, new in zip_longest(before.chunks, found):
        if difference is not None:
            break
        difference = _chunk_difference(old, new, standard)
        chunks += difference is None
    is_left = (
        before.state in READY and now.state is RunState.STOPPED
    )  # where the original was, no further
    if difference is None and before.state != now.state and not is_left:
        difference = f"it was {before.state} and is {now.state}"
    if difference is None and before.steps != now.progress.steps:
        difference = f"it had trained {before.steps} steps and has trained {now.progress.steps}"
    return RunComparison(run_id=run_id, steps=chunks, difference=difference)


def _chunk_difference(old: Chunk | None, new: Chunk | None, standard: Standard) -> str | None:
    if old is None or new is None:
        present = old or new
        assert present is not None
        return f"the chunk that ends at step {present.steps} is in the {'record' if new is None else 'replay'} only"
    if (old.steps, old.samples) != (new.steps, new.samples):
        return f"a chunk ends at step {new.steps} that ended at step {old.steps}"
    if old.metrics == new.metrics and (old.weights == new.weights or not old.weights):
        return None
    for name in dict.fromkeys([*old.last, *new.last]):
        before, now = old.last.get(name), new.last.get(name)
        if not _is_close(before, now, standard.tolerance):
            return f"in the chunk that ends at step {old.steps}, the last {name} was {before!r} and is {now!r}"
    if standard.tolerance:
        return None
    what = "something that was logged" if old.metrics != new.metrics else "the trained weights"
    return f"in the chunk that ends at step {old.steps}, {what} differs, though the last figures are equal"


def _is_close(before: object, now: object, tolerance: float) -> bool:
    if before == now:
        return True
    if not isinstance(before, float) or not isinstance(now, float):
        return False
    return abs(before - now) <= tolerance * max(abs(before), abs(now), _SMALL)


def _operation(recorded: RecordedOperation) -> Operation:
    match recorded.what:
        case "stop":
            return StopRun(run_id=recorded.run)
        case "resume":
            return ResumeRun(run_id=recorded.run)
        case "delete":
            return DeleteRun(run_id=recorded.run)
        case "clone":
            assert recorded.config is not None  # looked at by verify
            return CloneRun(
                run_id=recorded.run,
                config=recorded.config.here(),
                edits=recorded.edits,
                warm_start=recorded.warm_start,
            )


def _computes_in_float32(record: Record, training: Mapping[str, Json]) -> bool:
    dtypes = {model.facts.get("dtype") for model in record.spec.models}
    return dtypes <= {"float32"} and not training.get("bf16", True) and not training.get("fp16")


def _words(operation: Sequence[object] | None) -> str:
    if operation is None:
        return "none"
    what, run, steps, *_ = operation
    return f"{what} run {run} at its step {steps}"
