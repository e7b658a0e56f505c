"""What other cells of a notebook do while an experiment trains."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
import warnings
from pathlib import Path

import numpy as np
import peft
import torch
import transformers
import trl

from rf_notebook.testing.tiny import text_rows, tiny_tokenizer

#: What the cells' trainers and the experiment's runs have in common.
SHARED = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "logging_steps": 1,
    "bf16": False,
    "use_cpu": True,
}


def arguments(folder):
    return {
        "output_dir": str(folder),
        "max_steps": 2,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def loads(base, folder):
    def cell():
        time.sleep(0.1)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            base / "other", dtype=torch.bfloat16
        )
        return {str(p.dtype) for p in model.parameters()}

    return cell


def trains_with_trl(base, folder):
    def cell():
        trainer = trl.SFTTrainer(
            transformers.AutoModelForCausalLM.from_pretrained(base),
            args=trl.SFTConfig(**arguments(folder), **SHARED),
            train_dataset=text_rows(16, 9),
            processing_class=tiny_tokenizer(),
            peft_config=peft.LoraConfig(r=4, task_type="CAUSAL_LM"),
        )
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    return cell


def trains_with_transformers(base, folder):
    rows = [{"input_ids": [1, 2, 3, n], "labels": [1, 2, 3, n]} for n in range(8)]

    def cell():
        model = transformers.AutoModelForCausalLM.from_pretrained(base)
        trainer = transformers.Trainer(
            model, transformers.TrainingArguments(**arguments(folder), **SHARED), train_dataset=rows
        )
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    return cell


def generates(base, folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(base)

    def cell():
        with torch.no_grad():
            return model.generate(
                torch.tensor([[1, 2, 3]]), max_new_tokens=4, pad_token_id=0
            ).tolist()

    return cell


def changes_directory(base, folder):
    def cell():
        before = Path.cwd()
        os.chdir(folder)
        time.sleep(0.02)
        os.chdir(before)
        return Path.cwd() == before

    return cell


def changes_dtype(base, folder):
    def cell():
        torch.set_default_dtype(torch.float64)
        time.sleep(0.01)
        made = torch.ones(2).dtype
        torch.set_default_dtype(torch.float32)
        return str(made)

    return cell


def seeds(base, folder):
    def cell():
        torch.manual_seed(1), random.seed(1), np.random.seed(1)

    return cell


def draws(base, folder):
    def cell():
        torch.rand(3), random.random(), np.random.rand()

    return cell


def sets_grad_mode_and_device(base, folder):
    def cell():
        torch.set_grad_enabled(False)
        torch.set_default_device("meta")
        time.sleep(0.01)
        made = str(torch.ones(1).device), torch.is_grad_enabled()
        torch.set_default_device(None)
        torch.set_grad_enabled(True)
        return made

    return cell


def warns(base, folder):
    def cell():
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            warnings.warn("mine", stacklevel=1)
            time.sleep(0.01)
        return "mine" in [
            str(one.message) for one in told
        ]  # Python 3.11 records those of all threads

    return cell


def starts_processes(base, folder):
    def cell():
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(0,))
        process.start()
        process.join(20)
        return process.exitcode

    return cell


CELLS = (
    *(
        loads,
        trains_with_trl,
        trains_with_transformers,
        generates,
        changes_directory,
        changes_dtype,
        seeds,
        draws,
    ),
    *(sets_grad_mode_and_device, warns, starts_processes),
)
