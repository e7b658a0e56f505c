"""Notebooks as RapidFire AI's users write them, with only the imports changed."""

from __future__ import annotations

#: A notebook as RapidFire AI's users write it, with only the package's name changed in the imports.
#: The data and the base model are local, for tests reach no hub; everything else is the usual
#: shape.
from tests.notebooks.reference_style.fitting import DPO, GRPO, SFT
from tests.notebooks.reference_style.prompts import MASKING, PROMPTS
from tests.notebooks.reference_style.searching import CONTROLS, LOGS, OPTUNA
from tests.notebooks.reference_style.texts import FORMATTER, MESSAGES, TEXTS

__all__ = [
    "CONTROLS",
    "DPO",
    "FORMATTER",
    "GRPO",
    "LOGS",
    "MASKING",
    "MESSAGES",
    "OPTUNA",
    "PROMPTS",
    "SFT",
    "TEXTS",
]
