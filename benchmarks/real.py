"""How much faster do configs train in joint steps on what people have?

Rows of uneven length whose completions are labelled, adapters of all linear layers, ranks 8 to 64,
dropout, several batches a step. Against trl twice: with its defaults (B0), and as somebody who knows
trl would run it, without gradient checkpointing (B1); B2 compiles that.

``RF_BENCH_ONLY="1.1B,knobs"`` measures only the cases that begin so; each has a budget of minutes.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import old_table, search, whole
from benchmarks.common import (
    DEVICE,
    ON_GPU,
    engine_over,
    plain_step_seconds,
    seconds_of_all,
    synchronize,
)
from benchmarks.real_world import (
    LONGEST,
    MEDIAN,
    PROMPT,
    SHORTEST,
    SIGMA,
    STEPS,
    WARM_UP,
    Knobs,
    arguments,
    base_of,
    dpo_rows,
    in_4_bits,
    lora,
    run_configs,
    searched,
    sft_rows,
)
from benchmarks.report import Report
from rf_notebook.core.foreground import only_waiting
from rf_notebook.engine.turns import Idle
from rf_notebook.planning.fusion import TIMED_STEPS, WARM_UP_STEPS, Execution
from rf_notebook.training import memory
from rf_notebook.training.fused.compiled import CompiledLayers


def plain_of_all(base: Any, rows: Any, configs: Sequence[Knobs], **more: Any) -> float:
    """Seconds of one step of all configs, one after another, the faster of two.

    Learning rates cost nothing, and the smallest rank costs plain trl least: one config of each
    other kind is timed, with that rank, which favours trl.
    """
    rank = min(one.rank for one in configs)
    known: dict[Knobs, float] = {}
    kinds = [replace(one, learning_rate=2e-4, rank=rank) for one in configs]
    for kind in kinds:
        if kind not in known:
            known[kind] = min(
                plain_step_seconds(
                    base,
                    rows,
                    arguments(kind, **more),
                    lora(kind),
                    warm_up=WARM_UP,
                    method=kind.method,
                )
                for _ in range(2)
            )
    return sum(known[kind] for kind in kinds)


@dataclass(frozen=True, slots=True)
class Joint:
    """What was seen of joint steps."""

    seconds: float
    """Of one step of all configs."""
    warming_up: float
    """Until the steps that are timed: data, adapters, compiling."""
    own: float
    """Of the configs' own code a micro-step and config."""
    peak_gib: float
    parts: str
    """Why some did not train jointly; empty when all did."""


def joint(
    base: Any,
    rows: Any,
    configs: Sequence[Knobs],
    *,
    execution: Execution = Execution.FUSED,
    compiled: bool = False,
    warm_up: int = WARM_UP,
    **more: Any,
) -> Joint:
    """Time the steps of all configs together, those after so many."""
    times: dict[tuple[int, int], float] = {}
    counted: dict[int, tuple[float, int]] = {}
    last = len(configs)

    CompiledLayers.always_after = 0 if compiled else 10**9
    began = time.perf_counter()
    memory.collect()
    memory.reset_peak()
    with tempfile.TemporaryDirectory() as folder:
        engine, runner = engine_over(
            Path(folder),
            base,
            rows,
            lambda objects: run_configs(objects, configs, **more),
            num_chunks=1,
            execution=execution,
        )

        def listen(run_id: int, progress: Any, point: Any) -> None:
            if point is None and progress.steps in (warm_up, STEPS):
                synchronize()
                models = runner.joint_turns.models.values()
                counts = next(iter(models)).counts if models else None
                counted[progress.steps] = (
                    (counts.own_seconds, counts.requests) if counts else (0.0, 0)
                )
                times[run_id, progress.steps] = time.perf_counter()

        runner.listener = listen
        try:
            with only_waiting():  # as a notebook in which no other cell is at work
                while not isinstance(engine.turn(), Idle):
                    pass
            records = engine.state.runs.values()
            failed = [one.failure for one in records if one.failure is not None]
            if failed:
                raise RuntimeError(failed[0].traceback or failed[0].message)
            alone = {one.alone_because for one in records if one.alone_because}
        finally:
            runner.close()
            CompiledLayers.always_after = None
    peak = (memory.peak_bytes() or 0) / 2**30
    memory.collect()
    windows = [(times[run, warm_up], times[run, STEPS]) for run in range(1, last + 1)]
    (own, asked), (own_end, asked_end) = counted[warm_up], counted[STEPS]
    return Joint(
        seconds_of_all(windows) / (STEPS - warm_up),
        min(windows)[0] - began,
        (own_end - own) / max(1, asked_end - asked),
        peak,
        "; ".join(sorted(map(str, alone))),
    )


