"""How much faster do configs train in joint steps than one after another in plain TRL?

Llama-shaped models with random weights; every row has the same number of tokens. Plain TRL and joint steps are timed in
one process, on one resident base model, over the same rows.
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback
from trl import SFTConfig, SFTTrainer

from benchmarks.report import Report
from rf_notebook.automl.concrete import build_run_config
from rf_notebook.automl.configs import TRAINING_CONFIGS, RFLoraConfig, RFModelConfig
from rf_notebook.automl.encoding import Objects
from rf_notebook.core.events import RunAdded
from rf_notebook.core.state import ExperimentState
from rf_notebook.engine.loop import Engine
from rf_notebook.planning.fusion import Execution
from rf_notebook.planning.scheduler import Idle
from rf_notebook.store.lease import this_process
from rf_notebook.store.memory import MemoryStore
from rf_notebook.testing.tiny import tiny_tokenizer
from rf_notebook.training import memory
from rf_notebook.training.base_models import tree_clone
from rf_notebook.training.datasets import ExperimentData
from rf_notebook.training.fused.compiled import CompiledLayers
from rf_notebook.training.runner import KernelRunner

_ON_GPU = torch.cuda.is_available()
_DEVICE = "cuda" if _ON_GPU else "cpu"
#: Floating point operations a second that an H200 does in bfloat16 without sparsity, as its data sheet says.
_PEAK_FLOPS = 989e12
_LORA = {"r": 16, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj"]}
_VOCABULARY = 32000 if _ON_GPU else 512


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


def base_model() -> Any:
    """1.1 billion random weights in bfloat16 on a GPU; a few million in float32 elsewhere."""
    size = (
        {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32}
        if _ON_GPU
        else {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 8}
    )
    config = LlamaConfig(
        **size,
        num_key_value_heads=4,
        vocab_size=_VOCABULARY,
        max_position_embeddings=2048,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
        attn_implementation="sdpa",
    )
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[0] if _ON_GPU else []), torch.device(_DEVICE):
        torch.manual_seed(0)
        torch.set_default_dtype(torch.bfloat16 if _ON_GPU else torch.float32)
        try:
            model = LlamaForCausalLM(config)
        finally:
            torch.set_default_dtype(before)
    model.config._name_or_path = "bench"
    return model


def rows_of(length: int, count: int = 1024) -> datasets.Dataset:
    """Rows of random tokens, all of this length."""
    rng = random.Random(1)
    rows = [rng.choices(range(3, 500), k=length) for _ in range(count)]
    return datasets.Dataset.from_dict({"input_ids": rows, "labels": rows})


def arguments(shape: Shape, steps: int, **more: Any) -> dict[str, Any]:
    """Of SFTConfig, as a user writes them: everything else is trl's default, gradient checkpointing included."""
    return {
        "per_device_train_batch_size": shape.batch,
        "max_length": shape.length,
        "max_steps": steps,
        "learning_rate": 2e-4,
        "logging_steps": 10,
        "bf16": _ON_GPU,
        "seed": 1,
        **more,
    }


def synchronize() -> None:
    """Wait for the GPU."""
    if _ON_GPU:
        torch.cuda.synchronize()


class _Clock(TrainerCallback):
    """Notes when steps end, the device's work included."""

    def __init__(self, warm_up: int) -> None:
        self._warm_up = warm_up
        self.began = self.ended = 0.0
        self.steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self._warm_up:
            synchronize()
            self.began = time.perf_counter()
        elif state.global_step == state.max_steps:
            synchronize()
            self.ended = time.perf_counter()
            self.steps = state.global_step - self._warm_up


def plain_seconds(base: Any, rows: Any, shape: Shape, *, steps: int, warm_up: int, **more: Any) -> float:
    """Seconds of one step of one config in plain TRL, the model kept loaded."""
    clock = _Clock(warm_up)
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=tree_clone(base),
            args=SFTConfig(
                output_dir=folder,
                report_to="none",
                disable_tqdm=True,
                save_strategy="no",
                **arguments(shape, steps, **more),
            ),
            train_dataset=rows,
            processing_class=tiny_tokenizer(),
            peft_config=LoraConfig(task_type="CAUSAL_LM", **_LORA),
            callbacks=[clock],
        )
        for callback in list(trainer.callback_handler.callbacks):
            if type(callback).__name__ == "PrinterCallback":
                trainer.remove_callback(callback)
        if os.environ.get("RF_BENCH_PROFILE_PLAIN"):
            import cProfile
            import pstats

            profile = cProfile.Profile()
            profile.runcall(trainer.train)
            with Path(os.environ["RF_BENCH_PROFILE_PLAIN"]).open("w") as file:
                pstats.Stats(profile, stream=file).sort_stats("tottime").print_stats(40)
        else:
            trainer.train()
        del trainer
    memory.collect()
    return (clock.ended - clock.began) / clock.steps


