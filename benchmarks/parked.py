"""What does handing over cost, what does starting cost, and what does a parked run weigh?"""

from __future__ import annotations

import gc
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.report import Report
from rf_notebook import demo
from rf_notebook.automl import RFLoraConfig, RFModelConfig, RFSFTConfig
from rf_notebook.automl.concrete import build_run_config
from rf_notebook.core.objects import Objects
from rf_notebook.core.run import Progress
from rf_notebook.core.runner import ChunkRequest
from rf_notebook.training.datasets import ExperimentData
from rf_notebook.training.process_state import ProcessState
from rf_notebook.training.runner import KernelRunner


def _runner(folder: Path, rows: int) -> KernelRunner:
    data = demo.train_dataset(rows).map(
        demo.format_row, remove_columns=["instruction", "response", "intent"]
    )
    return KernelRunner(
        folder, ExperimentData(data, None), Objects(), demo.create_model, num_chunks=8
    )


def _request(run_id: int) -> ChunkRequest:
    config = RFModelConfig(
        model_name="bench",
        peft_config=RFLoraConfig(r=8, lora_alpha=16, target_modules="all-linear"),
        training_args=RFSFTConfig(
            learning_rate=1e-3,
            per_device_train_batch_size=8,
            max_length=128,
            bf16=False,
            seed=run_id,
            gradient_checkpointing=False,
            logging_steps=5,
        ),
    )
    fixed = build_run_config(config.given(), "SFT", Objects(), seed=0)
    return ChunkRequest(
        run_id=run_id,
        config=fixed,
        progress=Progress(),
        continue_from=None,
        warm_start=None,
        fence=1,
        attempt=1,
    )


def measure_handover(report: Report) -> None:
    """The round trip from the engine into a parked run and back, training nothing.

    And its part of state swapping.
    """
    with tempfile.TemporaryDirectory() as folder:
        runner = _runner(Path(folder), 64)
        held = [runner.build(_request(run_id)) for run_id in (1, 2)]
        trips: list[float] = []
        for i in range(400):
            run: Any = held[i % 2]
            started = time.perf_counter()
            run.parked.advance(run.parked.step)
            trips.append(time.perf_counter() - started)
        swaps: list[float] = []
        for _ in range(400):
            started = time.perf_counter()
            ProcessState.capture().install()
            swaps.append(time.perf_counter() - started)
        runner.close()
    report.row("hand-over round trip, median of 400", statistics.median(trips) * 1000, "ms")
    report.row("hand-over round trip, 99th percentile", sorted(trips)[395] * 1000, "ms")
    report.row(
        "of it: capture and install of the process state, once",
        statistics.median(swaps) * 1000,
        "ms",
    )


def measure_start(report: Report, rows: int = 2000) -> None:
    """From nothing to trainers that stand before their first step, the base model loaded before."""

    def start(count: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            runner = _runner(Path(folder), rows)
            runner.models.get(_model_config(), use_cpu=False)
            started = time.perf_counter()
            for run_id in range(1, count + 1):
                runner.build(_request(run_id))
            seconds = time.perf_counter() - started
            runner.close()
            return seconds

    start(1)
    one = statistics.median(start(1) for _ in range(3))
    eight = statistics.median(start(8) for _ in range(3))
    report.conditions = {"rows": rows}
    report.row("start of 1 run, median of 3", one, "s")
    report.row("start of 8 runs with equal data settings, median of 3", eight, "s")
    report.row("ratio", eight / one, "x")


def _model_config() -> dict[str, Any]:
    return {
        "model_name": "bench",
        "model_type": "causal_lm",
        "model_kwargs": {},
        "tokenizer": None,
        "tokenizer_kwargs": {},
    }


def measure_memory(report: Report) -> None:
    """Resident memory of the 8th to the 64th run, parked inside its training."""
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as folder:
        runner = _runner(Path(folder), 256)
        sizes = []
        own = 0
        for run_id in range(1, 65):
            held: Any = runner.build(_request(run_id))
            held.parked.advance(2)
            if run_id in (8, 64):
                gc.collect()
                sizes.append(process.memory_info().rss)
            if run_id == 64:
                from rf_notebook.training.memory import own_bytes

                own = own_bytes(held.trainer)
        threads = threading.active_count()
        runner.close()
    each = (sizes[1] - sizes[0]) / 56
    report.conditions = {"threads": threads, "rank": 8, "target_modules": "all-linear", "steps": 2}
    report.row("resident memory a parked run, 8th to 64th", each / 2**20, "MiB")
    report.row("of it: adapter and optimizer state", own / 2**20, "MiB")
    report.row("beyond adapter and optimizer state", (each - own) / 2**20, "MiB")
