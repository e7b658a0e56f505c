"""How long does a search take until its winner is fully trained?

Sixteen configs, Halving, joint steps, against training all of them in plain trl. Which one wins
says nothing here, for random weights have no ranking: see ``halving``.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.common import ON_GPU, plain_step_seconds, plain_trainer, synchronize
from benchmarks.real_world import WARM_UP, arguments, base_of, lora, searched, sft_rows
from benchmarks.report import Report
from rf_notebook import Experiment
from rf_notebook.automation import Halving
from rf_notebook.automl import RFLoraConfig, RFModelConfig, RFSFTConfig
from rf_notebook.testing.tiny import tiny_tokenizer
from rf_notebook.training import memory

COUNT, CHUNKS = 16, 16


def measure(report: Report) -> None:
    """Seconds from the call to the winner's last step, against all configs in plain trl (B1)."""
    base, rows = base_of("1.1B"), sft_rows(2000 if ON_GPU else 256)
    held_out = sft_rows(100 if ON_GPU else 16, seed=2)
    configs = searched(COUNT)
    more = {"max_steps": -1, "num_train_epochs": 1}
    templates = [
        RFModelConfig(
            model_name="bench",
            peft_config=RFLoraConfig(**lora(knobs)),
            training_args=RFSFTConfig(**arguments(knobs, seed=seed, **more)),
        )
        for seed, knobs in enumerate(configs, start=1)
    ]
    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment("search", experiment_path=Path(folder))
        began = time.perf_counter()
        experiment.run_fit(
            templates,
            lambda _: (base, tiny_tokenizer()),
            rows,
            held_out,
            num_chunks=CHUNKS,
            execution="fused",
            policy=Halving(),
            display=False,
        )
        experiment.wait()
        synchronize()
        took = time.perf_counter() - began
        (winner,) = (run for run in experiment.runs if run.state == "completed")
        trained = sum(run.samples for run in experiment.runs)
        experiment.end()
    memory.collect()
    steps = winner.steps
    seconds = [
        plain_step_seconds(
            base,
            rows,
            arguments(knobs, gradient_checkpointing=False),
            lora(knobs),
            warm_up=WARM_UP,
        )
        for knobs in (configs[0], configs[-1])
    ]
    plain = COUNT * steps * min(seconds)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        plain_trainer(base, rows, arguments(configs[0]), lora(configs[0]), folder)
        building = time.perf_counter() - began
    report.row("until the winner of 16 is fully trained", took, "s")
    report.row("samples trained, of those of all", trained / (COUNT * len(rows)), "x")
    report.row("all 16 in plain trl (B1), from the faster of two", plain, "s")
    report.row("search against training all", plain / took, "x (must 12)")
    report.row("making one trainer in plain trl; not in its seconds above", building, "s")
