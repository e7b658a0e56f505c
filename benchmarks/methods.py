"""One config of each method over one base.

Equal to plain TRL, what handing over costs, and what is shared.

On a GPU the base is a Llama of 1.1 billion random weights in bfloat16, elsewhere the tests' tiny
one.
"""

from __future__ import annotations

import gc
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import LoraConfig
from transformers import LlamaForCausalLM
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from benchmarks.common import ON_GPU, engine_over, llama
from benchmarks.report import Report
from rf_notebook.automl.adapter_configs import RFLoraConfig
from rf_notebook.automl.concrete import build_run_config
from rf_notebook.automl.configs import RFModelConfig
from rf_notebook.automl.library_configs import TRAINING_CONFIGS
from rf_notebook.core.objects import Objects
from rf_notebook.core.run import RunConfig
from rf_notebook.engine.loop import Engine
from rf_notebook.engine.turns import Idle
from rf_notebook.testing.tiny import tiny_model, tiny_tokenizer
from rf_notebook.training import memory
from rf_notebook.training.runner import KernelRunner

_LORA = {
    "r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
}
_COMMON: dict[str, Any] = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-4,
    "logging_steps": 1,
    "bf16": ON_GPU,
    "max_steps": 8,
    "seed": 7,
}
_CONFIGS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "SFT": ("SFT", {"max_length": 256}, True),
    "DPO": ("DPO", {"max_length": 256, "beta": 0.1}, True),
    "GRPO": (
        "GRPO",
        {"num_generations": 4, "max_completion_length": 32, "beta": 0.05, "num_iterations": 2},
        True,
    ),
    "full fine-tuning": ("SFT", {"max_length": 256, "learning_rate": 1e-5}, False),
}
_TRL = {
    "SFT": (SFTConfig, SFTTrainer),
    "DPO": (DPOConfig, DPOTrainer),
    "GRPO": (GRPOConfig, GRPOTrainer),
}


def _base() -> Any:
    return llama() if ON_GPU else tiny_model(dtype=torch.float32)