@contextmanager
def engine_of(
    base: Any, rows: Any, shape: Shape, *, steps: int, execution: Execution, **more: Any
) -> Iterator[tuple[Engine, KernelRunner]]:
    """An engine with the configs of a shape, which differ in learning rate and seed, in one chunk."""
    objects = Objects()
    with tempfile.TemporaryDirectory() as folder:
        runner = KernelRunner(
            Path(folder), ExperimentData(rows, None), objects, lambda _config: (base, tiny_tokenizer()), num_chunks=1
        )
        store = MemoryStore()
        engine = Engine(store, runner, ExperimentState(), fence=store.acquire(this_process()), execution=execution)
        configs = []
        for i in range(shape.configs):
            own = arguments(shape, steps, **more) | {"learning_rate": 1e-4 * (i + 1), "seed": i + 1}
            fields = RFModelConfig(
                model_name="bench",
                peft_config=RFLoraConfig(**_LORA),
                training_args=TRAINING_CONFIGS["SFT"](**own),
            ).given()
            configs.append(build_run_config(fields, "SFT", objects, seed=0))
        engine.commit([RunAdded(run_id=i, config=config) for i, config in enumerate(configs, start=1)])
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
    on_step: Callable[[int], None] = lambda _step: None,
    **more: Any,
) -> float:
    """Seconds of one step of all configs together."""
    last = shape.configs
    times: dict[int, float] = {}

    def listen(run_id: int, progress: Any, point: Any) -> None:
        if run_id == last and point is None:
            on_step(progress.steps)
            if progress.steps in (warm_up, steps):
                synchronize()
                times[progress.steps] = time.perf_counter()

    with engine_of(base, rows, shape, steps=steps, execution=execution, **more) as (engine, runner):
        runner.listener = listen
        while not isinstance(engine.turn(), Idle):
            pass
        failed = [record.failure.message for record in engine.state.runs.values() if record.failure is not None]
        if failed:
            raise RuntimeError(failed[0])
    return (times[steps] - times[warm_up]) / (steps - warm_up)


def measure_speed(report: Report) -> None:
    """Steps of all configs: plain TRL one by one, and joint."""
    steps = int(os.environ.get("RF_BENCH_STEPS", "24"))
    warm_up = steps // 3
    base = base_model()
    weights = sum(p.numel() for p in base.parameters())
    with _profiled(os.environ.get("RF_BENCH_PROFILE")) as on_step:
        for shape, (must, aim) in (TARGETS if _ON_GPU else _SMALL).items():
            rows = rows_of(shape.length)
            before = plain_seconds(base, rows, shape, steps=steps, warm_up=warm_up)
            joint = joint_seconds(base, rows, shape, steps=steps, warm_up=warm_up, on_step=on_step)
            after = plain_seconds(base, rows, shape, steps=steps, warm_up=warm_up)
            plain = statistics.mean([before, after]) * shape.configs
            report.row(f"{shape}: plain TRL, one config after another", plain * 1000, "ms a step of all")
            report.row(f"{shape}: joint steps", joint * 1000, "ms a step of all")
            report.row(f"{shape}: faster by", plain / joint, f"x (must {must:g}, aim {aim:g})")
            report.row(f"{shape}: tokens a second", shape.tokens / joint, "1/s")
            if _ON_GPU:
                CompiledLayers.after = 2
                began = time.perf_counter()
                compiled = joint_seconds(base, rows, shape, steps=steps, warm_up=warm_up)
                report.row(f"{shape}: compiled, whole time", time.perf_counter() - began, "s")
                report.row(f"{shape}: compiled", compiled * 1000, "ms a step of all")
                report.row(f"{shape}: compiled, tokens a second", shape.tokens / compiled, "1/s")
                CompiledLayers.after = None
            if _ON_GPU:
                report.row(
                    f"{shape}: model flops used", 4 * weights * shape.tokens / joint / _PEAK_FLOPS, "of the peak"
                )
    report.conditions = {
        "weights": weights,
        "dtype": "bfloat16" if _ON_GPU else "float32",
        "adapter": str(_LORA),
        "steps timed": steps - warm_up,
        "plain TRL": "trl's defaults; two trainers timed, before and after, times the number of configs",
    }


@contextmanager
def _profiled(folder: str | None) -> Iterator[Callable[[int], None]]:
    """Writes a profile of a few steps into a folder, if one is given."""
    if folder is None:
        yield lambda _step: None
        return
    import cProfile
    import pstats

    profile = cProfile.Profile()
    count = 0

    def on_step(step: int) -> None:
        nonlocal count, profile
        if step == 12:
            profile = cProfile.Profile()
            profile.enable()
        if step == 16:
            profile.disable()
            count += 1
            with (Path(folder) / f"profile{count}.txt").open("w") as file:
                stats = pstats.Stats(profile, stream=file)
                stats.sort_stats("cumulative").print_stats(70)
                stats.sort_stats("tottime").print_stats(50)

    yield on_step
