"""Odd values for every public argument: refused in a sentence, or taken, and never a raw error."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rf_notebook.automl import List, Range, RFGridSearch, RFModelConfig
from rf_notebook.automl.adapter_configs import ADAPTER_CONFIGS
from rf_notebook.automl.library_configs import TRAINING_CONFIGS
from rf_notebook.core.errors import RFNotebookError
from rf_notebook.core.objects import Objects
from tests.campaign.part import Part


def _nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


_ODD: list[Callable[[], Any]] = [
    lambda: None, lambda: True, lambda: -1, lambda: 0, lambda: 10**400, lambda: -(10**400), lambda: float("nan"),
    lambda: float("inf"), lambda: 1e308, lambda: "", lambda: "\0", lambda: "\ud800", lambda: "x" * 100_000, lambda: "../../etc",
    lambda: b"bytes", lambda: [], lambda: {}, lambda: {1: 2}, lambda: {"a": {"b": [1]}}, lambda: _nested(5), lambda: _nested(2000),
    lambda: set(), lambda: {1, "a"}, lambda: (1, 2), lambda: object(), lambda: int, lambda: print, lambda: (lambda x: x),
    lambda: np.arange(3), lambda: np.float64(0.5), lambda: np.array([]), lambda: pd.Series([1, 2]), lambda: pd.DataFrame({"a": [1]}),
    lambda: List([1, 2]), lambda: List([List([1])]), lambda: Range(1, 2), lambda: 1j, lambda: Path("\0"), lambda: ..., lambda: range(3),
    lambda: iter([1]), lambda: Exception("x"), lambda: float, lambda: "1e-4", lambda: "true", lambda: [None, [None]],
]  # fmt: skip


class Malformed(Part):
    """Of the configs and the searches over them."""

    def attempt(self, draw: random.Random) -> str:
        """See Part."""

        def some_of(names: Collection[str]) -> dict[str, Any]:
            known = [*names, "nothing"]
            return {draw.choice(known): draw.choice(_ODD)() for _ in range(draw.randrange(3))}

        method = draw.choice(sorted(TRAINING_CONFIGS))
        training_class = TRAINING_CONFIGS[method]
        adapter_class = draw.choice(list(ADAPTER_CONFIGS.values()))
        try:
            given = {
                "model_name": "tiny",
                "peft_config": adapter_class(**some_of(adapter_class.known())),
                "training_args": training_class(**some_of(training_class.known())),
            } | some_of(RFModelConfig.FIELDS)
            of_search = method if draw.random() < 0.5 else draw.choice(_ODD)()
            search = RFGridSearch(RFModelConfig(**given), of_search)
            search.run_configs(Objects(), seed=1, data_seed=None)
        except RFNotebookError as error:
            if "\n" in str(error).strip():
                return f"more than a sentence: {error}"
        return ""