def _tokens(rows: Any, configs: Sequence[Knobs]) -> float:
    """Of one step of all configs, on average."""
    mean = statistics.mean(map(len, rows["input_ids"]))
    return mean * sum(one.batch * one.accumulation for one in configs)


def _tell(report: Report, name: str, found: Joint, tokens: float | None) -> None:
    report.row(f"{name}", found.seconds * 1000, "ms a step of all")
    if tokens is not None:
        report.row(f"{name}, tokens a second", tokens / found.seconds, "1/s")
    report.row(f"{name}, own code of a config and micro-step", found.own * 1000, "ms (must 1.2)")
    report.row(f"{name}, before the steps that are timed", found.warming_up, "s")
    report.row(f"{name}, peak memory", found.peak_gib, "GiB")
    if found.parts:
        report.row(f"{name}, not joint", found.parts)


def compare(
    report: Report,
    name: str,
    base: Any,
    rows: Any,
    configs: Sequence[Knobs],
    musts: tuple[float, float | None],
) -> None:
    """One row of the table: joint steps, eager and compiled, against B1 and B0.

    Against B0 only where something is asked of it.
    """
    tokens = _tokens(rows, configs) if "input_ids" in rows.column_names else None
    eager = joint(base, rows, configs)
    _tell(report, f"{name}: joint", eager, tokens)
    ways = [("joint", eager)]
    if ON_GPU:
        compiled = joint(base, rows, configs, compiled=True)
        _tell(report, f"{name}: joint, compiled", compiled, tokens)
        ways.append(("joint, compiled", compiled))
    tuned = plain_of_all(base, rows, configs, gradient_checkpointing=False)
    report.row(f"{name}: B1", tuned * 1000, "ms a step of all")
    for way, found in ways:
        report.row(f"{name}: {way} against B1", tuned / found.seconds, f"x (must {musts[0]:g})")
    if musts[1] is not None:
        default = plain_of_all(base, rows, configs)
        report.row(f"{name}: B0", default * 1000, "ms a step of all")
        for way, found in ways:
            ratio = default / found.seconds
            report.row(f"{name}: {way} against B0", ratio, f"x (must {musts[1]:g})")
    if ON_GPU and os.environ.get("RF_BENCH_B2"):
        best = plain_of_all(base, rows, configs, gradient_checkpointing=False, torch_compile=True)
        report.row(f"{name}: B2", best * 1000, "ms a step of all")


# ---- the cases


def _llama(report: Report) -> None:
    compare(report, "1.1B x 8", base_of("1.1B"), sft_rows(), searched(8), (4, 8))


def _qwen(report: Report) -> None:
    compare(
        report, "Qwen3-0.6B's shape x 8", base_of("qwen3-0.6B"), sft_rows(), searched(8), (4, 9)
    )


def _eight(report: Report) -> None:
    compare(report, "8B x 4", base_of("8B"), sft_rows(), searched(4), (2.5, 4))


def _dpo(report: Report) -> None:
    configs = searched(8, method="DPO", batch=2)
    compare(report, "DPO, 1.1B x 8", base_of("1.1B"), dpo_rows(), configs, (4, None))


def _lone(report: Report) -> None:
    rows = sft_rows(lengths=[512 if ON_GPU else 64] * 200)
    compare(
        report, "a lone run", base_of("1.1B"), rows, [Knobs(batch=1, accumulation=1)], (1.4, None)
    )


def _quantised(report: Report) -> None:
    base = in_4_bits(base_of("8B"))
    memory.collect()
    compare(report, "8B in 4 bits x 4", base, sft_rows(), searched(4), (2, None))


