"""How much faster do configs train in joint steps than one after another in plain TRL?

Llama-shaped models with random weights; every row has the same number of tokens. Plain TRL and
joint steps are timed in one process, on one resident base model, over the same rows.
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from benchmarks.common import (
    ON_GPU,
    engine_over,
    llama,
    plain_step_seconds,
    run_config,
    seconds_of_all,
    synchronize,
)
from benchmarks.report import Report
from rf_notebook.core.objects import Objects
from rf_notebook.core.operations import StopRun
from rf_notebook.core.run import RunConfig
from rf_notebook.engine.loop import Engine
from rf_notebook.engine.turns import Idle
from rf_notebook.planning.fusion import Execution
from rf_notebook.training import memory
from rf_notebook.training.fused.compiled import CompiledLayers
from rf_notebook.training.runner import KernelRunner

#: Floating point operations a second that an H200 does in bfloat16 without sparsity, as its data
#: sheet says.
_PEAK_FLOPS = 989e12
_LORA = {"r": 16, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj"]}


@dataclass(frozen=True, slots=True)
class Shape:
    """One row of the table."""

    configs: int
    batch: int
    length: int

    def __str__(self) -> str:
        return f"{self.configs} x {self.batch} x {self.length}"

    @property
    def tokens(self) -> int:
        """Of one step of all configs."""
        return self.configs * self.batch * self.length


#: With the ratio to plain TRL that is asked for at least, and the one that is aimed at.
TARGETS = {
    Shape(8, 1, 512): (5.0, 9.0),
    Shape(8, 4, 512): (2.2, 3.5),
    Shape(8, 8, 512): (1.3, 2.0),
    Shape(32, 1, 256): (8.0, 20.0),
}
_SMALL = {Shape(8, 1, 64): (0.0, 0.0), Shape(4, 4, 64): (0.0, 0.0)}


def rows_of(length: int, count: int = 1024) -> datasets.Dataset:
    """Rows of random tokens, all of this length."""
    rng = random.Random(1)
    rows = [rng.choices(range(3, 500), k=length) for _ in range(count)]
    return datasets.Dataset.from_dict({"input_ids": rows, "labels": rows})


def arguments(shape: Shape, steps: int, **more: Any) -> dict[str, Any]:
    """Of SFTConfig, as a user writes them.

    Everything else is trl's default, gradient checkpointing included.
    """
    return {
        "per_device_train_batch_size": shape.batch,
        "max_length": shape.length,
        "max_steps": steps,
        "learning_rate": 2e-4,
        "logging_steps": 10,
        "bf16": ON_GPU,
        "use_cpu": not ON_GPU,
        "seed": 1,
        **more,
    }


def plain_seconds(
    base: Any, rows: Any, shape: Shape, *, steps: int, warm_up: int, **more: Any
) -> float:
    """Seconds of one step of one config in plain TRL, the model kept loaded."""
    return plain_step_seconds(base, rows, arguments(shape, steps, **more), _LORA, warm_up=warm_up)


@contextmanager
def engine_of(
    base: Any,
    rows: Any,
    shape: Shape,
    *,
    steps: int,
    execution: Execution,
    num_chunks: int = 1,
    **more: Any,
) -> Iterator[tuple[Engine, KernelRunner]]:
    """An engine with the configs of a shape, which differ in learning rate and seed."""

    def configs(objects: Objects) -> list[RunConfig]:
        return [
            run_config(
                objects,
                arguments(shape, steps, **more) | {"learning_rate": 1e-4 * (i + 1), "seed": i + 1},
                _LORA,
            )
            for i in range(shape.configs)
        ]

    with tempfile.TemporaryDirectory() as folder:
        engine, runner = engine_over(
            Path(folder), base, rows, configs, num_chunks=num_chunks, execution=execution
        )
        try:
            yield engine, runner
        finally:
            runner.close()
            memory.collect()


def joint_seconds(
    base: Any,
    rows: Any,
    shape: Shape,
    *,
    steps: int,
    warm_up: int,
    execution: Execution = Execution.FUSED,
    **more: Any,
) -> float:
    """Seconds of one step of all configs together."""
    last = shape.configs
    times: dict[int, float] = {}

    def listen(run_id: int, progress: Any, point: Any) -> None:
        if run_id == last and point is None and progress.steps in (warm_up, steps):
            synchronize()
            times[progress.steps] = time.perf_counter()

    with engine_of(base, rows, shape, steps=steps, execution=execution, **more) as (engine, runner):
        runner.listener = listen
        while not isinstance(engine.turn(), Idle):
            pass
        failed = [
            record.failure.message
            for record in engine.state.runs.values()
            if record.failure is not None
        ]
        if failed:
            raise RuntimeError(failed[0])
    return (times[steps] - times[warm_up]) / (steps - warm_up)


def measure_speed(report: Report) -> None:
    """Steps of all configs: plain TRL one by one, runs in turns, joint steps, eager and compiled."""
    steps = int(os.environ.get("RF_BENCH_STEPS", "24"))
    warm_up = steps // 3
    base = llama()
    weights = sum(p.numel() for p in base.parameters())
    for shape, (must, aim) in (TARGETS if ON_GPU else _SMALL).items():
        rows = rows_of(shape.length)

        def plain(**more: Any) -> float:
            return plain_seconds(base, rows, shape, steps=steps, warm_up=warm_up, **more)  # noqa: B023

        before = plain()
        joint = joint_seconds(base, rows, shape, steps=steps, warm_up=warm_up)
        compiled = None
        if ON_GPU:
            CompiledLayers.always_after = 2
            compiled = joint_seconds(base, rows, shape, steps=steps, warm_up=warm_up)
            CompiledLayers.always_after = None
        tuned = plain(gradient_checkpointing=False)
        one_by_one = statistics.mean([before, plain()]) * shape.configs
        report.row(
            f"{shape}: plain TRL, one config after another", one_by_one * 1000, "ms a step of all"
        )
        report.row(
            f"{shape}: the same without gradient checkpointing",
            tuned * shape.configs * 1000,
            "ms a step of all",
        )
        report.row(f"{shape}: joint steps", joint * 1000, "ms a step of all")
        report.row(f"{shape}: faster by", one_by_one / joint, f"x (must {must:g}, aim {aim:g})")
        _tell_rate(report, shape, "joint steps", joint, weights)
        if compiled is not None:
            report.row(f"{shape}: joint steps, compiled", compiled * 1000, "ms a step of all")
            report.row(
                f"{shape}: faster by, compiled",
                one_by_one / compiled,
                f"x (must {must:g}, aim {aim:g})",
            )
            _tell_rate(report, shape, "compiled", compiled, weights)
    report.conditions = {
        "weights": weights,
        "dtype": "bfloat16" if ON_GPU else "float32",
        "adapter": str(_LORA),
        "steps timed": steps - warm_up,
        "plain TRL": "trl's defaults; two trainers timed, before and after, times the number of configs",
    }


def _tell_rate(report: Report, shape: Shape, what: str, seconds: float, weights: int) -> None:
    report.row(f"{shape}: {what}, tokens a second", shape.tokens / seconds, "1/s")
    if ON_GPU:
        used = 4 * weights * shape.tokens / seconds / _PEAK_FLOPS
        report.row(f"{shape}: {what}, model flops used", used, "of the data sheet's peak")


def measure_remainder(report: Report) -> None:
    """What a run costs besides the joint passes, and what turns cost against plain TRL."""
    steps, warm_up = 40, 10
    base = llama()
    shape = Shape(8, 1, 512) if ON_GPU else Shape(8, 1, 64)
    rows = rows_of(shape.length)
    counts: dict[int, tuple[float, int]] = {}

    def joint(**more: Any) -> float:
        with engine_of(base, rows, shape, steps=steps, execution=Execution.FUSED, **more) as (
            engine,
            runner,
        ):

            def listen(run_id: int, progress: Any, point: Any) -> None:
                if (
                    run_id == shape.configs
                    and point is None
                    and progress.steps in (warm_up, steps - 1)
                ):
                    (model,) = runner.joint_turns.models.values()
                    counts[progress.steps] = (model.counts.own_seconds, model.counts.forwards)

            runner.listener = listen
            while not isinstance(engine.turn(), Idle):
                pass
        (began, first), (ended, last) = counts[warm_up], counts[steps - 1]
        return (ended - began) / (last - first) / shape.configs

    report.row("remainder of a run and step, logged every 10 steps", joint() * 1000, "ms (must 5)")
    report.row("the same, logged every step", joint(logging_steps=1) * 1000, "ms (must 5)")
    alternating: list[float] = []
    plain: list[float] = []
    one = Shape(1, 1, shape.length)
    for _ in range(3):
        plain.append(plain_seconds(base, rows, one, steps=steps, warm_up=warm_up))
        alternating.append(
            joint_seconds(base, rows, one, steps=steps, warm_up=warm_up, execution=Execution.EXACT)
        )
    report.row("a step in plain TRL, median of 3", statistics.median(plain) * 1000, "ms")
    report.row(
        "a step of a run in exact mode, median of 3", statistics.median(alternating) * 1000, "ms"
    )
    ratio = statistics.median(plain) / statistics.median(alternating)
    report.row("exact mode against plain TRL", ratio, "x its speed (must 0.97)")
    report.conditions = {"shape": str(shape), "steps timed": steps - warm_up}


def measure_auto(report: Report) -> None:
    """What execution="auto" makes of a group, against turns and joint steps by themselves.

    Its second half is timed.
    """
    steps = 48
    base = llama()
    shapes = (
        [Shape(8, 1, 512), Shape(8, 8, 512)]
        if ON_GPU
        else [Shape(8, 1, 64), Shape(4, 4, 64), Shape(2, 8, 128)]
    )
    for shape in shapes:
        rows = rows_of(shape.length, steps * shape.batch)  # one pass, so that it has two chunks
        seconds: dict[Execution, list[float]] = {
            way: [] for way in (Execution.EXACT, Execution.FUSED, Execution.AUTO)
        }
        for _ in range(3):
            for way, found in seconds.items():
                found.append(_second_half(base, rows, shape, steps, way))
        middle = {way: statistics.median(found) for way, found in seconds.items()}
        for way, one in middle.items():
            report.row(f"{shape}: execution={str(way)!r}", one * 1000, "ms a step of all")
        report.row(
            f"{shape}: auto against turns",
            middle[Execution.EXACT] / middle[Execution.AUTO],
            "x (must 0.95)",
        )
    report.conditions = {
        "steps timed": steps // 2,
        "each": "the median of three, taken in turns",
        "saving": "included",
    }


def _second_half(base: Any, rows: Any, shape: Shape, steps: int, execution: Execution) -> float:
    """Seconds of a step of all configs in the second half of their steps."""
    times: dict[tuple[int, int], float] = {}
    half = steps // 2

    def listen(run_id: int, progress: Any, point: Any) -> None:
        if point is None and progress.steps in (half, steps):
            synchronize()
            times[run_id, progress.steps] = time.perf_counter()

    with engine_of(base, rows, shape, steps=steps, execution=execution, num_chunks=2) as (
        engine,
        runner,
    ):
        runner.listener = listen
        while not isinstance(engine.turn(), Idle):
            pass
    windows = [(times[run, half], times[run, steps]) for run in range(1, shape.configs + 1)]
    return seconds_of_all(windows) / (steps - half)


def measure_memory(report: Report) -> None:
    """What lies on the GPU for each further config, parked and inside joint steps."""
    if not ON_GPU:
        report.row("measured on a GPU only", 0.0, "")
        return
    base = llama()
    rows = rows_of(256)
    parked: dict[int, int] = {}
    for count in (1, 2, 4, 8, 16, 32):
        shape = Shape(count, 1, 256)
        with engine_of(base, rows, shape, steps=6, execution=Execution.FUSED) as (engine, runner):
            memory.collect()
            memory.reset_peak()

            def listen(run_id: int, progress: Any, point: Any) -> None:
                if run_id == 1 and progress.steps == 3 and point is None:
                    engine.mailbox.submit(StopRun(run_id=1))

            runner.listener = listen
            engine.turn()
            memory.collect()
            parked[count] = memory.allocated_bytes()
            report.row(
                f"{count} configs: peak of joint steps", (memory.peak_bytes() or 0) / 2**20, "MiB"
            )
            report.row(f"{count} configs: allocated between turns", parked[count] / 2**20, "MiB")
            trained = sum(
                p.numel()
                for p in next(iter(runner.runs.values())).trainer.model.parameters()
                if p.requires_grad
            )
    further = (parked[32] - parked[4]) / 28
    report.row("a further parked config", further / 2**20, "MiB")
    report.row("16 bytes for each of its adapter's weights", 16 * trained / 2**20, "MiB")
    report.row("ratio", further / (16 * trained), "x (must 1.1)")
    report.conditions = {
        "adapter": str(_LORA),
        "batch x length": "1 x 256",
        "weights trained": trained,
    }


def measure_grid(report: Report) -> None:
    """Tokens a second over many shapes.

    What does not fit into memory at once is done in parts by itself.

    RF_BENCH_SECONDS ends it early, with the shapes that were measured by then; RF_BENCH_ONLY="16
    x,32 x 8" measures only shapes that begin so.
    """
    base = llama()
    weights = sum(p.numel() for p in base.parameters())
    configs, batches, lengths = (
        ((8, 32, 1, 4, 16), (1, 2, 4, 8), (256, 512, 1024)) if ON_GPU else ((4, 1), (1, 2), (64,))
    )
    only = tuple(os.environ.get("RF_BENCH_ONLY", "").split(","))
    steps, warm_up = 6, 3
    until = time.perf_counter() + float(os.environ.get("RF_BENCH_SECONDS", "inf"))
    rows = {length: rows_of(length, 512) for length in lengths}
    left_out = []
    for batch in batches:
        for length in lengths:
            one = Shape(1, batch, length)
            if not str(one).startswith(only):
                continue
            seconds = plain_seconds(base, rows[length], one, steps=steps, warm_up=warm_up)
            _tell_rate(report, one, "plain TRL", seconds, weights)
    for count in configs:
        for batch in batches:
            for length in lengths:
                shape = Shape(count, batch, length)
                if not str(shape).startswith(only):
                    continue
                if time.perf_counter() > until:
                    left_out.append(str(shape))
                    continue
                seconds = joint_seconds(base, rows[length], shape, steps=steps, warm_up=warm_up)
                _tell_rate(report, shape, "joint steps", seconds, weights)
    report.conditions = {"steps timed": steps - warm_up, "compiled": "no", "not measured": left_out}
