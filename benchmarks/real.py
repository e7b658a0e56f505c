"""How much faster do configs train in joint steps on what people have?

Rows of uneven length whose completions are labelled, adapters of all linear layers, ranks 8 to 64,
dropout, several batches a step. Against trl twice: with its defaults (B0), and as somebody who knows
trl would run it, without gradient checkpointing (B1); B2 compiles that.

``RF_BENCH_ONLY="1.1B,knobs"`` measures only the cases that begin so; each has a budget of minutes.
"""

from __future__ import annotations

import math
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import LoraConfig
from transformers import LlamaConfig, Qwen3Config
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from benchmarks.common import (
    DEVICE,
    LARGE,
    ON_GPU,
    SMALL,
    Clock,
    engine_over,
    model_of,
    quiet,
    synchronize,
)
from benchmarks.report import Report
from rf_notebook.automl.concrete import build_run_config
from rf_notebook.automl.configs import TRAINING_CONFIGS, RFLoraConfig, RFModelConfig
from rf_notebook.core.foreground import only_waiting
from rf_notebook.core.objects import Objects
from rf_notebook.core.run import RunConfig
from rf_notebook.planning.fusion import Execution
from rf_notebook.planning.scheduler import Idle
from rf_notebook.testing.tiny import _WORDS, tiny_tokenizer
from rf_notebook.training import memory
from rf_notebook.training.active_run import ActiveRun
from rf_notebook.training.base_models import tree_clone
from rf_notebook.training.fused.compiled import CompiledLayers
from rf_notebook.training.fused.group import FusedGroup
from rf_notebook.training.fused.joint_turns import JointTurns

#: Of the log-normal distribution of row lengths, and where it is cut.
_MEDIAN, _SIGMA, _SHORTEST, _LONGEST = (220, 0.7, 16, 1024) if ON_GPU else (40, 0.7, 6, 128)
#: The share of a row that is its prompt.
_PROMPT = 0.35
_STEPS, _WARM_UP = (24, 4) if ON_GPU else (6, 2)


@dataclass(frozen=True, slots=True)
class Knobs:
    """Of one config."""

    rank: int = 16
    dropout: float = 0.0
    batch: int = 4
    accumulation: int = 2
    learning_rate: float = 2e-4
    method: str = "SFT"


def searched(count: int, **same: Any) -> list[Knobs]:
    """Configs as a search makes them: four ranks, learning rates over two decades."""
    return [
        replace(
            Knobs(**same),
            rank=(8, 16, 32, 64)[i % 4],
            learning_rate=10 ** (-5 + 2 * i / max(1, count - 1)),
        )
        for i in range(count)
    ]


def base_of(name: str) -> Any:
    """A base model with random weights, on the device; smaller ones on a CPU."""
    torch.manual_seed(0)
    if name == "qwen3-0.6B":
        sizes = {
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
        }
        small = SMALL | {"num_key_value_heads": 4, "head_dim": 32, "vocab_size": 2048}
        return model_of(Qwen3Config(**(sizes if ON_GPU else small), tie_word_embeddings=True))
    if name == "8B" and ON_GPU:
        sizes = {
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 128256,
        }
        return model_of(LlamaConfig(**sizes))
    return model_of(
        LlamaConfig(
            **(LARGE if ON_GPU else SMALL),
            num_key_value_heads=4,
            vocab_size=32000 if ON_GPU else 512,
        )
    )


def lengths_of(count: int, seed: int = 1) -> list[int]:
    """Tokens of rows."""
    rng = random.Random(seed)
    drawn = (rng.lognormvariate(math.log(_MEDIAN), _SIGMA) for _ in range(count))
    return [max(_SHORTEST, min(_LONGEST, int(one))) for one in drawn]


def sft_rows(count: int = 2000, seed: int = 1) -> datasets.Dataset:
    """Prompts with completions, tokenized; the completion alone is labelled."""
    rng = random.Random(seed)
    rows = [rng.choices(range(3, 500), k=length) for length in lengths_of(count, seed)]
    labels = [[-100] * int(len(row) * _PROMPT) + row[int(len(row) * _PROMPT) :] for row in rows]
    return datasets.Dataset.from_dict({"input_ids": rows, "labels": labels})