def _rows(count: int, words: int) -> datasets.Dataset:
    rng = random.Random(3)
    vocabulary = [
        "the",
        "a",
        "cat",
        "dog",
        "runs",
        "jumps",
        "over",
        "lazy",
        "fox",
        "moon",
        "star",
        "blue",
        "red",
        "green",
        "house",
        "tree",
        "river",
        "bird",
    ]

    def text() -> str:
        return " ".join(rng.choices(vocabulary, k=rng.randint(words // 2, words)))

    rows = []
    for _ in range(count):
        chosen, rejected = " " + text(), " " + text()
        rows.append(
            {"prompt": text(), "completion": chosen, "chosen": chosen, "rejected": rejected}
        )
    return datasets.Dataset.from_list(rows)


def _reward(completions: list[str], **_columns: Any) -> list[float]:
    return [sum(map(ord, text)) % 17 / 17 for text in completions]


def _run_config(name: str, objects: Objects, **more: Any) -> RunConfig:
    method, training, has_adapter = _CONFIGS[name]
    fields = RFModelConfig(
        model_name="bench",
        peft_config=RFLoraConfig(**_LORA) if has_adapter else None,
        training_args=TRAINING_CONFIGS[method](**{**_COMMON, **training, **more}),
        reward_funcs=_reward if method == "GRPO" else None,
    ).given()
    return build_run_config(fields, method, objects, seed=0)


def _plain(
    name: str, rows: datasets.Dataset, folder: Path, base: Any | None = None
) -> tuple[list[float], dict[str, torch.Tensor]]:
    method, training, has_adapter = _CONFIGS[name]
    config_class, trainer_class = _TRL[method]
    more = {"reward_funcs": _reward} if method == "GRPO" else {}
    trainer = trainer_class(
        model=_base() if base is None else base,
        args=config_class(
            output_dir=str(folder),
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
            **{**_COMMON, **training},
        ),
        train_dataset=rows,
        processing_class=tiny_tokenizer(),
        peft_config=LoraConfig(task_type="CAUSAL_LM", **_LORA) if has_adapter else None,
        **more,
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    weights = {n: p.detach().cpu() for n, p in trainer.model.named_parameters() if p.requires_grad}
    del trainer
    memory.collect()
    return losses, weights


class _Watched(KernelRunner):
    """Keeps the weights of a run before its trainer is let go."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.weights: dict[int, dict[str, torch.Tensor]] = {}

    def release(self, *run_ids: int) -> None:
        for run_id in run_ids:
            held = self.runs.get(run_id)
            if held is not None:
                parameters = held.trainer.model.named_parameters()
                self.weights[run_id] = {
                    n: p.detach().cpu() for n, p in parameters if p.requires_grad
                }
        super().release(*run_ids)


def measure_methods(report: Report) -> None:
    """Each method interleaved with the others against plain TRL alone.

    The hand-over between them.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    rows = _rows(64, 60)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        plain = {name: _plain(name, rows, folder / "plain") for name in _CONFIGS}
        engine, runner = engine_over(
            folder / "ours",
            _base(),
            rows,
            lambda objects: [_run_config(name, objects) for name in _CONFIGS],
            num_chunks=8,
            runner_class=_Watched,
        )
        turns = 0
        while not isinstance(engine.turn(), Idle):
            turns += 1
            if turns == 2 * len(_CONFIGS):
                _handover(report, runner)
        for run_id, name in enumerate(_CONFIGS, start=1):
            _compare(report, name, engine, runner, run_id, plain[name])
        runner.close()
    torch.use_deterministic_algorithms(False)
    report.conditions = {
        "weights": 1_100_000_000 if ON_GPU else 130_000,
        "dtype": "bfloat16" if ON_GPU else "float32",
        "steps": _COMMON["max_steps"],
        "turns": turns,
        "deterministic algorithms": True,
    }


def _compare(
    report: Report,
    name: str,
    engine: Engine,
    runner: _Watched,
    run_id: int,
    plain: tuple[list[float], dict[str, Any]],
) -> None:
    record = engine.state.record(run_id)
    if record.failure is not None:
        raise RuntimeError(record.failure.message)
    losses = [point.metrics["loss"] for point in record.all_points() if "loss" in point.metrics]
    same = losses == plain[0] and runner.weights[run_id].keys() == plain[1].keys()
    same = same and all(torch.equal(runner.weights[run_id][n], t) for n, t in plain[1].items())
    report.row(f"{name}: losses and weights equal plain TRL's", float(same), "(1 is yes)")


def _handover(report: Report, runner: KernelRunner) -> None:
    """The round trip into a parked run and back, which trains nothing, run by run."""
    held = list(runner.runs.values())
    gc.collect()
    before = memory.allocated_bytes()
    trips = []
    for i in range(50 * len(held)):
        run = held[i % len(held)].run
        started = time.perf_counter()
        run.advance(run.step)
        trips.append(time.perf_counter() - started)
    report.row(f"hand-over, median of {len(trips)}", statistics.median(trips) * 1000, "ms")
    report.row("device memory more after them", float(memory.allocated_bytes() - before), "bytes")


def measure_sharing(report: Report) -> None:
    """Peak memory of 8 LoRA runs against base + 8 x (adapter + optimizer) + one run's activations."""
    rows = _rows(64, 120)
    peaks, bases, owns = {}, {}, {}
    for count in (1, 8):
        with tempfile.TemporaryDirectory() as folder:
            engine, runner = engine_over(
                Path(folder),
                _base(),
                rows,
                lambda objects, count=count: [
                    _run_config("SFT", objects, seed=seed, max_steps=4) for seed in range(count)
                ],
                num_chunks=8,
            )
            memory.collect()
            bases[count] = memory.allocated_bytes()
            peak = 0
            while not isinstance(engine.turn(), Idle):
                peak = max(peak, memory.peak_bytes() or 0)
                if len(runner.runs) == count:
                    owns[count] = max(
                        memory.own_bytes(one.run.trainer) for one in runner.runs.values()
                    )
            peaks[count] = peak
            runner.close()
            del engine, runner
            memory.collect()
    if not ON_GPU:
        report.row("measured on a GPU only", 0.0, "")
        return
    activations = peaks[1] - bases[1] - owns[1]
    expected = bases[8] + 8 * owns[8] + activations
    report.conditions = {"rank": _LORA["r"], "examples": 2, "max_length": 256}
    report.row("base", bases[8] / 2**20, "MiB")
    report.row("adapter and optimizer of a run", owns[8] / 2**20, "MiB")
    report.row("activations of a run", activations / 2**20, "MiB")
    report.row("base + 8 x (adapter + optimizer) + activations", expected / 2**20, "MiB")
    report.row("peak of 8 runs", peaks[8] / 2**20, "MiB")
    report.row("ratio", peaks[8] / expected, "x")


def measure_quantised(report: Report) -> None:
    """SFT and DPO over a base that bitsandbytes holds in 4 and in 8 bits, against plain TRL alone."""
    rows = _rows(64, 60)
    names = ("SFT", "DPO")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        _base().save_pretrained(folder / "base")
        memory.collect()
        for how in ("load_in_4bit", "load_in_8bit"):

            def load(how: str = how) -> Any:
                config = {"quant_method": "bitsandbytes", how: True}
                return LlamaForCausalLM.from_pretrained(folder / "base", quantization_config=config)

            plain = {name: _plain(name, rows, folder / "plain", load()) for name in names}
            memory.collect()
            base = load()
            resident = memory.allocated_bytes()
            engine, runner = engine_over(
                folder / how,
                base,
                rows,
                lambda objects: [_run_config(name, objects) for name in names],
                num_chunks=4,
                runner_class=_Watched,
            )
            del base
            while len(runner.runs) < len(names):
                engine.turn()
            own = sum(memory.own_bytes(held.trainer) for held in runner.runs.values())
            beyond = memory.allocated_bytes() - resident - own
            while not isinstance(engine.turn(), Idle):
                pass
            for run_id, name in enumerate(names, start=1):
                _compare(report, f"{name} {how}", engine, runner, run_id, plain[name])
            report.row(f"{how}: base", resident / 2**20, "MiB")
            report.row(
                f"{how}: two parked runs beyond base, adapters and optimizers",
                beyond / 2**20,
                "MiB",
            )
            runner.close()
            del engine, runner
            memory.collect()
