"""How much faster do GRPO configs train when their runs write together?

A step of all configs, against plain trl one config after another, the model kept loaded; and an
evaluation of SFT configs by texts that they write. Random weights end no answer early, so every
answer has all its tokens.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch

from benchmarks.common import (
    DEVICE,
    ON_GPU,
    engine_over,
    llama,
    plain_step_seconds,
    plain_trainer,
    quiet,
    synchronize,
    timed,
)
from benchmarks.report import Report
from rf_notebook.automl.adapter_configs import RFLoraConfig
from rf_notebook.automl.concrete import build_run_config
from rf_notebook.automl.configs import RFModelConfig
from rf_notebook.automl.library_configs import RFGRPOConfig, RFSFTConfig
from rf_notebook.core.foreground import only_waiting
from rf_notebook.core.objects import Objects
from rf_notebook.core.run import RunConfig
from rf_notebook.engine.turns import Idle
from rf_notebook.planning.fusion import Execution
from rf_notebook.testing.tiny import _WORDS, tiny_tokenizer
from rf_notebook.training import memory
from rf_notebook.training.fused.joint_turns import JointTurns

WARM_UP, STEPS = 2, 6
PROMPT = 96 if ON_GPU else 12
_LORA: dict[str, Any] = {
    "r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.0,
    "target_modules": "all-linear",
}
#: Of evaluations: answers of each run, and how many of them the baseline writes at once.
ANSWERS = 64 if ON_GPU else 8


def reward(completions: list[str], **_columns: Any) -> list[float]:
    """One that costs nothing."""
    return [sum(map(ord, text)) % 17 / 17 for text in completions]


def _texts(count: int, seed: int = 3) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(_WORDS, k=rng.randint(PROMPT // 2, PROMPT))) for _ in range(count)]


def _arguments(new: int, seed: int) -> dict[str, Any]:
    return {
        "per_device_train_batch_size": 8,
        "num_generations": 8,
        "max_completion_length": new,
        "learning_rate": 1e-5,
        "max_steps": STEPS,
        "logging_steps": 1,
        "bf16": ON_GPU,
        "use_cpu": not ON_GPU,
        "seed": seed,
    }


_plain: dict[int, float] = {}


def _plain_seconds(base: Any, rows: Any, new: int) -> float:
    """Of a step of one config, without gradient checkpointing, the faster of two.

    Measured once for cases of equally many tokens.
    """
    arguments = _arguments(new, 1) | {"gradient_checkpointing": False}
    _plain[new] = _plain.get(new) or min(
        plain_step_seconds(
            base, rows, arguments, _LORA, warm_up=WARM_UP, method="GRPO", reward_funcs=reward
        )
        for _ in range(2)
    )
    return _plain[new]


def _joint_seconds(base: Any, rows: Any, count: int, new: int) -> float:
    """Of a step of all configs."""

    def configs(objects: Objects) -> Sequence[RunConfig]:
        made = [
            RFModelConfig(
                model_name="bench",
                peft_config=RFLoraConfig(**_LORA),
                training_args=RFGRPOConfig(**_arguments(new, seed)),
                reward_funcs=reward,
            )
            for seed in range(1, count + 1)
        ]
        return [build_run_config(one.given(), "GRPO", objects, seed=0) for one in made]

    times: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        engine, runner = engine_over(
            Path(folder), base, rows, configs, num_chunks=1, execution=Execution.FUSED
        )

        def listen(run_id: int, progress: Any, point: Any) -> None:
            if run_id == count and point is None:
                synchronize()
                times.setdefault(progress.steps, time.perf_counter())

        runner.listener = listen
        _finish(engine)
        runner.close()
    memory.collect()
    return (times[STEPS] - times[WARM_UP]) / (STEPS - WARM_UP)


def _finish(engine: Any) -> None:
    with only_waiting():
        while not isinstance(engine.turn(), Idle):
            pass
    failed = [one.failure.message for one in engine.state.runs.values() if one.failure is not None]
    if failed:
        raise RuntimeError(failed[0])


def _steps(report: Report, base: Any, count: int, new: int, must: float) -> None:
    rows = datasets.Dataset.from_dict({"prompt": _texts(64)})
    name = f"{count} configs x 8 x {new} tokens"
    joint = _joint_seconds(base, rows, count, new)
    plain = _plain_seconds(base, rows, new) * count
    report.row(f"{name}: joint", joint, "s a step of all")
    report.row(f"{name}: tokens written a second, whole steps", count * 8 * new / joint, "1/s")
    report.row(f"{name}: plain trl", plain, "s a step of all")
    report.row(f"{name}: against plain trl", plain / joint, f"x (must {must:g})")


def _equal_tokens(report: Report, base: Any, count: int, new: int) -> None:
    """How many tokens are those that plain trl writes, and how many after another padding alone."""
    rows = datasets.Dataset.from_dict({"prompt": _texts(64)})
    plain = _written(base, rows, count, new, Execution.EXACT)
    ways = {
        "joint": _written(base, rows, count, new, Execution.FUSED),
        "plain trl, prompts padded to a multiple of 64": _written(
            base, rows, count, new, Execution.EXACT, pad_to_multiple_of=64
        ),
    }
    total = sum(map(len, plain))
    for name, written in ways.items():
        pairs = list(zip(plain, written, strict=True))
        same = sum(a == b for one, other in pairs for a, b in zip(one, other, strict=False))
        whole = sum(one == other for one, other in pairs) / len(pairs)
        of = f"{count} configs x 8 x {new} sampled tokens: those of plain trl, {name}"
        report.row(of, 100 * same / total, "%")
        report.row(f"{of}, whole answers", 100 * whole, "%")


def _written(
    base: Any, rows: Any, count: int, new: int, execution: Execution, **more: Any
) -> list[list[int]]:
    """The tokens of all answers of the first step, of configs whose adapters do something."""
    written: dict[int, list[list[int]]] = {}

    def kept(seed: int) -> Callable[..., list[float]]:
        def keep(completions: list[str], completion_ids: Any, **columns: Any) -> list[float]:
            written[seed] = [list(map(int, ids)) for ids in completion_ids]
            return reward(completions, **columns)

        return keep

    def configs(objects: Objects) -> Sequence[RunConfig]:
        made = [
            RFModelConfig(
                model_name="bench",
                peft_config=RFLoraConfig(**_LORA, init_lora_weights=False),
                training_args=RFGRPOConfig(**_arguments(new, seed) | {"max_steps": 1} | more),
                reward_funcs=kept(seed),
            )
            for seed in range(1, count + 1)
        ]
        return [build_run_config(one.given(), "GRPO", objects, seed=0) for one in made]

    with tempfile.TemporaryDirectory() as folder:
        engine, runner = engine_over(
            Path(folder), base, rows, configs, num_chunks=1, execution=execution
        )
        _finish(engine)
        runner.close()
    memory.collect()
    return [ids for seed in sorted(written) for ids in written[seed]]


def _evaluations(report: Report, base: Any, new: int) -> None:
    """Eight SFT configs judged by what they write, against each by itself."""
    count, settings = 8, {"max_new_tokens": new, "do_sample": False}
    prompts, answers = _texts(ANSWERS), _texts(ANSWERS, 4)
    held_out = datasets.Dataset.from_dict(
        {"prompt": prompts, "completion": [f" {answer}" for answer in answers]}
    )
    arguments = {
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": ANSWERS,
        "max_steps": 1,
        "bf16": ON_GPU,
        "use_cpu": not ON_GPU,
    }

    def configs(objects: Objects) -> Sequence[RunConfig]:
        made = [
            RFModelConfig(
                model_name="bench",
                peft_config=RFLoraConfig(**_LORA),
                training_args=RFSFTConfig(**arguments, seed=seed),
                compute_metrics=lengths,
                generation_config=settings,
            )
            for seed in range(1, count + 1)
        ]
        return [build_run_config(one.given(), "SFT", objects, seed=0) for one in made]

    spent: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, timed(JointTurns, "_evaluate", spent, "all"):
        engine, runner = engine_over(
            Path(folder),
            base,
            held_out,
            configs,
            num_chunks=1,
            execution=Execution.FUSED,
            held_out=held_out,
        )
        _finish(engine)
        runner.close()
    memory.collect()
    plain = count * _plain_evaluation(base, held_out, prompts, arguments, settings)
    name = f"evaluation of {count} SFT configs by {ANSWERS} answers of {new} tokens"
    report.row(f"{name}: joint", spent["all"], "s")
    report.row(f"{name}: each by itself, its answers at once", plain, "s")
    report.row(f"{name}: against that", plain / spent["all"], "x (must 4)")


def lengths(texts: tuple[list[str], list[str]]) -> dict[str, float]:
    """A metric that costs nothing."""
    predictions, references = texts
    pairs = zip(predictions, references, strict=True)
    return {"shorter": sum(len(one) < len(other) for one, other in pairs) / len(references)}


def _plain_evaluation(
    base: Any, held_out: Any, prompts: Sequence[str], arguments: Any, settings: Any
) -> float:
    """Seconds of trl's evaluation of one config and of its answers; the second of two."""
    tokenizer = tiny_tokenizer()
    with tempfile.TemporaryDirectory() as folder:
        trainer = plain_trainer(base, held_out, arguments, _LORA, folder)
        given = tokenizer(list(prompts), return_tensors="pt", padding=True, padding_side="left")
        seconds = 0.0
        for _ in range(2):
            synchronize()
            began = time.perf_counter()
            quiet(trainer).evaluate(held_out)
            with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16, enabled=ON_GPU):
                trainer.model.generate(**given.to(DEVICE), **settings)
            synchronize()
            seconds = time.perf_counter() - began
    memory.collect()
    return seconds


_NEW = (128, 256) if ON_GPU else (8, 12)
_CASES: dict[str, Callable[[Report, Any], None]] = {
    "4 configs": lambda report, base: _steps(report, base, 4, _NEW[0], 10),
    "8 configs": lambda report, base: _steps(report, base, 8, _NEW[1], 12),
    "lone": lambda report, base: _steps(report, base, 1, _NEW[1], 3),
    "equal tokens": lambda report, base: _equal_tokens(report, base, 4, _NEW[0]),
    "evaluation": lambda report, base: _evaluations(report, base, _NEW[0]),
}


def measure(report: Report) -> None:
    """All cases, or those that RF_BENCH_ONLY names."""
    base = llama()
    only = tuple(os.environ.get("RF_BENCH_ONLY", "").split(","))
    for name, case in _CASES.items():
        if name.startswith(only):
            case(report, base)
    report.conditions = {
        "prompts": f"{PROMPT // 2} to {PROMPT} words; 8 answers to each",
        "adapter": "all linear layers, rank 16",
        "steps timed": STEPS - WARM_UP,
        "plain trl": "without gradient checkpointing; one config timed twice, the faster, times "
        "the configs",
    }