def dpo_rows(count: int = 500, seed: int = 1) -> datasets.Dataset:
    """Prompts with a chosen and a rejected completion, about as long; a word is a token."""
    rng = random.Random(seed)

    def words(count: int) -> str:
        return "".join(f" {word}" for word in rng.choices(_WORDS, k=max(1, count)))

    made: dict[str, list[str]] = {"prompt": [], "chosen": [], "rejected": []}
    for length, other in zip(lengths_of(count, seed), lengths_of(count, seed + 1), strict=True):
        prompt = int(length * _PROMPT)
        made["prompt"].append(words(prompt))
        made["chosen"].append(words(length - prompt - 1))
        made["rejected"].append(words(min(other, _LONGEST - prompt - 1)))
    return datasets.Dataset.from_dict(made)


def arguments(knobs: Knobs, **more: Any) -> dict[str, Any]:
    """Of trl's config, as a user writes them; everything else is its default."""
    return {
        "per_device_train_batch_size": knobs.batch,
        "gradient_accumulation_steps": knobs.accumulation,
        "learning_rate": knobs.learning_rate,
        "max_length": _LONGEST,
        "max_steps": _STEPS,
        "logging_steps": 10,
        "bf16": ON_GPU,
        "use_cpu": not ON_GPU,
        "seed": 1,
        **more,
    }


def _lora(knobs: Knobs) -> dict[str, Any]:
    return {
        "r": knobs.rank,
        "lora_alpha": 2 * knobs.rank,
        "lora_dropout": knobs.dropout,
        "target_modules": "all-linear",
    }


def plain_seconds(base: Any, rows: Any, knobs: Knobs, **more: Any) -> float:
    """Seconds of one step of one config in plain trl, the model kept loaded."""
    clock = Clock(_WARM_UP)
    config, trainer_class = {"SFT": (SFTConfig, SFTTrainer), "DPO": (DPOConfig, DPOTrainer)}[
        knobs.method
    ]
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_class(
            model=tree_clone(base),
            args=config(
                output_dir=folder,
                report_to="none",
                disable_tqdm=True,
                save_strategy="no",
                **arguments(knobs, **more),
            ),
            train_dataset=rows,
            processing_class=tiny_tokenizer(),
            peft_config=LoraConfig(task_type="CAUSAL_LM", **_lora(knobs)),
            callbacks=[clock],
        )
        quiet(trainer).train()
        del trainer
    memory.collect()
    return (clock.ended - clock.began) / clock.steps


def plain_of_all(base: Any, rows: Any, configs: Sequence[Knobs], **more: Any) -> float:
    """Seconds of one step of all configs, one after another, the faster of two.

    Configs that differ in their learning rate alone take equally long: one of them is timed.
    """
    known: dict[Knobs, float] = {}
    for knobs in configs:
        key = replace(knobs, learning_rate=0.0)
        if key not in known:
            known[key] = min(plain_seconds(base, rows, knobs, **more) for _ in range(2))
    return sum(known[replace(knobs, learning_rate=0.0)] for knobs in configs)


@dataclass(frozen=True, slots=True)
class Joint:
    """What was seen of joint steps."""

    seconds: float
    """Of one step of all configs."""
    warming_up: float
    """Until the steps that are timed: data, adapters, compiling."""
    own: float
    """Of the configs' own code a micro-step and config."""
    peak_gib: float
    parts: str
    """Why some did not train jointly; empty when all did."""


