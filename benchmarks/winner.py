"""How long until the best of eight configs is known and fully trained?

All of them in plain TRL, or by halving here.

Successive halving by a script over the public API: whenever all runs that are left have trained a
chunk, the worse half is stopped. A hit is a winner that plain TRL finds, too, after training all
eight to their end.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from peft import LoraConfig

from benchmarks import kit
from benchmarks.common import plain_eval_loss
from benchmarks.exact import ARGUMENTS
from benchmarks.report import Report
from rf_notebook import Experiment
from rf_notebook.automl import List, RFGridSearch, RFLoraConfig, RFModelConfig, RFSFTConfig

ROWS = int(os.environ.get("RF_BENCH_ROWS", "512"))
SEEDS = (1, 2, 3, 4, 5)
CHUNKS = 8
RATES, RANKS = [2e-4, 1e-3, 5e-3, 2e-2], [2, 16]


def _plain(
    base: Any, tokenizer: Any, rows: Any, held_out: Any, seed: int
) -> tuple[float, tuple[float, int]]:
    """Seconds for all eight, and rate and rank of the one with the lowest held-out loss."""
    losses: dict[tuple[float, int], float] = {}
    started = time.perf_counter()
    for rank in RANKS:
        for rate in RATES:
            lora = LoraConfig(
                task_type="CAUSAL_LM", r=rank, lora_alpha=16, target_modules="all-linear"
            )
            more = {"learning_rate": rate, "seed": seed, **ARGUMENTS}
            losses[rate, rank] = plain_eval_loss(base, tokenizer, rows, held_out, lora, **more)
    return time.perf_counter() - started, min(losses, key=lambda key: losses[key])


def _halved(
    base: Any, tokenizer: Any, rows: Any, held_out: Any, seed: int, folder: Path, execution: str
) -> tuple[float, tuple[float, int]]:
    """Seconds until one is left and fully trained, and its rate and rank."""
    search = RFModelConfig(
        model_name="bench",
        peft_config=RFLoraConfig(r=List(RANKS), lora_alpha=16, target_modules="all-linear"),
        training_args=RFSFTConfig(learning_rate=List(RATES), seed=seed, **ARGUMENTS),
    )
    started = time.perf_counter()
    experiment = Experiment(f"winner-{execution}", experiment_path=folder)
    experiment.run_fit(
        RFGridSearch(search, "SFT"),
        lambda _: (base, tokenizer),
        rows,
        held_out,
        num_chunks=CHUNKS,
        execution=execution,
        display=False,
    )
    left, done = [run.id for run in experiment.runs], 0
    while len(left) > 1:
        evaluated = {run_id: _evaluations(experiment, run_id) for run_id in left}
        if min(map(len, evaluated.values())) <= done:
            time.sleep(0.02)
            continue
        done = min(map(len, evaluated.values()))
        ranked = sorted(left, key=lambda run_id: evaluated[run_id][done - 1])
        left, weak = ranked[: len(ranked) // 2], ranked[len(ranked) // 2 :]
        experiment.stop(weak).result()
    experiment.wait()
    seconds = time.perf_counter() - started
    (winner,) = (run for run in experiment.runs if run.id == left[0])
    config = winner.config
    experiment.end()
    return seconds, (config["training_args"]["learning_rate"], config["peft_config"]["r"])


def _evaluations(experiment: Experiment, run_id: int) -> list[float]:
    frame = experiment.get_results()
    if "eval_loss" not in frame:
        return []
    return [float(x) for x in frame[frame.run_id == run_id].eval_loss.dropna()]


def measure(report: Report) -> None:
    """See the module."""
    base, tokenizer = kit.create_model({})
    rows, held_out = kit.train_dataset(ROWS), kit.eval_dataset(64)
    seconds: dict[str, list[float]] = {"plain": [], "exact": [], "fused": []}
    hits = {"exact": 0, "fused": 0}
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            took, expected = _plain(base, tokenizer, rows, held_out, seed)
            seconds["plain"].append(took)
            for execution in hits:
                took, found = _halved(
                    base, tokenizer, rows, held_out, seed, Path(folder), execution
                )
                seconds[execution].append(took)
                hits[execution] += found == expected
    plain = sum(seconds["plain"]) / len(SEEDS)
    report.row("plain TRL, all eight to their end", plain, "s, mean of 5 seeds")
    for execution, count in hits.items():
        mean = sum(seconds[execution]) / len(SEEDS)
        report.row(f"halving, execution={execution!r}", mean, "s, mean of 5 seeds")
        report.row(f"halving, execution={execution!r}: sooner by", plain / mean, "x")
        report.row(
            f"halving, execution={execution!r}: the same winner", float(count), f"of {len(SEEDS)}"
        )
    report.conditions = {
        "rows": ROWS,
        "chunks": CHUNKS,
        "rates": RATES,
        "ranks": RANKS,
        **ARGUMENTS,
    }
