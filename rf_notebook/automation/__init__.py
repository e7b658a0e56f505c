"""Policies: at every chunk boundary they may stop, resume and clone runs, and say why.

All of it can be undone.
"""

from rf_notebook.automation.async_halving import AsyncHalving
from rf_notebook.automation.evolve import Evolve
from rf_notebook.automation.halving import Halving
from rf_notebook.automation.median import MedianStop
from rf_notebook.automation.pareto import KeepPareto
from rf_notebook.automation.policies import Policies
from rf_notebook.automation.policy import (
    Boundary,
    Clone,
    Decision,
    Obeyed,
    Policy,
    Resume,
    RunView,
    Stop,
    View,
)
from rf_notebook.automation.stop_rules import StopRules

__all__ = [
    "AsyncHalving",
    "Boundary",
    "Clone",
    "Decision",
    "Evolve",
    "Halving",
    "KeepPareto",
    "MedianStop",
    "Obeyed",
    "Policies",
    "Policy",
    "Resume",
    "RunView",
    "Stop",
    "StopRules",
    "View",
]