def joint(
    base: Any,
    rows: Any,
    configs: Sequence[Knobs],
    *,
    execution: Execution = Execution.FUSED,
    compiled: bool = False,
    **more: Any,
) -> Joint:
    """Time the steps of all configs together."""
    times: dict[int, tuple[float, float, int]] = {}
    last = len(configs)

    def made(objects: Objects) -> list[RunConfig]:
        found = []
        for seed, knobs in enumerate(configs, start=1):
            fields = RFModelConfig(
                model_name="bench",
                peft_config=RFLoraConfig(**_lora(knobs)),
                training_args=TRAINING_CONFIGS[knobs.method](**arguments(knobs, seed=seed, **more)),
            ).given()
            found.append(build_run_config(fields, knobs.method, objects, seed=0))
        return found

    CompiledLayers.always_after = 0 if compiled else 10**9
    began = time.perf_counter()
    memory.collect()
    memory.reset_peak()
    with tempfile.TemporaryDirectory() as folder:
        engine, runner = engine_over(
            Path(folder), base, rows, made, num_chunks=1, execution=execution
        )

        def listen(run_id: int, progress: Any, point: Any) -> None:
            if run_id == last and point is None and progress.steps in (_WARM_UP, _STEPS):
                synchronize()
                models = runner.joint_turns.models.values()
                counts = next(iter(models)).counts if models else None
                own = (counts.own_seconds, counts.requests) if counts else (0.0, 0)
                times[progress.steps] = (time.perf_counter(), *own)

        runner.listener = listen
        try:
            with only_waiting():  # as a notebook in which no other cell is at work
                while not isinstance(engine.turn(), Idle):
                    pass
            records = engine.state.runs.values()
            failed = [one.failure.message for one in records if one.failure is not None]
            if failed:
                raise RuntimeError(failed[0])
            alone = {one.alone_because for one in records if one.alone_because}
        finally:
            runner.close()
            CompiledLayers.always_after = None
    peak = (memory.peak_bytes() or 0) / 2**30
    memory.collect()
    (first, own, asked), (end, own_end, asked_end) = times[_WARM_UP], times[_STEPS]
    return Joint(
        (end - first) / (_STEPS - _WARM_UP),
        first - began,
        (own_end - own) / max(1, asked_end - asked),
        peak,
        "; ".join(sorted(map(str, alone))),
    )


def _tokens(rows: Any, configs: Sequence[Knobs]) -> float:
    """Of one step of all configs, on average."""
    mean = statistics.mean(map(len, rows["input_ids"]))
    return mean * sum(one.batch * one.accumulation for one in configs)


def _tell(report: Report, name: str, found: Joint, tokens: float | None) -> None:
    report.row(f"{name}", found.seconds * 1000, "ms a step of all")
    if tokens is not None:
        report.row(f"{name}, tokens a second", tokens / found.seconds, "1/s")
    report.row(f"{name}, own code of a config and micro-step", found.own * 1000, "ms (must 1.2)")
    report.row(f"{name}, before the steps that are timed", found.warming_up, "s")
    report.row(f"{name}, peak memory", found.peak_gib, "GiB")
    if found.parts:
        report.row(f"{name}, not joint", found.parts)


def compare(
    report: Report,
    name: str,
    base: Any,
    rows: Any,
    configs: Sequence[Knobs],
    musts: tuple[float, float],
) -> None:
    """One row of the table: joint steps, eager and compiled, against B1 and B0."""
    tokens = _tokens(rows, configs) if "input_ids" in rows.column_names else None
    eager = joint(base, rows, configs)
    _tell(report, f"{name}: joint", eager, tokens)
    ways = [("joint", eager)]
    if ON_GPU:
        compiled = joint(base, rows, configs, compiled=True)
        _tell(report, f"{name}: joint, compiled", compiled, tokens)
        ways.append(("joint, compiled", compiled))
    tuned = plain_of_all(base, rows, configs, gradient_checkpointing=False)
    report.row(f"{name}: B1", tuned * 1000, "ms a step of all")
    default = plain_of_all(base, rows, configs)
    report.row(f"{name}: B0", default * 1000, "ms a step of all")
    for way, found in ways:
        report.row(f"{name}: {way} against B1", tuned / found.seconds, f"x (must {musts[0]:g})")
        report.row(f"{name}: {way} against B0", default / found.seconds, f"x (must {musts[1]:g})")
    if ON_GPU and os.environ.get("RF_BENCH_B2"):
        best = plain_of_all(base, rows, configs, gradient_checkpointing=False, torch_compile=True)
        report.row(f"{name}: B2", best * 1000, "ms a step of all")


# ---- the cases


def _llama(report: Report) -> None:
    compare(report, "1.1B x 8", base_of("1.1B"), sft_rows(), searched(8), (4, 8))


def _qwen(report: Report) -> None:
    compare(
        report, "Qwen3-0.6B's shape x 8", base_of("qwen3-0.6B"), sft_rows(), searched(8), (4, 9)
    )


