"""What people have: rows of uneven length, adapters of all linear layers, configs of a search."""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets
import torch
from transformers import BitsAndBytesConfig, LlamaConfig, Qwen3Config

from benchmarks.common import DEVICE, LARGE, ON_GPU, SMALL, model_of, run_config
from rf_notebook.core.objects import Objects
from rf_notebook.core.run import RunConfig
from rf_notebook.testing.tiny import _WORDS

#: Of the log-normal distribution of row lengths, and where it is cut.
MEDIAN, SIGMA, SHORTEST, LONGEST = (220, 0.7, 16, 1024) if ON_GPU else (40, 0.7, 6, 128)
#: The share of a row that is its prompt.
PROMPT = 0.35
STEPS, WARM_UP = (24, 4) if ON_GPU else (12, 2)


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


def in_4_bits(model: Any) -> Any:
    """The same model as bitsandbytes holds it for QLoRA: nf4, computing in bfloat16."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return type(model).from_pretrained(
            folder,
            device_map=DEVICE,
            attn_implementation="sdpa",
            quantization_config=BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_compute_dtype=torch.bfloat16 if ON_GPU else torch.float32,
            ),
        )


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
    drawn = (rng.lognormvariate(math.log(MEDIAN), SIGMA) for _ in range(count))
    return [max(SHORTEST, min(LONGEST, int(one))) for one in drawn]


def sft_rows(
    count: int = 2000, seed: int = 1, *, lengths: Sequence[int] | None = None
) -> datasets.Dataset:
    """Prompts with completions, tokenized; the completion alone is labelled.

    Args:
        count: How many, where no lengths are given.
        seed: Of lengths and tokens.
        lengths: Tokens of each row.
    """
    rng = random.Random(seed)
    rows = [rng.choices(range(3, 500), k=length) for length in lengths or lengths_of(count, seed)]
    labels = [[-100] * int(len(row) * PROMPT) + row[int(len(row) * PROMPT) :] for row in rows]
    return datasets.Dataset.from_dict({"input_ids": rows, "labels": labels})


def dpo_rows(count: int = 500, seed: int = 1) -> datasets.Dataset:
    """Prompts with a chosen and a rejected completion, about as long; a word is a token."""
    rng = random.Random(seed)

    def words(count: int) -> str:
        return "".join(f" {word}" for word in rng.choices(_WORDS, k=max(1, count)))

    made: dict[str, list[str]] = {"prompt": [], "chosen": [], "rejected": []}
    for length, other in zip(lengths_of(count, seed), lengths_of(count, seed + 1), strict=True):
        prompt = int(length * PROMPT)
        made["prompt"].append(words(prompt))
        made["chosen"].append(words(length - prompt - 1))
        made["rejected"].append(words(min(other, LONGEST - prompt - 1)))
    return datasets.Dataset.from_dict(made)


def arguments(knobs: Knobs, **more: Any) -> dict[str, Any]:
    """Of trl's config, as a user writes them; everything else is its default."""
    return {
        "per_device_train_batch_size": knobs.batch,
        "gradient_accumulation_steps": knobs.accumulation,
        "learning_rate": knobs.learning_rate,
        "max_length": LONGEST,
        "max_steps": STEPS,
        "logging_steps": 10,
        "bf16": ON_GPU,
        "use_cpu": not ON_GPU,
        "seed": 1,
        **more,
    }


def lora(knobs: Knobs) -> dict[str, Any]:
    return {
        "r": knobs.rank,
        "lora_alpha": 2 * knobs.rank,
        "lora_dropout": knobs.dropout,
        "target_modules": "all-linear",
    }


def run_configs(objects: Objects, configs: Sequence[Knobs], **more: Any) -> list[RunConfig]:
    """The configs as runs of an experiment, each with a seed of its own."""
    return [
        run_config(objects, arguments(knobs, seed=seed, **more), lora(knobs), method=knobs.method)
        for seed, knobs in enumerate(configs, start=1)
    ]
