"""Arguments with which each of peft's kinds of adapters fits the tiny model (64 wide, 32 for values)."""

from __future__ import annotations

from typing import Any

from rf_notebook.automl.adapter_configs import ADAPTER_CONFIGS

_QV = ["q_proj", "v_proj"]
_PROMPT = {"num_virtual_tokens": 5}
#: Of kinds that take others than ``target_modules``.
_OTHERS: dict[str, dict[str, Any]] = {
    "ADALORA": {"target_modules": _QV, "total_step": 20, "tinit": 2, "tfinal": 5, "deltaT": 2},
    "BOFT": {"target_modules": _QV, "boft_dropout": 0.1},
    "C3A": {"target_modules": _QV, "block_size": 32},
    "CARTRIDGE": _PROMPT,
    "IA3": {
        "target_modules": ["k_proj", "v_proj", "down_proj"],
        "feedforward_modules": ["down_proj"],
    },
    "LN_TUNING": {},
    "PREFIX_TUNING": _PROMPT,
    "PROMPT_TUNING": _PROMPT,
    "P_TUNING": _PROMPT | {"encoder_dropout": 0.1},
    "ROAD": {"target_modules": _QV, "group_size": 32},
    "SHADOW": {},
    "SHIRA": {"target_modules": _QV, "r": 8},
    "TRAINABLE_TOKENS": {"token_indices": [223, 272, 322, 325, 333, 342]},
    "VBLORA": {"target_modules": _QV, "vector_length": 32, "num_vectors": 60, "r": 4},
    "WAVEFT": {"target_modules": _QV, "n_frequency": 200},
}
#: Every kind there is a class for, by peft_type.
ADAPTERS: dict[str, dict[str, Any]] = {
    kind: _OTHERS.get(kind, {"target_modules": _QV}) for kind in ADAPTER_CONFIGS
}