def _eight(report: Report) -> None:
    compare(report, "8B x 4", base_of("8B"), sft_rows(), searched(4), (2.5, 4))


def _dpo(report: Report) -> None:
    configs = searched(8, method="DPO", batch=2)
    compare(report, "DPO, 1.1B x 8", base_of("1.1B"), dpo_rows(), configs, (4, 4))


def _lone(report: Report) -> None:
    compare(report, "a lone run", base_of("1.1B"), sft_rows(), [Knobs(batch=1)], (1.4, 1.4))


def _knobs(report: Report) -> None:
    """What unequal configs cost against equal ones on the same rows."""
    base, rows = base_of("1.1B"), sft_rows()
    same = [Knobs(learning_rate=1e-4 * (i + 1)) for i in range(8)]
    equal = joint(base, rows, same).seconds
    report.row("8 configs, all rank 16", equal * 1000, "ms a step of all")
    others = {
        "ranks 8, 16, 32, 64": (searched(8), 1.15),
        "dropout 0.05": ([replace(one, dropout=0.05) for one in same], 1.25),
    }
    for name, (configs, must) in others.items():
        found = joint(base, rows, configs).seconds
        report.row(f"{name}", found * 1000, "ms a step of all")
        report.row(f"{name}: against rank 16 without dropout", found / equal, f"x (must {must})")
    mixed = [replace(one, batch=(1, 2, 4, 8)[i % 4]) for i, one in enumerate(same)]
    found = joint(base, rows, mixed).seconds
    rates = _tokens(rows, same) / equal, _tokens(rows, mixed) / found
    report.row("batches 1, 2, 4, 8", found * 1000, "ms a step of all")
    report.row("batch 4 against batches 1, 2, 4, 8, tokens/s", rates[0] / rates[1], "x (must 1.2)")


def _bases(report: Report) -> None:
    """Two base models in one experiment, a group each, against B1 of all."""
    bases = {name: base_of(name) for name in ("1.1B", "qwen3-0.6B")}
    rows, configs = sft_rows(), searched(4)
    together = sum(joint(base, rows, configs).seconds for base in bases.values())
    tuned = sum(
        plain_of_all(base, rows, configs, gradient_checkpointing=False) for base in bases.values()
    )
    report.row("2 bases x 4: joint, a group each", together * 1000, "ms a step of all")
    report.row("2 bases x 4: B1", tuned * 1000, "ms a step of all")
    report.row("2 bases x 4: joint against B1", tuned / together, "x (must 3)")


