"""Notebooks in the style of the reference: OPTUNA, CONTROLS, LOGS."""

from __future__ import annotations

from tests.notebooks.reference_style.fitting import SFT

OPTUNA = [
    "RF_SEED = 42",
    """
import os
os.environ["RF_MLFLOW_ENABLED"] = "true"
""",
    """
from rf_notebook import Experiment
from rf_notebook.automl import (
    List,
    Range,
    RFOptuna,
    RFModelConfig,
    RFLoraConfig,
    RFSFTConfig,
)
""",
    *SFT[1:3],
    SFT[4],
    """
experiment = Experiment(experiment_name="exp-optuna-chatqa-tiny1", mode="fit")
""",
    """
config_template = RFModelConfig(
    model_name="base",
    peft_config=RFLoraConfig(
        r=List([8, 32]),
        lora_alpha=List([16, 32, 64, 128]),
        lora_dropout=0.1,
        target_modules=List([
            ["q_proj", "v_proj"],
            ["q_proj", "k_proj", "v_proj", "o_proj"],
        ]),
        bias="none",
    ),
    training_args=RFSFTConfig(
        learning_rate=List([1e-3, 1e-4]),
        lr_scheduler_type="linear",
        per_device_train_batch_size=4,
        per_device_eval_batch_size=4,
        max_steps=16,
        gradient_accumulation_steps=1,
        logging_steps=2,
        eval_strategy="steps",
        eval_steps=4,
        bf16=False,
    ),
    model_type="causal_lm",
    model_kwargs={"device_map": "auto", "torch_dtype": "auto", "use_cache": False},
    formatting_func=sample_formatting_function,
    compute_metrics=sample_compute_metrics,
    generation_config={"max_new_tokens": 8, "temperature": 0.8, "top_p": 0.9, "top_k": 30, "repetition_penalty": 1.05},
)
""",
    """
config_group = RFOptuna(
    configs=[config_template],
    trainer_type="SFT",
    n_initial=4,
    budget=6,
    objective="maximize:overlap",
    sampler="tpe",
    pruner="median",
    seed=RF_SEED,
)
""",
    SFT[6],
    """
experiment.run_fit(
    config_group,
    sample_create_model,
    train_dataset,
    eval_dataset,
    num_chunks=4,
    seed=RF_SEED)
""",
    """
import pandas as pd
from optuna.trial import TrialState

study = config_group._study

completed = [t for t in study.trials if t.state == TrialState.COMPLETE]
pruned = [t for t in study.trials if t.state == TrialState.PRUNED]
try:
    best = study.best_trial
    print(f"Best trial: #{best.number} with overlap = {best.value:.4f}")
except ValueError as exc:
    print(f"No best trial available yet ({exc}).")

trials_df = pd.DataFrame([
    {
        "trial": t.number,
        "state": t.state.name,
        "best": "yes" if t.number == study.best_trial.number else "",
        **{k.split(".")[-1]: v for k, v in t.params.items()},
        "overlap": f"{t.value:.4f}" if t.value is not None else "-",
    }
    for t in study.trials
])
""",
    """
results = experiment.get_results()
experiment.end()
assert len(trials_df) == len(experiment.runs) == 6, (trials_df, experiment.messages)
assert len(completed) + len(pruned) == 6
assert {"r", "lora_alpha", "target_modules", "learning_rate"} <= set(trials_df.columns)
assert set(results.run_id) == {1, 2, 3, 4, 5, 6}
""",
]

#: The end of its notebooks for hosted front ends: where the trackers' files would be, the controls,
#: the logs.
CONTROLS = """
from time import sleep
sleep(1)
from rf_notebook.fit.utils.interactive_controller import InteractiveController

controller = InteractiveController(dispatcher_url="http://127.0.0.1:8851")
controller.display()
"""
LOGS = """
from IPython.display import display, Pretty
for kind in (None, "training"):
    log_file = experiment.get_log_file_path(kind)
    assert log_file.exists()
    with open(log_file, 'r', encoding='utf-8') as f:
        for line in f.readlines()[-3:]:
            display(Pretty(line.rstrip()))
"""

#: Its hosted tutorial: whole texts made of question and answer, metrics of generated texts, a
#: tracker's folder.
