"""Does a record hold together? Checked without training, and without running anything of it."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rf_notebook.core.run import FINISHED, objects_in
from rf_notebook.record.record import Operation, Record, Result, part_digests, record_digest

if TYPE_CHECKING:
    from rf_notebook.record.files import Shared

_DIFF_LINES = 20
_MOST_TOLD = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    is_right: bool
    text: str
    hinders: bool = False
    """Whether it makes a replay impossible, or what it would be compared with worthless."""


def verify(shared: Shared) -> list[Finding]:
    """What was looked at in an experiment from a file, and whether it is right.

    A digest tells that something was changed by accident or by half. It is not a signature: whoever
    changes a record on purpose can compute its digest again.
    """
    record = shared.record
    checks = [
        ("the record is as it was written", _digest(record), True),
        ("the source of every function is there", _functions(record), False),
        ("the operations fit the runs", _operations(record), True),
        ("the results fit the runs", _results(record), True),
        ("the curves end where the results do", _curves(record), False),
        ("the notebook's cells are those that were run", _cells(shared), False),
        ("the parts of the file agree", shared.remarks, False),
    ]
    findings = []
    for right, problems, hinders in checks:
        told = list(problems)
        findings += [Finding(False, text, hinders) for text in told] or [Finding(True, right)]
    return findings


def changed_cells(shared: Shared) -> list[tuple[int, str, str]]:
    """Recorded cells that the notebook no longer has.

    Their number, their text, and the text most like it now.
    """
    if shared.cells is None:
        return []
    now = [cell.rstrip("\n") for cell in shared.cells]
    recorded = [cell.rstrip("\n") for cell in shared.record.spec.cells]
    others = [cell for cell in now if cell not in recorded]
    changed = []
    for number, cell in enumerate(recorded, start=1):
        if cell not in now:
            ratios = [difflib.SequenceMatcher(None, cell, one).quick_ratio() for one in others]
            best = others[max(range(len(others)), key=ratios.__getitem__)] if others else ""
            changed.append((number, cell, best))
    return changed


def diff_lines(before: str, now: str) -> list[str]:
    """What changed between two texts, as lines that begin with - and +."""
    lines = difflib.unified_diff(
        before.splitlines(), now.splitlines(), "recorded", "now", lineterm="", n=1
    )
    kept = [line[:200] for line in lines][2:]
    return kept[:_DIFF_LINES] + (["..."] if len(kept) > _DIFF_LINES else [])


def brought_by_clones(record: Record) -> dict[str, str | None]:
    """The functions that only clones refer to, by name, with their recorded source."""
    launched = set(objects_in([config.model_dump() for config in record.spec.configs]))
    later = objects_in(
        [one.config.model_dump() for one in record.operations if one.config is not None]
    )
    return {name: record.spec.functions.get(name) for name in later if name not in launched}


def is_definition(name: str, source: str) -> bool:
    """Whether a source defines a function or class of this name and nothing else."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return (
        len(body) == 1
        and isinstance(body[0], ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and body[0].name == name
    )


def _digest(record: Record) -> Iterable[str]:
    written = record.as_json()
    now, then = part_digests(written), record.parts
    changed = [name for name in dict.fromkeys([*then, *now]) if now.get(name) != then.get(name)]
    for name in changed[:_MOST_TOLD]:
        word = (
            "was added" if name not in then else "was removed" if name not in now else "was changed"
        )
        yield f"{name} {word} after it was recorded"
    if not changed and record_digest(written) != record.digest:
        yield "the record was changed after it was recorded"


def _functions(record: Record) -> Iterable[str]:
    configs = [
        *record.spec.configs,
        *(one.config for one in record.operations if one.config is not None),
    ]
    wanted = {name for config in configs for name in objects_in(config.model_dump())}
    for name in sorted(wanted):
        if "@" in name and not name.startswith("partial:") and name not in record.spec.functions:
            yield f"the source of {name.partition('@')[0]!r:.60} is not recorded"
    for name in record.spec.functions:
        if "@" not in name:
            yield f"a function is recorded under {name!r:.60}, which is not the name of one"


def _operations(record: Record) -> Iterable[str]:
    results = {result.run: result for result in record.results}
    searched = len(record.spec.configs)
    made = searched
    for number, operation in enumerate(record.operations, start=1):
        result = results.get(operation.run)
        if result is None or operation.run > made:
            yield f"operation {number} is about run {operation.run}, which there was not"
            continue
        if result.steps < operation.steps and result.state in FINISHED:
            yield f"operation {number} comes at step {operation.steps} of run {operation.run}, which trained {result.steps}"
        if operation.what == "clone":
            made += 1
            yield from _clone(record, number, operation, made)
    if made != len(record.results):
        yield f"{searched} configs and {made - searched} clones make {made} runs, but {len(record.results)} gave results"


def _clone(record: Record, number: int, operation: Operation, child: int) -> Iterable[str]:
    if operation.config is None:
        yield f"operation {number} is a clone without a config"
        return
    result = next((one for one in record.results if one.run == child), None)
    if result is not None and result.parent != operation.run:
        yield f"run {child} is a clone of run {operation.run} by operation {number}, but of run {result.parent} by its result"


def _results(record: Record) -> Iterable[str]:
    ids = [result.run for result in record.results]
    if ids != list(range(1, len(ids) + 1)):
        yield f"the runs are numbered {ids[:10]}, not 1, 2, 3, ..."
    for result in record.results:
        yield from _chunks(result)


def _chunks(result: Result) -> Iterable[str]:
    steps = [chunk.steps for chunk in result.chunks]
    if steps != sorted(set(steps)):
        yield f"the chunks of run {result.run} do not follow one another"
    if steps and steps[-1] > result.steps:
        yield f"run {result.run} trained {result.steps} steps, but has a chunk of {steps[-1]}"
    if result.state in FINISHED and result.chunks:
        for name, value in result.chunks[-1].last.items():
            final = result.metrics.get(name)
            if final != value:
                yield f"the last {name[:60]} of run {result.run} is {final} in its results and {value} in its last chunk"


def _curves(record: Record) -> Iterable[str]:
    results = {str(result.run): result for result in record.results}
    for metric, by_run in record.curves.items():
        for run, curve in by_run.items():
            if run not in results or len(curve.samples) != len(curve.values):
                yield f"the curve of {metric[:60]!r} of run {run[:10]} belongs to no run"
                continue
            final = results[run].metrics.get(metric)
            end = curve.values[-1] if curve.values else None
            if (
                isinstance(final, float)
                and isinstance(end, float)
                and abs(final - end) > 1e-5 * max(abs(final), 1e-30)
            ):
                yield f"the curve of {metric[:60]!r} of run {run} ends at {end:g}, but its last value is {final:g}"


def _cells(shared: Shared) -> Iterable[str]:
    for number, before, now in changed_cells(shared):
        lines = "; ".join(diff_lines(before, now)) if now else "it is not in the notebook"
        yield f"recorded cell {number} was changed: {lines[:400]}"
