"""Groups of configs of every kind that can train in joint steps, and engines over them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rf_notebook.automl.adapter_configs import RFLoraConfig
from rf_notebook.automl.concrete import build_run_config
from rf_notebook.automl.configs import RFModelConfig
from rf_notebook.automl.library_configs import TRAINING_CONFIGS
from rf_notebook.core.objects import Objects
from rf_notebook.core.run import RunConfig
from rf_notebook.engine.loop import Engine
from rf_notebook.planning.fusion import Execution
from rf_notebook.testing.tiny import preference_rows
from tests.exactness import harness
from tests.exactness.cases import ON_CPU, checksum

#: Methods whose steps let the model write.
GENERATE = ("GRPO", "RLOO")
ROWS = (preference_rows(16, 1), None)
_TARGETS: list[Any] = [
    ["q_proj", "v_proj"],
    ["k_proj"],
    ["gate_proj", "up_proj", "down_proj"],
    "all-linear",
]


def config(
    method: str,
    objects: Objects,
    *,
    adapter: dict[str, Any],
    training: dict[str, Any],
    **more: Any,
) -> RunConfig:
    """The config of a run, as a user would type it."""
    common: dict[str, Any] = {
        "use_cpu": ON_CPU,
        "logging_steps": 1,
        "bf16": False,
        "learning_rate": 1e-3,
        "num_train_epochs": 1,
    }
    generates = method in GENERATE
    if not generates:
        common["max_length"] = 64
    else:
        common |= {
            "num_generations": 4,
            "max_completion_length": 8,
            "per_device_train_batch_size": 4,
            "max_steps": 12,  # of 16 that an epoch has: to the second chunk
        }
    fields = RFModelConfig(
        model_name="tiny",
        peft_config=RFLoraConfig(
            **({"r": 8, "lora_alpha": 16, "target_modules": _TARGETS[0]} | adapter)
        ),
        training_args=TRAINING_CONFIGS[method](**(common | training)),
        **({"reward_funcs": [checksum] if generates else None} | more),
    ).given()
    return build_run_config(fields, method, objects, seed=0)


def mixed_group(
    seed: int, objects: Objects, *, packs: bool = False, **training: Any
) -> list[RunConfig]:
    """Six configs that differ in nearly everything, the same for the same seed.

    With ``packs`` some put several rows into one.
    """
    rng, packing = random.Random(seed), random.Random(f"packing {seed}")
    configs = []
    for number in range(6):
        method = "SFT" if number < 3 else rng.choice(["SFT", "SFT", "DPO", "GRPO"])
        adapter = {
            "r": rng.choice([2, 4, 8, 8]),
            "lora_alpha": rng.choice([4, 8, 16]),
            "lora_dropout": rng.choice([0.0, 0.05, 0.1, 0.3]),
            "use_rslora": rng.random() < 0.3,
            "target_modules": rng.choice(_TARGETS),
        }
        chosen: dict[str, Any] = {
            "learning_rate": rng.choice([1e-4, 5e-4, 1e-3]),
            "lr_scheduler_type": rng.choice(["linear", "cosine", "constant_with_warmup"]),
            "warmup_steps": rng.choice([0, 2]),
            "gradient_accumulation_steps": rng.choice([1, 1, 2, 3]),
            "optim": rng.choice(
                ["adamw_torch", "adamw_torch_fused", "adamw_torch_fused", "sgd", "adafactor"]
            ),
            "weight_decay": rng.choice([0.0, 0.1]),
            "max_grad_norm": rng.choice([0.0, 0.3, 1.0]),
            "gradient_checkpointing": rng.random() < 0.5,
            "num_train_epochs": rng.choice([1, 2]),
            "seed": rng.randrange(100),
        }
        if method not in GENERATE:
            chosen["per_device_train_batch_size"] = rng.choice([1, 2, 2, 3])
        if chosen["optim"] == "sgd":
            chosen["learning_rate"] = 0.1
        if method == "SFT":
            chosen["neftune_noise_alpha"] = rng.choice([None, None, None, 5.0])
            chosen["loss_type"] = rng.choice(["nll", "nll", "dft"])
            if packs and packing.random() < 0.4:
                fewer = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1}
                chosen |= fewer | {"packing": True, "max_length": 32}
        if method == "DPO":
            chosen["loss_type"] = rng.choice(["sigmoid", "ipo", "robust"])
            chosen["label_smoothing"] = 0.1
        configs.append(config(method, objects, adapter=adapter, training=chosen | training))
    return configs


def engine_over(
    folder: Path, configs: Sequence[RunConfig], objects: Objects, execution: Execution, **more: Any
) -> Engine:
    """An engine over runs of these configs, in two chunks."""
    return harness.engine_over(
        folder, ROWS, configs, objects, execution=execution, **({"num_chunks": 2} | more)
    )


def joint_forwards(engine: Engine) -> tuple[int, int]:
    """How many joint forwards the runner has done, and how many runs' forwards they answered."""
    counts = [model.counts for model in engine.fleet.runner.joint_turns.models.values()]  # type: ignore[attr-defined]
    return sum(one.forwards for one in counts), sum(one.requests for one in counts)


def figures(engine: Engine, run_id: int) -> list[tuple[int, dict[str, float]]]:
    """What was logged of a run."""
    return [(p.step, dict(p.metrics)) for p in engine.state.record(run_id).all_points()]
