"""Train many LLM fine-tuning configs at once in a notebook.

Exact to plain TRL, controlled live, recoverable.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rf_notebook import automl, demo
    from rf_notebook.core.errors import (
        CheckpointDamaged,
        ConfigError,
        IllegalOperation,
        LeaseLost,
        ReadOnlyExperiment,
        RecordDamaged,
        RFNotebookError,
        StorageFull,
        StoreError,
        UnknownRun,
    )
    from rf_notebook.experiment import Experiment
    from rf_notebook.results.handle import Run
    from rf_notebook.shared import SharedExperiment

__version__ = "0.1.0"

#: Where each public name lives; nothing is imported before it is used.
_HOMES = {
    "CheckpointDamaged": "core.errors",
    "ConfigError": "core.errors",
    "Experiment": "experiment",
    "IllegalOperation": "core.errors",
    "LeaseLost": "core.errors",
    "RFNotebookError": "core.errors",
    "ReadOnlyExperiment": "core.errors",
    "RecordDamaged": "core.errors",
    "Run": "results.handle",
    "SharedExperiment": "shared",
    "StorageFull": "core.errors",
    "StoreError": "core.errors",
    "UnknownRun": "core.errors",
    "automl": "automl",
    "demo": "demo",
}

__all__ = [
    "CheckpointDamaged",
    "ConfigError",
    "Experiment",
    "IllegalOperation",
    "LeaseLost",
    "RFNotebookError",
    "ReadOnlyExperiment",
    "RecordDamaged",
    "Run",
    "SharedExperiment",
    "StorageFull",
    "StoreError",
    "UnknownRun",
    "automl",
    "demo",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'rf_notebook' has no attribute {name!r}")
    module = importlib.import_module(f"rf_notebook.{home}")
    return module if home == name else getattr(module, name)


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext rf_notebook``: register %rapidfire."""
    from rf_notebook.magic.extension import load

    load(shell)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
