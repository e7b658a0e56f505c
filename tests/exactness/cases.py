"""The configs whose runs must equal plain TRL's."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tests.exactness.adapters import ADAPTERS
from tests.exactness.sft_cases import QV, SFT


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One config."""

    method: str
    data: str
    """What ``data`` is asked for."""
    training: dict[str, Any]
    """Arguments of trl's config class."""
    adapter: dict[str, Any] | None
    """Arguments of peft's config class, and ``peft_type`` where it is not LoRA."""
    rewards: tuple[str, ...] = ()
    """Names in REWARDS."""
    own_reference: bool = False
    """Whether DPO or KTO compares with another model than the base."""
    quantised: str | None = None
    """load_in_4bit or load_in_8bit."""


def checksum(completions: list[Any], **kwargs: Any) -> list[float]:
    """A reward that every text has another of."""
    return [sum(map(ord, text)) % 17 / 17 for text in map(text_of, completions)]


def short(completions: list[Any], **kwargs: Any) -> list[float | None]:
    """A reward for short texts, which says nothing about those with a z."""
    return [None if "z" in text else 1.0 - len(text) / 50 for text in map(text_of, completions)]


def like_the_column(completions: list[Any], word: list[str], **kwargs: Any) -> list[float]:
    """A reward that compares with a column of the data."""
    return [
        len(set(text) & set(one)) / len(one)
        for text, one in zip(map(text_of, completions), word, strict=True)
    ]


def text_of(completion: Any) -> str:
    """A completion's text, of a conversation or not."""
    return completion if isinstance(completion, str) else completion[0]["content"]


REWARDS: dict[str, Callable[..., list[Any]]] = {
    f.__name__: f for f in (checksum, short, like_the_column)
}

_LORA = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.1, "target_modules": QV}
_DPO = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 1,
    "learning_rate": 1e-3,
}
_GRPO = {
    "per_device_train_batch_size": 4,
    "num_generations": 4,
    "max_completion_length": 8,
    "num_train_epochs": 1,
    "learning_rate": 3e-3,
    "per_device_eval_batch_size": 4,
}


def _dpo(data: str = "everything", adapter: dict[str, Any] | None = _LORA, **training: Any) -> Case:
    own = bool(training.pop("own_reference", False))
    return Case(
        method="DPO", data=data, training=_DPO | training, adapter=adapter, own_reference=own
    )


def _grpo(
    *rewards: str, data: str = "everything", adapter: dict[str, Any] | None = _LORA, **training: Any
) -> Case:
    return Case(
        method="GRPO", data=data, training=_GRPO | training, adapter=adapter, rewards=rewards
    )


def _kto(data: str = "everything", adapter: dict[str, Any] | None = _LORA, **training: Any) -> Case:
    return replace(_dpo(data, adapter, **training), method="KTO")


def _reward(adapter: dict[str, Any] | None = _LORA, **training: Any) -> Case:
    """A LoRA's adapter trains the head, too: peft gives it to every adapter for a classifier."""
    return replace(_dpo("pairs", adapter, **training), method="Reward")


def _rloo(
    *rewards: str, data: str = "everything", adapter: dict[str, Any] | None = _LORA, **training: Any
) -> Case:
    return replace(_grpo(*rewards, data=data, adapter=adapter, **training), method="RLOO")


def _sft(adapter: dict[str, Any] | None, **training: Any) -> Case:
    return Case(
        method="SFT",
        data="everything",
        training={"per_device_train_batch_size": 2, "num_train_epochs": 1, "learning_rate": 1e-3}
        | training,
        adapter=adapter,
    )