def _knobs(report: Report) -> None:
    """What unequal configs cost against equal ones on the same rows."""
    base, rows = base_of("1.1B"), sft_rows()
    same = [Knobs(learning_rate=1e-4 * (i + 1)) for i in range(8)]
    equal = min(joint(base, rows, same).seconds for _ in range(2))
    report.row("8 configs, all rank 16", equal * 1000, "ms a step of all")
    others = {
        "ranks 8, 16, 32, 64": (searched(8), 1.15),
        "dropout 0.05": ([replace(one, dropout=0.05) for one in same], 1.25),
    }
    for name, (configs, must) in others.items():
        found = joint(base, rows, configs).seconds
        report.row(f"{name}", found * 1000, "ms a step of all")
        report.row(f"{name}: against rank 16 without dropout", found / equal, f"x (must {must})")
    mixed = [replace(one, batch=(1, 2, 4, 8)[i % 4]) for i, one in enumerate(same)]
    found = joint(base, rows, mixed).seconds
    rates = _tokens(rows, same) / equal, _tokens(rows, mixed) / found
    report.row("batches 1, 2, 4, 8", found * 1000, "ms a step of all")
    report.row("batch 4 against batches 1, 2, 4, 8, tokens/s", rates[0] / rates[1], "x (must 1.2)")


def _bases(report: Report) -> None:
    """Two base models in one experiment, a group each, against B1 of all."""
    bases = {name: base_of(name) for name in ("1.1B", "qwen3-0.6B")}
    rows, configs = sft_rows(), searched(4)
    together = sum(joint(base, rows, configs).seconds for base in bases.values())
    tuned = sum(
        plain_of_all(base, rows, configs, gradient_checkpointing=False) for base in bases.values()
    )
    report.row("2 bases x 4: joint, a group each", together * 1000, "ms a step of all")
    report.row("2 bases x 4: B1", tuned * 1000, "ms a step of all")
    report.row("2 bases x 4: joint against B1", tuned / together, "x (must 3)")


def _auto(report: Report) -> None:
    """Whether ``execution="auto"`` takes the faster way, on shapes where joint steps gain much and little."""
    base, trial = base_of("1.1B"), 2 * (WARM_UP_STEPS + TIMED_STEPS)
    shapes = {
        "1.1B x 8": (sft_rows(), searched(8)),
        f"1.1B x 2, rows of {LONGEST}, batch 16": (
            sft_rows(lengths=[LONGEST] * STEPS * 16),
            searched(2, batch=16, accumulation=1),
        ),
    }
    for name, (rows, configs) in shapes.items():
        found: dict[Execution, float] = {}
        for way in Execution:
            found[way] = joint(base, rows, configs, execution=way, warm_up=trial).seconds
            report.row(f"{name}: execution={str(way)!r}", found[way] * 1000, "ms a step of all")
        better = min(found[Execution.EXACT], found[Execution.FUSED])
        report.row(
            f"{name}: auto against the better", better / found[Execution.AUTO], "x (must 0.95)"
        )


_CASES: dict[str, Callable[[Report], None]] = {
    "1.1B": _llama,
    "qwen": _qwen,
    "8B": _eight,
    "dpo": _dpo,
    "knobs": _knobs,
    "lone": _lone,
    "4-bit": _quantised,
    "bases": _bases,
    "auto": _auto,
    "whole": whole.measure,
    "search": search.measure,
    "old-table": partial(old_table.measure, is_compiled=False),
}
if ON_GPU:
    _CASES["compiled-old-table"] = partial(old_table.measure, is_compiled=True)


def measure(_report: Report) -> None:
    """All cases, or those that RF_BENCH_ONLY names; a file each."""
    only = tuple(os.environ.get("RF_BENCH_ONLY", "").split(","))
    for name, case in _CASES.items():
        if name.startswith(only):
            report = Report(f"real-{name}")
            case(report)
            report.conditions = _CONDITIONS
            report.finish()
            memory.collect()


_CONDITIONS = {
    "rows": f"tokens log-normal, median {MEDIAN}, sigma {SIGMA}, {SHORTEST} to {LONGEST}; "
    f"the last {1 - PROMPT:.0%} labelled",
    "adapter": "all linear layers, ranks 8, 16, 32, 64",
    "steps timed": STEPS - WARM_UP,
    "batch": "4, accumulated over 2",
    "B0": "plain trl, its defaults (gradient checkpointing); one config of each batch size and "
    "dropout, with the smallest rank, timed twice; the faster, times the configs",
    "B1": "B0 without gradient checkpointing",
    "device": DEVICE,
}
