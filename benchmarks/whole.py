"""How long does a whole experiment take: steps, evaluations, checkpoints and samples?

Against the script that a user of trl would write, one warmed run of it, times the configs.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.common import ON_GPU, engine_over, plain_trainer, quiet, synchronize, timed
from benchmarks.real_world import Knobs, arguments, base_of, lora, run_configs, searched, sft_rows
from benchmarks.report import Report
from rf_notebook.core.foreground import only_waiting
from rf_notebook.engine.turns import Idle
from rf_notebook.planning.fusion import Execution
from rf_notebook.training import memory
from rf_notebook.training.active_run import ActiveRun
from rf_notebook.training.at_boundary import AtBoundary
from rf_notebook.training.fused.group import FusedGroup
from rf_notebook.training.fused.joint_turns import JointTurns


def measure(report: Report) -> None:
    """A whole experiment with evaluations, checkpoints and samples, against a user's script."""
    count, num_chunks = (2000, 8) if ON_GPU else (64, 4)
    base, configs = base_of("1.1B"), searched(8)
    rows, held_out = sft_rows(count), sft_rows(count // 10, seed=2)
    seen = _experiment(base, rows, held_out, configs, num_chunks)
    name = "whole experiment"
    for what, seconds in seen.items():
        report.row(f"{name}: {what}", seconds, "s")
    script = script_seconds(base, rows, held_out, configs[1], num_chunks) * len(configs)
    report.row("the same by a script, one warmed run times the configs", script, "s")
    report.row(f"{name}: against the script", script / seen["to its end"], "x (must 4.5)")
    first = script / seen["until all were evaluated once"]
    report.row(f"{name}: first comparison, against the script's end", first, "x (must 16)")


def _experiment(
    base: Any,
    rows: Any,
    held_out: Any,
    configs: Sequence[Knobs],
    num_chunks: int,
) -> dict[str, float]:
    """Seconds to the first comparison and to the end, and what they were spent on."""
    spent: Counter[str] = Counter()

    parts = [
        (JointTurns, "_evaluate", "evaluation"),
        (JointTurns, "_write_samples", "samples"),
        (AtBoundary, "evaluate", "evaluation"),
        (AtBoundary, "write_samples", "samples"),
        (JointTurns, "_save", "saving"),
        (ActiveRun, "_checkpoint", "saving"),
        (FusedGroup, "advance", "joint steps"),
    ]
    with ExitStack() as timers:
        for owner, name, what in parts:
            timers.enter_context(timed(owner, name, spent, what))
        with tempfile.TemporaryDirectory() as folder:
            engine, runner = engine_over(
                Path(folder),
                base,
                rows,
                lambda objects: run_configs(objects, configs, max_steps=-1, num_train_epochs=1),
                num_chunks=num_chunks,
                execution=Execution.FUSED,
                held_out=held_out,
                sample_prompts=("the fox", "a small dog", "blue", "then the river"),
            )
            began = time.perf_counter()
            evaluated: dict[int, float] = {}

            def heard(run_id: int, progress: Any, point: Any) -> None:
                if point is not None and "eval_loss" in point.metrics:
                    evaluated.setdefault(run_id, time.perf_counter() - began)
                engine.on_live(run_id, progress, point)

            engine.fleet.listener = heard
            with only_waiting():
                while not isinstance(engine.turn(), Idle):
                    pass
                engine.settle()
            whole = time.perf_counter() - began
            records = engine.state.runs.values()
            failed = [one.failure.message for one in records if one.failure is not None]
            if failed:
                raise RuntimeError(failed[0])
            (model,) = runner.joint_turns.models.values()
            spent["the configs' own code, of steps, evaluation and samples"] = (
                model.counts.own_seconds
            )
            spent["recording"] = model.counts.setup_seconds
            runner.close()
    memory.collect()
    first = max(evaluated.values())
    return {"until all were evaluated once": first, "to its end": whole, **spent}


def script_seconds(base: Any, rows: Any, held_out: Any, knobs: Knobs, num_chunks: int) -> float:
    """Seconds of one config as a user writes it, after a few steps that warm the device up."""
    few = 4 * knobs.batch * knobs.accumulation
    seconds = 0.0
    for data in (rows.select(range(few)), rows):
        steps = len(data) // (knobs.batch * knobs.accumulation)
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            given = arguments(knobs, max_steps=-1, num_train_epochs=1) | {
                "eval_strategy": "steps",
                "eval_steps": max(1, steps // num_chunks),
                "gradient_checkpointing": False,
            }
            trainer = plain_trainer(base, data, given, lora(knobs), folder, eval_dataset=held_out)
            quiet(trainer).train()
            synchronize()
            seconds = time.perf_counter() - began
            del trainer
        memory.collect()
    return seconds