CASES: dict[str, Case] = {
    **{
        f"sft_{name}": Case(method="SFT", data=kind, training=training, adapter=lora)
        for name, (kind, training, lora) in SFT.items()
    },
    **{
        f"adapter_{kind.lower()}": replace(
            _sft(
                {"peft_type": kind, **given},
                learning_rate=1e-2,
                seed=number,
                gradient_checkpointing=False,
            ),
            data="adapters",
        )
        for number, (kind, given) in enumerate(ADAPTERS.items(), start=1)
    },
    "reward_lora": _reward(seed=3, gradient_accumulation_steps=2),
    "reward_all_linear": _reward(
        _LORA | {"r": 4, "target_modules": "all-linear", "use_rslora": True},
        seed=4,
        eval_strategy="steps",
        eval_steps=5,
        center_rewards_coefficient=0.01,
    ),
    "reward_margins": replace(_reward(seed=5, num_train_epochs=2), data="margins"),
    "reward_full": _reward(None, seed=6, optim="sgd", learning_rate=0.05),
    "reward_hra": _reward({"peft_type": "HRA", "target_modules": QV}, seed=7),
    # ---- all below train on the same rows, so that every method and kind of adapter takes turns in
    # one process
    "sft_among_others": _sft(_LORA, gradient_accumulation_steps=2, seed=6, neftune_noise_alpha=5.0),
    "sft_full_sgd": _sft(
        None, optim="sgd", learning_rate=0.1, weight_decay=0.1, seed=3, eval_strategy="epoch"
    ),
    "sft_ia3": _sft(
        {
            "peft_type": "IA3",
            "target_modules": ["k_proj", "v_proj", "down_proj"],
            "feedforward_modules": ["down_proj"],
        },
        learning_rate=1e-2,
        seed=4,
    ),
    "sft_prompt_tuning": _sft(
        {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 5},
        learning_rate=1e-2,
        seed=5,
        gradient_checkpointing=False,
    ),
    "sft_vera": _sft(
        {"peft_type": "VERA", "r": 16, "target_modules": QV, "vera_dropout": 0.1}, seed=8
    ),
    "dpo_sigmoid": _dpo(seed=1, num_train_epochs=2, eval_strategy="steps", eval_steps=7),
    "dpo_ipo_precomputed": _dpo(
        seed=2,
        loss_type="ipo",
        precompute_ref_log_probs=True,
        eval_strategy="epoch",
        logging_steps=3,
    ),
    "dpo_precomputed_by_another_run": _dpo(
        seed=3,
        adapter=_LORA | {"r": 4, "lora_dropout": 0.3},
        precompute_ref_log_probs=True,
        beta=0.3,
    ),
    "dpo_combined": _dpo(
        seed=4, ld_alpha=0.5, loss_type=["sigmoid", "bco_pair", "sft"], loss_weights=[0.8, 0.2, 1.0]
    ),
    "dpo_robust_rslora": _dpo(
        seed=5,
        loss_type="robust",
        label_smoothing=0.2,
        adapter=_LORA | {"use_rslora": True, "target_modules": "all-linear"},
    ),
    "dpo_hinge_dora": _dpo(seed=6, loss_type="hinge", adapter=_LORA | {"use_dora": True}),
    "dpo_own_reference": _dpo(seed=7, own_reference=True, loss_type="apo_zero"),
    "dpo_pissa": _dpo(
        seed=8, adapter=_LORA | {"init_lora_weights": "pissa"}, precompute_ref_log_probs=True
    ),
    "dpo_full": _dpo(seed=9, adapter=None, learning_rate=1e-4),
    "dpo_full_precomputed": _dpo(
        seed=10, adapter=None, precompute_ref_log_probs=True, f_divergence_type="js_divergence"
    ),
    "dpo_full_moving_reference": _dpo(
        seed=11,
        adapter=None,
        sync_ref_model=True,
        ref_model_sync_steps=2,
        ref_model_mixup_alpha=0.5,
    ),
    "dpo_chats": _dpo(
        data="chat_pairs", seed=12, max_length=48, loss_type="sigmoid_norm", num_train_epochs=2
    ),
    "kto_pairs": _kto(seed=1, num_train_epochs=2, eval_strategy="steps", eval_steps=7),
    "kto_precomputed": _kto(
        seed=2, precompute_ref_log_probs=True, eval_strategy="epoch", logging_steps=3
    ),
    "kto_precomputed_by_another_run": _kto(
        seed=3,
        adapter=_LORA | {"r": 4, "lora_dropout": 0.3},
        precompute_ref_log_probs=True,
        beta=0.3,
    ),
    "kto_own_reference": _kto(
        seed=4, own_reference=True, desirable_weight=1.3, per_device_train_batch_size=4
    ),
    "kto_full": _kto(seed=5, adapter=None, learning_rate=1e-4),
    "kto_full_moving_reference": _kto(
        seed=6,
        adapter=None,
        sync_ref_model=True,
        ref_model_sync_steps=2,
        ref_model_mixup_alpha=0.5,
    ),
    "kto_labelled": _kto(data="labelled", seed=7, per_device_train_batch_size=4),
    "kto_labelled_alone": _kto(
        data="labelled",
        seed=8,
        loss_type="apo_zero_unpaired",
        train_sampling_strategy="random",
        precompute_ref_log_probs=True,
    ),
    "kto_chats": _kto(data="chat_pairs", seed=9, max_length=48),
    "rloo_plain": _rloo("checksum", seed=1, num_train_epochs=2, eval_strategy="epoch"),
    "rloo_iterations": _rloo(
        "short", "checksum", seed=2, num_iterations=2, num_train_epochs=2, max_steps=70
    ),
    "rloo_steps_per_generation": _rloo(
        "like_the_column",
        "checksum",
        seed=3,
        steps_per_generation=3,
        num_iterations=3,
        reward_weights=[1.0, 0.5],
        normalize_advantages=True,
        gradient_accumulation_steps=2,
        max_steps=40,
    ),
    "rloo_without_reference": _rloo("checksum", seed=4, beta=0.0, reward_clip_range=[-1.0, 0.5]),
    "rloo_full_moving_reference": _rloo(
        "checksum",
        seed=5,
        adapter=None,
        learning_rate=1e-4,
        sync_ref_model=True,
        ref_model_sync_steps=3,
    ),
    "rloo_chats": _rloo("checksum", "like_the_column", data="chat_pairs", seed=6),
    "grpo_plain": _grpo("checksum", seed=1, num_train_epochs=2),
    "grpo_kl": _grpo(
        "checksum", "short", seed=2, beta=0.1, gradient_accumulation_steps=2, eval_strategy="epoch"
    ),
    "grpo_iterations": _grpo(
        "short",
        "checksum",
        seed=3,
        num_iterations=2,
        loss_type="grpo",
        num_train_epochs=2,
        max_steps=70,
    ),
    "grpo_steps_per_generation": _grpo(
        "like_the_column",
        "checksum",
        seed=4,
        steps_per_generation=3,
        num_iterations=3,
        reward_weights=[1.0, 0.5],
        max_steps=40,
    ),
    "grpo_two_generations": _grpo(
        "checksum",
        seed=5,
        num_generations=2,
        loss_type="dr_grpo",
        scale_rewards="batch",
        temperature=0.7,
        top_p=0.9,
    ),
    "grpo_entropy": _grpo(
        "checksum",
        seed=6,
        use_adaptive_entropy=True,
        gradient_accumulation_steps=2,
        top_entropy_quantile=0.8,
        logging_steps=3,
    ),
    "grpo_dora": _grpo(
        "short",
        "checksum",
        seed=7,
        beta=0.05,
        adapter=_LORA | {"use_dora": True},
        cast_lm_head_to_fp32=True,
    ),
    "grpo_full": _grpo("checksum", seed=8, beta=0.04, adapter=None, learning_rate=1e-4),
    "grpo_full_moving_reference": _grpo(
        "checksum",
        seed=9,
        beta=0.1,
        adapter=None,
        learning_rate=1e-4,
        sync_ref_model=True,
        ref_model_sync_steps=3,
    ),
    "grpo_chats": _grpo(
        "checksum",
        "like_the_column",
        data="chat_pairs",
        seed=10,
        beta=0.02,
        num_iterations=2,
        max_steps=50,
    ),
    "sft_4bit": replace(
        _sft(_LORA, seed=1, gradient_accumulation_steps=2),
        data="quantised",
        quantised="load_in_4bit",
    ),
    "dpo_4bit": replace(_dpo(seed=2), data="quantised", quantised="load_in_4bit"),
    "sft_8bit": replace(_sft(_LORA, seed=3), data="quantised", quantised="load_in_8bit"),
    "grpo_8bit": replace(
        _grpo("checksum", seed=4, beta=0.1), data="quantised", quantised="load_in_8bit"
    ),
}

