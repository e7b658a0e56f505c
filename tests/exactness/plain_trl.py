"""Trains configs with plain TRL, each alone in a process of its own, and saves what came out.

Usage: python -m tests.exactness.plain_trl FOLDER NAME...
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from rf_notebook.testing.tiny import tiny_model, tiny_tokenizer
from tests.exactness.sft_configs import ON_CPU, SFT, arguments, data, without_clock


def train(name: str, folder: Path) -> None:
    kind, _, lora = SFT[name]
    train_rows, eval_rows = data(kind)
    given = arguments(name)
    if not given.get("load_best_model_at_end"):
        given["save_strategy"] = "no"
    trainer = SFTTrainer(
        model=tiny_model().to("cpu" if ON_CPU else "cuda"),  # where it is when several runs share it
        args=SFTConfig(output_dir=str(folder / name), report_to="none", disable_tqdm=True, **given),
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        processing_class=tiny_tokenizer(),
        peft_config=None if lora is None else LoraConfig(task_type="CAUSAL_LM", **lora),
    )
    trainer.train()
    weights = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}
    result = {"history": without_clock(trainer.state.log_history), "weights": weights}
    torch.save(result, folder / f"{name}.pt")


def main() -> None:
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    for name in names:
        # A fork before any training: the child has imported the libraries and nothing else.
        if os.fork() == 0:
            try:
                train(name, folder)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.wait()
        if status:
            sys.exit(f"{name} failed in plain TRL")


if __name__ == "__main__":
    main()
