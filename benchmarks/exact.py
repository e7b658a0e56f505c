"""How long do eight configs take in turns and in joint steps, against plain TRL?

And how much sooner can they be compared?

All in this process, on a model that is already loaded; the plain runs and ours alternate, config by
config, so that a machine whose speed drifts treats both alike. Nothing is evaluated; ours saves and
commits at every chunk.
"""

from __future__ import annotations

import copy
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from benchmarks.common import quiet, synchronize
from benchmarks.report import Report
from rf_notebook import Experiment, demo
from rf_notebook.automl import List, RFGridSearch, RFLoraConfig, RFModelConfig, RFSFTConfig

ROWS = int(os.environ.get("RF_BENCH_ROWS", "1024"))
CHUNKS = 8
RATES, RANKS = [5e-4, 1e-3, 2e-3, 5e-3], [4, 16]
#: Of SFTConfig; the rest is trl's default.
ARGUMENTS: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "num_train_epochs": 1,
    "max_length": 128,
    "logging_steps": 5,
    "gradient_checkpointing": False,
    "bf16": False,
}


def _plain(
    base: Any, tokenizer: Any, rows: Any, rate: float, rank: int, folder: str
) -> tuple[float, float, float]:
    """Seconds of construction, of training, and from the start to the end of the first chunk."""
    model = copy.deepcopy(base)
    started = time.perf_counter()
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=folder,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            learning_rate=rate,
            seed=42,
            **ARGUMENTS,
        ),
        train_dataset=rows,
        processing_class=tokenizer,
        peft_config=LoraConfig(
            task_type="CAUSAL_LM", r=rank, lora_alpha=16, target_modules="all-linear"
        ),
    )
    quiet(trainer)
    built = time.perf_counter()
    trainer.train()
    synchronize()
    done = time.perf_counter()
    return built - started, done - built, built - started + (done - built) / CHUNKS


def _ours(
    base: Any, tokenizer: Any, rows: Any, folder: Path, execution: str
) -> tuple[float, float]:
    """Seconds until all runs are over, and until all have trained their first chunk."""
    config = RFModelConfig(
        model_name="bench",
        peft_config=RFLoraConfig(r=List(RANKS), lora_alpha=16, target_modules="all-linear"),
        training_args=RFSFTConfig(learning_rate=List(RATES), seed=42, **ARGUMENTS),
    )
    experiment = Experiment(f"bench-{execution}", experiment_path=folder)
    first = 0.0
    started = time.perf_counter()
    experiment.run_fit(
        RFGridSearch(config, "SFT"),
        lambda _: (base, tokenizer),
        rows,
        num_chunks=CHUNKS,
        execution=execution,
        display=False,
    )
    thread = experiment.session.thread
    assert thread is not None
    while not thread.engine.mailbox.idle.is_set():
        if not first and all(run.steps * CHUNKS >= ROWS // 8 for run in experiment.runs):
            first = time.perf_counter() - started
        time.sleep(0.05)
    whole = time.perf_counter() - started
    experiment.end()
    assert all(run.state == "completed" for run in experiment.runs), [
        run.error for run in experiment.runs
    ]
    return whole, first


def measure(report: Report) -> None:
    """See the module."""
    base, tokenizer = demo.create_model({})
    if torch.cuda.is_available():
        base = base.cuda()
    rows = demo.train_dataset(ROWS).map(
        demo.format_row, remove_columns=["instruction", "response", "intent"]
    )
    with tempfile.TemporaryDirectory() as folder:
        _plain(base, tokenizer, rows.select(range(64)), 1e-3, 4, folder)  # warms everything up
        configs = [(rate, rank) for rank in RANKS for rate in RATES]
        before = [_plain(base, tokenizer, rows, *config, folder) for config in configs[::2]]
        whole, first = _ours(base, tokenizer, rows, Path(folder), "exact")
        joint = {way: _ours(base, tokenizer, rows, Path(folder), way) for way in ("fused", "auto")}
        after = [_plain(base, tokenizer, rows, *config, folder) for config in configs[1::2]]
    runs = before + after
    build, train = sum(run[0] for run in runs), sum(run[1] for run in runs)
    last = runs[-1]
    sequential_first = build + train - last[0] - last[1] + last[2]
    report.conditions = {
        "rows": ROWS,
        "chunks": CHUNKS,
        "configs": len(configs),
        "seed": 42,
        **ARGUMENTS,
    }
    report.row("plain TRL, 8 configs one after another: construction", build, "s")
    report.row("plain TRL, 8 configs one after another: training", train, "s")
    report.row("rf_notebook, the same 8 configs in turns, 8 chunks: all", whole, "s")
    report.row("ratio of wall times (rf_notebook / plain TRL)", whole / (build + train), "x")
    report.row("ratio against plain TRL's training alone", whole / train, "x")
    report.row("all 8 have trained their first chunk: plain TRL", sequential_first, "s")
    report.row("all 8 have trained their first chunk: rf_notebook", first, "s")
    report.row("sooner by", sequential_first / first, "x")
    for way, (all_of_it, first_of_all) in joint.items():
        report.row(f"execution={way!r}, the same 8 configs: all", all_of_it, "s")
        report.row(
            f"execution={way!r}: plain TRL's wall time through it", (build + train) / all_of_it, "x"
        )
        report.row(f"execution={way!r}: exact mode's wall time through it", whole / all_of_it, "x")
        report.row(f"execution={way!r}: all 8 have trained their first chunk", first_of_all, "s")
        report.row(
            f"execution={way!r}: sooner than plain TRL by", sequential_first / first_of_all, "x"
        )
