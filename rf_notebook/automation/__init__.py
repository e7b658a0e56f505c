"""Policies: at every chunk boundary they may stop, resume and clone runs, and say why. All of it can be undone."""

from rf_notebook.automation.halving import Halving
from rf_notebook.automation.median import MedianStop
from rf_notebook.automation.policy import Clone, Decision, Policies, Policy, Resume, RunView, Stop, View
from rf_notebook.automation.stop_rules import StopRules

__all__ = [
    "Clone",
    "Decision",
    "Halving",
    "MedianStop",
    "Policies",
    "Policy",
    "Resume",
    "RunView",
    "Stop",
    "StopRules",
    "View",
]
