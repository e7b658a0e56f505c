"""Twelve notebooks on the offline kit, with everything that can happen to an experiment."""

from __future__ import annotations

HEADER = """
import time
from rf_notebook import Experiment
from rf_notebook.automl import List, RFDPOConfig, RFGRPOConfig, RFGridSearch, RFLoraConfig, RFModelConfig, RFSFTConfig
from rf_notebook.testing.tiny import create_tiny, preference_rows, prompt_rows

def until(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)

COMMON = dict(per_device_train_batch_size=2, num_train_epochs=2, learning_rate=List([1e-3, 3e-3]), logging_steps=2, use_cpu=True, bf16=False)
LORA = RFLoraConfig(r=4, lora_alpha=8, lora_dropout=0.1, target_modules=["q_proj", "v_proj"])
"""
SFT = """
def config(**more):
    return RFModelConfig(model_name="tiny", peft_config=LORA, training_args=RFSFTConfig(**{**COMMON, "max_length": 64, **more}))
rows, held_out = prompt_rows(24, 1), prompt_rows(6, 2)
"""
#: Rows that a cell of the notebook formats.
FORMATTED = """
def shout(row):
    return {"prompt": row["prompt"].upper(), "completion": row["completion"]}

search = RFModelConfig(
    model_name="tiny", peft_config=LORA, formatting_func=shout,
    training_args=RFSFTConfig(**{**COMMON, "max_length": 64}),
)
rows, held_out = prompt_rows(24, 1), prompt_rows(6, 2)
"""
DPO = """
search = RFModelConfig(
    model_name="tiny", peft_config=LORA,
    training_args=RFDPOConfig(**{**COMMON, "max_length": 64, "beta": List([0.1, 0.5]), "learning_rate": 1e-3}),
)
rows = preference_rows(16, 1)
"""
GRPO = """
def short(completions, **columns):
    return [-float(len(text)) for text in completions]

search = RFModelConfig(
    model_name="tiny", peft_config=LORA, reward_funcs=[short],
    training_args=RFGRPOConfig(
        per_device_train_batch_size=4, num_generations=4, max_completion_length=8, num_train_epochs=1,
        learning_rate=List([1e-3, 3e-3]), logging_steps=1, use_cpu=True, bf16=False,
    ),
)
rows = prompt_rows(6, 1).remove_columns("completion")
"""
FIT = "experiment = Experiment({name!r})\nexperiment.run_fit({search}, create_tiny, {data}, num_chunks=3, seed=1{more})"


def fit(
    name: str,
    search: str = 'RFGridSearch(config(), "SFT")',
    data: str = "rows, held_out",
    more: str = "",
) -> str:
    return FIT.format(name=name, search=search, data=data, more=more)


END = "experiment.wait(); experiment.end()"
NOTEBOOKS: dict[str, list[str]] = {
    "plain": [HEADER, SFT, fit("plain"), END],
    "formatted": [HEADER, FORMATTED, fit("formatted", 'RFGridSearch(search, "SFT")'), END],
    "stops": [
        HEADER,
        SFT,
        fit("stops"),
        """
until(lambda: experiment.run(1).steps >= 5)
experiment.stop(1).result()
until(lambda: experiment.run(2).steps >= 9)
experiment.resume(1).result()
experiment.stop(2).result()
""",
        END,
    ],
    "clones": [
        HEADER,
        SFT,
        fit("clones"),
        """
until(lambda: experiment.run(2).steps >= 3)
experiment.clone(1, {"learning_rate": 2e-3, "r": 8}).result()
until(lambda: experiment.run(3).steps >= 3)
experiment.clone(3, {"training_args.seed": 7}).result()
""",
        END,
    ],
    "warm": [
        HEADER,
        SFT,
        fit("warm"),
        """
until(lambda: experiment.run(1).steps >= 5)
experiment.clone(1, {"r": 8}, warm_start=True).result()
until(lambda: experiment.run(3).steps >= 4)
experiment.stop(1).result()
experiment.clone(3, {"learning_rate": 1e-4}, warm_start=True).result()
""",
        END,
    ],
    "deletes": [
        HEADER,
        SFT,
        fit("deletes"),
        """
until(lambda: experiment.run(1).steps >= 3)
experiment.delete(1).result()
until(lambda: experiment.run(2).steps >= 5)
experiment.clone(2, {"learning_rate": 5e-4}).result()
experiment.delete(2).result()
""",
        END,
    ],
    "failures": [
        HEADER,
        SFT,
        """
def fails(completions, **columns):
    raise ValueError("no reward today")

bad = RFModelConfig(model_name="tiny", peft_config=LORA, reward_funcs=[fails], training_args=RFGRPOConfig(
    per_device_train_batch_size=4, num_generations=4, max_completion_length=8, num_train_epochs=1, learning_rate=1e-3, use_cpu=True, bf16=False))
""",
        fit("failures", '[RFGridSearch(config(), "SFT"), RFGridSearch(bad, "GRPO")]'),
        """
until(lambda: experiment.run(3).state == "failed")
until(lambda: experiment.run(1).steps >= 3)
experiment.clone(1, {"learning_rate": 2e-3}).result()
""",
        END,
    ],
    "dpo": [
        HEADER,
        DPO,
        fit("dpo", 'RFGridSearch(search, "DPO")', "rows, None"),
        "until(lambda: experiment.run(1).steps >= 4)\nexperiment.stop(1).result()\nexperiment.resume(1).result()",
        END,
    ],
    "grpo": [
        HEADER,
        GRPO,
        fit("grpo", 'RFGridSearch(search, "GRPO")', "rows, None"),
        """
def long(completions, **columns):
    return [float(len(text)) for text in completions]

until(lambda: experiment.run(1).steps >= 2)
experiment.clone(1, {"reward_funcs": [long]}, warm_start=True).result()
""",
        END,
    ],
    "full": [
        HEADER,
        SFT,
        """
whole = RFModelConfig(model_name="tiny", training_args=RFSFTConfig(**{**COMMON, "max_length": 64, "learning_rate": List([1e-4, 1e-3])}))
""",
        fit("full", 'RFGridSearch(whole, "SFT")'),
        "until(lambda: experiment.run(1).steps >= 4)\nexperiment.clone(1, {'learning_rate': 5e-4}).result()",
        END,
    ],
    "mixed": [
        HEADER,
        SFT,
        """
preferred = RFModelConfig(model_name="tiny", peft_config=LORA, training_args=RFDPOConfig(**{**COMMON, "max_length": 64, "learning_rate": 1e-3}))
rows = preference_rows(16, 1)
""",
        fit(
            "mixed", '[RFGridSearch(config(), "SFT"), RFGridSearch(preferred, "DPO")]', "rows, None"
        ),
        """
until(lambda: experiment.run(1).steps >= 4)
experiment.clone(1, RFDPOConfig(per_device_train_batch_size=2, max_length=64, learning_rate=5e-4, gradient_checkpointing=False, use_cpu=True, bf16=False), warm_start=True).result()
experiment.stop(2).result()
""",
        "experiment.wait(); experiment.end(cancel=True)",
    ],
    #: The recorder's process is killed in the middle of its first attempt.
    "killed": [
        HEADER,
        SFT,
        fit("killed"),
        """
if not experiment.operations:
    until(lambda: experiment.run(1).steps >= 5)
    experiment.clone(1, {"learning_rate": 2e-3}, warm_start=True).result()
    until(lambda: experiment.run(3).steps >= 6)
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)
""",
        END,
    ],
}
