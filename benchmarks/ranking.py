"""Sixteen configs on the kit of ``kit.py``, ranked by plain TRL's full training.

What a policy's choice is judged by.

``python -m benchmarks ranking`` trains all of them to their end, seed by seed, one after another.
"""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

from peft import LoraConfig

from benchmarks import kit
from benchmarks.common import plain_eval_loss
from benchmarks.report import RESULTS, Report
from rf_notebook.automl import List, RFGridSearch, RFLoraConfig, RFModelConfig, RFSFTConfig

ROWS = int(os.environ.get("RF_BENCH_ROWS", "256"))
SEEDS = tuple(range(1, 1 + int(os.environ.get("RF_BENCH_SEEDS", "10"))))
RATES, BATCHES, TARGETS = [2e-4, 7e-4, 2e-3, 5e-3], [8, 16], [["q_proj", "v_proj"], "all-linear"]
#: As trl spells them; a constant rate, so that a run's early figures say how it will end.
ARGUMENTS: dict[str, Any] = {
    "num_train_epochs": 1,
    "max_length": 128,
    "logging_steps": 4,
    "lr_scheduler_type": "constant",
    "gradient_checkpointing": False,
    "bf16": False,
}
CONFIGS = list(itertools.product(TARGETS, RATES, BATCHES))


def name_of(targets: Any, rate: float, batch: int) -> str:
    """A config in a few words."""
    where = (
        targets
        if isinstance(targets, str)
        else "+".join(one.removesuffix("_proj") for one in targets)
    )
    return f"lr={rate:g} batch={batch} {where}"


def data() -> tuple[Any, Any]:
    """Rows to train on and held-out rows, formatted."""
    return kit.train_dataset(ROWS), kit.eval_dataset(32)


def search(seed: int) -> RFGridSearch:
    """The same configs, in the same order, for rf_notebook."""
    config = RFModelConfig(
        model_name="bench",
        peft_config=RFLoraConfig(r=16, lora_alpha=16, target_modules=List(TARGETS)),
        training_args=RFSFTConfig(
            learning_rate=List(RATES),
            per_device_train_batch_size=List(BATCHES),
            seed=seed,
            **ARGUMENTS,
        ),
    )
    return RFGridSearch(config, "SFT")


def plain_loss(
    base: Any, tokenizer: Any, rows: Any, held_out: Any, seed: int, config: Any
) -> float:
    """The loss on the held-out rows after full training in plain TRL."""
    targets, rate, batch = config
    lora = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=16, target_modules=targets)
    more = {"learning_rate": rate, "per_device_train_batch_size": batch, "seed": seed, **ARGUMENTS}
    return plain_eval_loss(base, tokenizer, rows, held_out, lora, **more)


def measure(report: Report) -> None:
    """See the module."""
    base, tokenizer = kit.create_model({})
    rows, held_out = data()
    firsts: dict[str, int] = {}
    for seed in SEEDS:
        losses = {
            name_of(*config): plain_loss(base, tokenizer, rows, held_out, seed, config)
            for config in CONFIGS
        }
        order = sorted(losses, key=lambda name: losses[name])
        firsts[order[0]] = firsts.get(order[0], 0) + 1
        for place, name in enumerate(order, start=1):
            report.row(f"seed {seed}, place {place}: {name}", losses[name], "eval_loss")
    for name, count in firsts.items():
        report.row(f"first: {name}", float(count), f"of {len(SEEDS)} seeds")
    report.conditions = {
        "rows": ROWS,
        "held out": 32,
        "rates": RATES,
        "batches": BATCHES,
        "targets": TARGETS,
        **ARGUMENTS,
    }


def known_losses() -> dict[int, dict[str, float]]:
    """The committed ranking: by seed and config, the loss after full training.

    Raises:
        FileNotFoundError: when it was not measured.
    """
    path = Path(os.environ.get("RF_BENCH_RANKING", RESULTS / "ranking-cpu.json"))
    found: dict[int, dict[str, float]] = {}
    for figure in json.loads(path.read_text())["figures"]:
        where, _, name = figure["what"].partition(": ")
        if where.startswith("seed "):
            seed = int(where.split(",")[0].removeprefix("seed "))
            found.setdefault(seed, {})[name] = float(figure["value"])
    return found
