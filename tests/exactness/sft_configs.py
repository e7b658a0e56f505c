"""The SFT configs whose runs must equal plain TRL's: (data, arguments of SFTConfig, arguments of LoraConfig)."""

from __future__ import annotations

import os
from typing import Any

_QV = ["q_proj", "v_proj"]

SFT: dict[str, tuple[str, dict[str, Any], dict[str, Any] | None]] = {
    "cosine_dropout": (
        "prompts",
        {
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "num_train_epochs": 2,
            "learning_rate": 1e-3,
            "warmup_steps": 3,
            "lr_scheduler_type": "cosine",
            "seed": 42,
            "eval_strategy": "steps",
            "eval_steps": 5,
            "gradient_checkpointing": False,
        },
        {"r": 8, "lora_alpha": 16, "lora_dropout": 0.1, "target_modules": _QV},
    ),
    "rslora_all_linear": (
        "prompts",
        {
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "num_train_epochs": 2,
            "learning_rate": 3e-3,
            "warmup_steps": 0.2,
            "lr_scheduler_type": "cosine",
            "seed": 7,
            "eval_strategy": "steps",
            "eval_steps": 3,
            "gradient_checkpointing": True,
        },
        {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": "all-linear", "use_rslora": True},
    ),
    "dora": (
        "prompts",
        {
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 2,
            "num_train_epochs": 2,
            "learning_rate": 5e-4,
            "warmup_steps": 4,
            "lr_scheduler_type": "linear",
            "seed": 42,
            "eval_strategy": "epoch",
            "gradient_checkpointing": True,
        },
        {
            "r": 4,
            "lora_alpha": 8,
            "lora_dropout": 0.2,
            "target_modules": ["q_proj", "o_proj", "down_proj"],
            "use_dora": True,
        },
    ),
    "neftune_max_steps": (
        "prompts",
        {
            "per_device_train_batch_size": 2,
            "max_steps": 17,
            "learning_rate": 1e-3,
            "lr_scheduler_type": "cosine",
            "warmup_steps": 2,
            "seed": 42,
            "neftune_noise_alpha": 5.0,
            "gradient_checkpointing": False,
        },
        {
            "r": 8,
            "lora_alpha": 16,
            "lora_dropout": 0.1,
            "target_modules": ["gate_proj", "up_proj"],
            "init_lora_weights": "gaussian",
        },
    ),
    "bf16_load_best": (
        "prompts",
        {
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "num_train_epochs": 2,
            "learning_rate": 1e-3,
            "seed": 5,
            "bf16": True,
            "load_best_model_at_end": True,
            "save_strategy": "steps",
            "save_steps": 3,
            "eval_strategy": "steps",
            "eval_steps": 3,
            "save_total_limit": 1,
        },
        {"r": 8, "lora_alpha": 16, "lora_dropout": 0.1, "target_modules": _QV},
    ),
    "packing": (
        "prompts",
        {
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 1,
            "num_train_epochs": 3,
            "learning_rate": 1e-3,
            "seed": 5,
            "packing": True,
            "eval_packing": False,
        },
        {"r": 8, "lora_alpha": 16, "lora_dropout": 0.1, "target_modules": _QV},
    ),
    "text_sgd_polynomial": (
        "texts",
        {
            "per_device_train_batch_size": 3,
            "num_train_epochs": 2,
            "learning_rate": 5e-2,
            "seed": 11,
            "optim": "sgd",
            "lr_scheduler_type": "polynomial",
            "weight_decay": 0.1,
            "max_grad_norm": 0.5,
        },
        {"r": 4, "lora_alpha": 4, "lora_dropout": 0.3, "target_modules": ["k_proj"]},
    ),
    "logged_every_seventh_step": (
        "texts",
        {
            "per_device_train_batch_size": 2,
            "num_train_epochs": 2,
            "learning_rate": 2e-3,
            "seed": 13,
            "data_seed": 99,
            "logging_steps": 7,
            "lr_scheduler_type": "constant_with_warmup",
            "warmup_steps": 5,
        },
        {"r": 8, "lora_alpha": 16, "lora_dropout": 0.1, "target_modules": _QV, "bias": "lora_only"},
    ),
    "adafactor": (
        "prompts",
        {
            "per_device_train_batch_size": 5,
            "num_train_epochs": 3,
            "learning_rate": 1e-3,
            "seed": 3,
            "optim": "adafactor",
            "completion_only_loss": False,
        },
        {"r": 2, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": ["v_proj"]},
    ),
    "fractional_epochs_drop_last": (
        "prompts",
        {
            "per_device_train_batch_size": 3,
            "gradient_accumulation_steps": 4,
            "num_train_epochs": 2.5,
            "learning_rate": 1e-3,
            "seed": 21,
            "dataloader_drop_last": True,
            "lr_scheduler_type": "cosine_with_restarts",
        },
        {"r": 8, "lora_alpha": 16, "lora_dropout": 0.1, "target_modules": ["o_proj"], "init_lora_weights": "pissa"},
    ),
    "dft_loss_shuffled": (
        "prompts",
        {
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 3,
            "num_train_epochs": 2,
            "learning_rate": 1e-3,
            "seed": 8,
            "loss_type": "dft",
            "shuffle_dataset": True,
            "eval_on_start": True,
            "eval_strategy": "epoch",
        },
        {"r": 8, "lora_alpha": 16, "lora_dropout": 0.1, "target_modules": _QV, "init_lora_weights": "olora"},
    ),
    "chat_assistant_tokens": (
        "chats",
        {
            "per_device_train_batch_size": 4,
            "num_train_epochs": 2,
            "learning_rate": 1e-3,
            "seed": 17,
            "max_length": 48,
            "train_sampling_strategy": "group_by_length",
        },
        {"r": 8, "lora_alpha": 16, "lora_dropout": 0.1, "target_modules": _QV, "modules_to_save": ["embed_tokens"]},
    ),
    "plateau_scheduler": (
        "prompts",
        {
            "per_device_train_batch_size": 2,
            "num_train_epochs": 1,
            "learning_rate": 1e-2,
            "seed": 31,
            "lr_scheduler_type": "reduce_lr_on_plateau",
            "lr_scheduler_kwargs": {"patience": 1},
            "eval_strategy": "steps",
            "eval_steps": 3,
        },
        {"r": 8, "lora_alpha": 16, "lora_dropout": 0.1, "target_modules": _QV},
    ),
    "full_fine_tuning": (
        "prompts",
        {
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "num_train_epochs": 1,
            "learning_rate": 1e-3,
            "warmup_steps": 3,
            "seed": 42,
            "eval_strategy": "steps",
            "eval_steps": 3,
        },
        None,
    ),
}

#: Set RF_NOTEBOOK_TEST_CUDA=1 to compare on a GPU.
ON_CPU = not os.environ.get("RF_NOTEBOOK_TEST_CUDA")
COMMON = {"use_cpu": ON_CPU, "max_length": 64, "logging_steps": 1, "bf16": False}


def arguments(name: str) -> dict[str, Any]:
    """The arguments of SFTConfig, as a user would type them."""
    return {**COMMON, **SFT[name][1]}


def data(kind: str) -> tuple[Any, Any]:
    """Training and evaluation rows."""
    from rf_notebook.testing.tiny import prompt_rows, text_rows

    if kind == "texts":
        return text_rows(40, 1), text_rows(10, 2)
    if kind == "prompts":
        return prompt_rows(40, 1), prompt_rows(10, 2)
    chats = [
        rows.map(
            lambda row: {
                "messages": [
                    {"role": "user", "content": row["prompt"]},
                    {"role": "assistant", "content": row["completion"]},
                ]
            },
            remove_columns=["prompt", "completion"],
        )
        for rows in (prompt_rows(40, 1), prompt_rows(10, 2))
    ]
    return chats[0], chats[1]


CLOCK = ("runtime", "per_second", "step_time")


def without_clock(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A log history minus wall times."""
    return [{k: v for k, v in entry.items() if not k.endswith(CLOCK)} for entry in history]
