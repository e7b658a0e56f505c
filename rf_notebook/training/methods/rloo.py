"""Reinforcement learning with a leave-one-out baseline: trl's RLOOTrainer."""

from __future__ import annotations

from trl import RLOOConfig, RLOOTrainer

from rf_notebook.training.methods.generating import Generating, GeneratingTrainer


class RunRLOOTrainer(GeneratingTrainer, RLOOTrainer):
    """RLOOTrainer without side effects."""


class RLOO(Generating):
    """See Method."""

    name = "RLOO"
    config_class = RLOOConfig
    trainer_class = RunRLOOTrainer