def _whole(report: Report) -> None:
    """A whole experiment with evaluations, checkpoints and samples, against a user's script."""
    count, num_chunks = (2000, 8) if ON_GPU else (64, 4)
    base, configs = base_of("1.1B"), searched(8)
    rows, held_out = sft_rows(count), sft_rows(count // 10, seed=2)
    for compiled in (False, True) if ON_GPU else (False,):
        seen = _experiment(base, rows, held_out, configs, num_chunks, compiled=compiled)
        name = "whole experiment, compiled" if compiled else "whole experiment"
        for what, seconds in seen.items():
            report.row(f"{name}: {what}", seconds, "s")
    script = _script_seconds(base, rows, held_out, configs[1], num_chunks) * len(configs)
    report.row("the same by a script, one warmed run times the configs", script, "s")
    report.row(f"{name}: against the script", script / seen["to its end"], "x (must 4.5)")
    first = script / seen["to the first comparison"]
    report.row(f"{name}: first comparison, against the script's end", first, "x (must 16)")


def _experiment(
    base: Any,
    rows: Any,
    held_out: Any,
    configs: Sequence[Knobs],
    num_chunks: int,
    *,
    compiled: bool,
) -> dict[str, float]:
    """Seconds to the first comparison and to the end, and what they were spent on."""
    spent: Counter[str] = Counter()

    def timed(owner: Any, name: str, what: str) -> Callable[[], None]:
        own = getattr(owner, name)

        def measured(*args: Any, **kwargs: Any) -> Any:
            synchronize()
            began = time.perf_counter()
            try:
                return own(*args, **kwargs)
            finally:
                synchronize()
                spent[what] += time.perf_counter() - began

        setattr(owner, name, measured)
        return lambda: setattr(owner, name, own)

    def made(objects: Objects) -> list[RunConfig]:
        found = []
        for seed, knobs in enumerate(configs, start=1):
            own = arguments(knobs, seed=seed, max_steps=-1, num_train_epochs=1)
            fields = RFModelConfig(
                model_name="bench",
                peft_config=RFLoraConfig(**_lora(knobs)),
                training_args=TRAINING_CONFIGS["SFT"](**own),
            ).given()
            found.append(build_run_config(fields, "SFT", objects, seed=0))
        return found

    undo = [
        timed(JointTurns, "_evaluate", "evaluation"),
        timed(ActiveRun, "_evaluate", "evaluation"),
        timed(ActiveRun, "_write_samples", "samples"),
        timed(ActiveRun, "_checkpoint", "saving"),
        timed(FusedGroup, "advance", "joint turns, joint evaluation included"),
    ]
    CompiledLayers.always_after = 0 if compiled else 10**9
    try:
        with tempfile.TemporaryDirectory() as folder:
            engine, runner = engine_over(
                Path(folder),
                base,
                rows,
                made,
                num_chunks=num_chunks,
                execution=Execution.FUSED,
                held_out=held_out,
                sample_prompts=("the fox", "a small dog", "blue", "then the river"),
            )
            began, first = time.perf_counter(), 0.0
            with only_waiting():
                while not isinstance(engine.turn(), Idle):
                    records = engine.state.runs.values()
                    if not first and all(one.progress.chunks for one in records):
                        first = time.perf_counter() - began
            whole = time.perf_counter() - began
            failed = [one.failure.message for one in records if one.failure is not None]
            if failed:
                raise RuntimeError(failed[0])
            (model,) = runner.joint_turns.models.values()
            spent["the configs' own code"] = model.counts.own_seconds
            runner.close()
    finally:
        CompiledLayers.always_after = None
        for one in undo:
            one()
        memory.collect()
    return {"to the first comparison": first, "to its end": whole, **spent}


def _script_seconds(base: Any, rows: Any, held_out: Any, knobs: Knobs, num_chunks: int) -> float:
    """Seconds of one config as a user writes it, the second time."""
    steps = len(rows) // (knobs.batch * knobs.accumulation)
    seconds = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            trainer = SFTTrainer(
                model=tree_clone(base),
                args=SFTConfig(
                    output_dir=folder,
                    report_to="none",
                    disable_tqdm=True,
                    eval_strategy="steps",
                    eval_steps=max(1, steps // num_chunks),
                    save_strategy="no",
                    gradient_checkpointing=False,
                    **arguments(knobs, max_steps=-1, num_train_epochs=1),
                ),
                train_dataset=rows,
                eval_dataset=held_out,
                processing_class=tiny_tokenizer(),
                peft_config=LoraConfig(task_type="CAUSAL_LM", **_lora(knobs)),
            )
            quiet(trainer).train()
            synchronize()
            seconds.append(time.perf_counter() - began)
            del trainer
        memory.collect()
    return seconds[-1]


_CASES: dict[str, Callable[[Report], None]] = {
    "1.1B": _llama,
    "qwen": _qwen,
    "8B": _eight,
    "dpo": _dpo,
    "knobs": _knobs,
    "lone": _lone,
    "bases": _bases,
    "whole": _whole,
}


def measure(report: Report) -> None:
    """All cases, or those that RF_BENCH_ONLY names."""
    only = tuple(os.environ.get("RF_BENCH_ONLY", "").split(","))
    for name, case in _CASES.items():
        if name.startswith(only):
            case(report)
            memory.collect()
    report.conditions = {
        "rows": f"tokens log-normal, median {_MEDIAN}, sigma {_SIGMA}, {_SHORTEST} to {_LONGEST}; "
        f"the last {1 - _PROMPT:.0%} labelled",
        "adapter": "all linear layers, ranks 8, 16, 32, 64",
        "steps timed": _STEPS - _WARM_UP,
        "batch": "4, accumulated over 2",
        "B0": "plain trl, its defaults (gradient checkpointing); each kind of config timed twice, "
        "the faster counts; the sum over the configs",
        "B1": "B0 without gradient checkpointing",
        "device": DEVICE,
    }
