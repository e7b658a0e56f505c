"""An experiment in a process that gets killed: FOLDER [KILL_POINT TIMES].

Runs the demo's small search to its end, or until the process kills itself at a commit point for the
n-th time, or at the n-th TOKEN that a run draws.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import torch

from rf_notebook import Experiment
from rf_notebook.automl import (
    List,
    RFDPOConfig,
    RFGRPOConfig,
    RFLoraConfig,
    RFModelConfig,
    RFSFTConfig,
)
from rf_notebook.core.ports import CommitPoint
from rf_notebook.testing.tiny import create_tiny, preference_rows

EXECUTION = os.environ.get("RF_CRASH_EXECUTION", "exact")
TRAINING = {
    "learning_rate": 1e-3,
    "per_device_train_batch_size": 2,
    "num_train_epochs": 2,
    "logging_steps": 2,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
}
LORA = {"lora_alpha": 16, "lora_dropout": 0.1, "target_modules": ["q_proj", "v_proj"]}


def reward(completions: list[str], **kwargs: Any) -> list[float]:
    return [sum(map(ord, text)) % 17 / 17 for text in completions]


def searches() -> list[RFModelConfig]:
    """Two SFT runs, one DPO run and one GRPO run whose generations serve several steps."""
    adapter = RFLoraConfig(r=4, **LORA)
    return [
        RFModelConfig(
            model_name="tiny",
            peft_config=RFLoraConfig(r=List([4, 8]), **LORA),
            training_args=RFSFTConfig(max_length=64, **TRAINING),
        ),
        RFModelConfig(
            model_name="tiny",
            peft_config=adapter,
            training_args=RFDPOConfig(max_length=64, **TRAINING),
        ),
        RFModelConfig(
            model_name="tiny",
            peft_config=adapter,
            training_args=RFGRPOConfig(
                **{**TRAINING, "per_device_train_batch_size": 4},
                per_device_eval_batch_size=2,
                num_generations=2,
                num_iterations=2,
                steps_per_generation=2,
                max_completion_length=4,
                max_steps=30,
                beta=0.05,
            ),
            reward_funcs=reward,
        ),
    ]


def experiment(folder: str) -> Experiment:
    return Experiment("crash", experiment_path=folder)


def run(one: Experiment) -> None:
    one.run_fit(
        searches(),
        create_tiny,
        preference_rows(24, 1),
        preference_rows(4, 2),
        num_chunks=3,
        execution=EXECUTION,
    )


class KillAt:
    """A commit observer that ends the process the hard way."""

    def __init__(self, point: str, times: int) -> None:
        self.point, self.left = CommitPoint[point], times

    def __call__(self, point: CommitPoint) -> None:
        if point is self.point:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def kill_at_token(number: int) -> None:
    """End the process when so many tokens were drawn."""
    own, left = torch.multinomial, [number]

    def multinomial(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return own(*args, **kwargs)

    torch.multinomial = multinomial


def main() -> None:
    one = experiment(sys.argv[1])
    if len(sys.argv) > 2 and sys.argv[2] == "TOKEN":
        kill_at_token(int(sys.argv[3]))
    elif len(sys.argv) > 2:
        one.session.observer = KillAt(sys.argv[2], int(sys.argv[3]))
    run(one)
    print("started", flush=True)
    # Operations whose outcome does not depend on when they come: in one life or in several, the
    # curves are the same.
    one.stop(1)
    one.wait()
    if one.run(1).state == "stopped":
        one.resume(1)
    one.wait()
    if not [run for run in one.runs if run.parent == 2]:
        one.clone(2, {"learning_rate": 3e-3, "r": 16}, warm_start=True)
    one.wait()
    one.end()
    print("done", flush=True)


if __name__ == "__main__":
    main()