#: Of the model that is DPO's reference where it is not the base.
REFERENCE_SEED = 99
#: Set RF_NOTEBOOK_TEST_CUDA=1 to compare on a GPU.
ON_CPU = not os.environ.get("RF_NOTEBOOK_TEST_CUDA")


def arguments(name: str) -> dict[str, Any]:
    """The arguments of trl's config class, as a user would type them."""
    common: dict[str, Any] = {"use_cpu": ON_CPU, "logging_steps": 1, "bf16": False}
    if not CASES[name].rewards:
        common["max_length"] = 64
    return common | CASES[name].training


def names_of(kind: str) -> list[str]:
    """The cases that train on this data."""
    return [name for name, case in CASES.items() if case.data == kind]


def data(kind: str) -> tuple[Any, Any]:
    """Training and evaluation rows."""
    from rf_notebook.testing.tiny import preference_rows, prompt_rows, text_rows

    if kind == "texts":
        return text_rows(40, 1), text_rows(10, 2)
    if kind == "prompts":
        return prompt_rows(40, 1), prompt_rows(10, 2)
    if kind == "adapters":
        return preference_rows(10, 1), preference_rows(4, 2)
    if kind in ("pairs", "margins"):
        rows = preference_rows(20, 1), preference_rows(6, 2)
        if kind == "margins":
            rows = tuple(one.map(_with_margin, with_indices=True) for one in rows)  # type: ignore[assignment]
        return rows
    if kind == "everything":
        return preference_rows(26, 1), preference_rows(6, 2)
    if kind == "quantised":
        # Not evaluated: on some CPUs bitsandbytes packs 4-bit weights anew in an evaluation and
        # computes otherwise after it.
        return preference_rows(26, 1), None
    if kind == "labelled":
        return tuple(rows.map(_labelled, with_indices=True) for rows in data("prompts"))  # type: ignore[return-value]
    to_chat = _chat if kind == "chats" else _chat_pair
    made = (prompt_rows(40, 1), prompt_rows(10, 2)) if kind == "chats" else data("everything")
    columns = [name for name in made[0].column_names if name != "word"]
    return tuple(rows.map(to_chat, remove_columns=columns) for rows in made)  # type: ignore[return-value]


def _with_margin(row: dict[str, str], number: int) -> dict[str, Any]:
    return {"margin": 0.25 * (number % 4)}


def _labelled(row: dict[str, str], number: int) -> dict[str, Any]:
    return {"label": number % 3 != 0}


def _says(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def _chat(row: dict[str, str]) -> dict[str, Any]:
    return {"messages": [_says("user", row["prompt"]), _says("assistant", row["completion"])]}


def _chat_pair(row: dict[str, str]) -> dict[str, Any]:
    return {
        "prompt": [_says("user", row["prompt"])],
        "chosen": [_says("assistant", row["chosen"])],
        "rejected": [_says("assistant", row["rejected"])],
    }


CLOCK = ("runtime", "per_second", "step_time")


def without_clock(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A log history minus wall times."""
    return [{k: v for k, v in entry.items() if not k.endswith(CLOCK)} for entry in history]
