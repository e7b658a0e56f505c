"""Trains configs with plain TRL, each alone in a process of its own, and saves what came out.

Usage: python -m tests.exactness.plain_trl FOLDER NAME...
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_config
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    RLOOConfig,
    RLOOTrainer,
    SFTConfig,
    SFTTrainer,
)

from rf_notebook.testing.tiny import tiny_model, tiny_tokenizer
from tests.exactness.cases import (
    CASES,
    ON_CPU,
    REFERENCE_SEED,
    REWARDS,
    arguments,
    data,
    without_clock,
)
from tests.exactness.models import create

#: Of methods whose models do not write.
_TASKS = {"Reward": "SEQ_CLS"}
_CLASSES: dict[str, tuple[Any, Any]] = {
    "SFT": (SFTConfig, SFTTrainer),
    "DPO": (DPOConfig, DPOTrainer),
    "KTO": (KTOConfig, KTOTrainer),
    "Reward": (RewardConfig, RewardTrainer),
    "GRPO": (GRPOConfig, GRPOTrainer),
    "RLOO": (RLOOConfig, RLOOTrainer),
}


def train(name: str, folder: Path) -> None:
    case = CASES[name]
    train_rows, eval_rows = data(case.data)
    given = arguments(name)
    if not given.get("load_best_model_at_end"):
        given["save_strategy"] = "no"
    config_class, trainer_class = _CLASSES[case.method]
    chosen: dict[str, Any] = {
        "model_kwargs": {} if case.quantised is None else {"quantised": case.quantised}
    }
    if case.method == "Reward":
        chosen["model_type"] = "sequence_classification"
    model = create(chosen)[0]
    if case.adapter is None:  # where trl loads the reference of a full fine-tuning from
        model.save_pretrained(folder / f"base of {name}")
        model.config._name_or_path = str(folder / f"base of {name}")  # noqa: SLF001 - transformers keeps the name so
    device = "cpu" if ON_CPU else "cuda"
    more: dict[str, Any] = {}
    if case.rewards:
        more["reward_funcs"] = [REWARDS[reward] for reward in case.rewards]
    if case.own_reference:
        more["ref_model"] = tiny_model(seed=REFERENCE_SEED)
    adapter = (
        None
        if case.adapter is None
        else {"peft_type": "LORA", "task_type": _TASKS.get(case.method, "CAUSAL_LM")} | case.adapter
    )
    trainer = trainer_class(
        model=model
        if case.quantised
        else model.to(device),  # where it is when several runs share it
        args=config_class(
            output_dir=str(folder / name), report_to="none", disable_tqdm=True, **given
        ),
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        processing_class=tiny_tokenizer(),
        peft_config=None if adapter is None else get_peft_config(adapter),
        **more,
    )
    trainer.train()
    weights = {
        n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad
    }
    result = {"history": without_clock(trainer.state.log_history), "weights": weights}
    torch.save(result, folder / f"{name}.pt")


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    if len(names) == 1:
        train(names[0], folder)
        return
    at_once = max(1, (os.cpu_count() or 2) // 2)
    running: dict[int, str] = {}
    for name in names:
        # A fork before any training: the child has imported the libraries and nothing else. (On a
        # GPU without bitsandbytes: importing that initialises CUDA, which a fork cannot use.)
        child = os.fork()
        if child == 0:
            try:
                train(name, folder)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        running[child] = name
        if len(running) == at_once:
            _wait_for_one(running)
    while running:
        _wait_for_one(running)


def _wait_for_one(running: dict[int, str]) -> None:
    child, status = os.wait()
    name = running.pop(child)
    if status:
        sys.exit(f"{name} failed in plain TRL")


if __name__ == "__main__":
    main()
