"""The floor that torch, transformers, trl and peft live on.

Importing it next to something too old is refused.
"""

from __future__ import annotations

import importlib
import logging
import random

from rf_notebook.core.requirements import TRAINING, too_old
from rf_notebook.core.telemetry import without_telemetry

_too_old = list(too_old(*TRAINING))
if _too_old:
    raise ImportError(" ".join(_too_old))


def import_libraries() -> None:
    """Import trl and what it brings, without what these do to the cell that does so; takes seconds.

    trl 1.16 draws from Python's random numbers, which are the user's, and imports MLflow, which looks its
    maker's server up. bitsandbytes 0.50, where it is installed, tells on CPUs of a kernel that it would
    like.
    """
    before, talker = random.getstate(), logging.getLogger("bitsandbytes")
    level = talker.level
    talker.setLevel(logging.ERROR)
    try:
        with without_telemetry():
            importlib.import_module("rf_notebook.training.runner")
    finally:
        talker.setLevel(level)
        random.setstate(before)
