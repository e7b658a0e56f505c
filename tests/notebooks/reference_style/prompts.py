"""Notebooks in the style of the reference: PROMPTS, MASKING."""

from __future__ import annotations

PROMPTS = [
    """
import os, random, numpy as np, torch

SEED = 42
random.seed(SEED)
np.random.seed(SEED)
torch.manual_seed(SEED)
os.environ["RF_TRACKING_BACKEND"] = "tensorboard"
from rf_notebook import Experiment
from rf_notebook.automl import List, RFGridSearch, RFModelConfig, RFLoraConfig, RFSFTConfig
from datasets import load_dataset
dataset = load_dataset("json", data_files="support.json")
train_dataset = dataset["train"].select(range(16)).shuffle(seed=SEED)
eval_dataset = dataset["train"].select(range(32, 36)).shuffle(seed=SEED)
""",
    """
def add_prompts(ex):
    return {
        "text_qa":   f"Question: {ex['instruction']}\\nAnswer: {ex['response']}",
        "text_inst": f"### Instruction:\\n{ex['instruction']}\\n\\n### Response:\\n{ex['response']}",
    }

train_dataset = train_dataset.map(add_prompts)
eval_dataset = eval_dataset.map(add_prompts)

def format_qa(ex):   return {"text": ex["text_qa"]}
def format_inst(ex): return {"text": ex["text_inst"]}
""",
    """
def compute_metrics(eval_preds):
    preds, labels = eval_preds
    if not isinstance(preds, (list, tuple)) or not isinstance(labels, (list, tuple)):
        return {}
    return {"bleu": 1.0}
""",
    """
from datetime import datetime

experiment_name = f"sft-shop-{datetime.now().strftime('%m%d-%H%M%S')}"
experiment = Experiment(experiment_name=experiment_name, mode="fit")
lora_knob = List([
    RFLoraConfig(r=8, lora_alpha=16, lora_dropout=0.1, target_modules=["c_attn"], bias="none"),
    RFLoraConfig(r=32, lora_alpha=64, lora_dropout=0.1, target_modules=["c_attn", "c_proj"], bias="none"),
])

def make_cfg(model, scheme, fmt):
    return RFModelConfig(
        model_name=model,
        peft_config=lora_knob,
        training_args=RFSFTConfig(
            learning_rate=3e-4,
            lr_scheduler_type="linear",
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            max_steps=4,
            logging_steps=1,
            eval_strategy="steps",
            eval_steps=2,
            per_device_eval_batch_size=2,
            gradient_checkpointing=True,
            bf16=False,
            report_to="tensorboard",
            run_name=f"{experiment_name}|{model}|{scheme}",
        ),
        model_type="causal_lm",
        model_kwargs={"device_map": "auto", "torch_dtype": "float32", "use_cache": False},
        formatting_func=fmt,
        compute_metrics=compute_metrics,
    )

configs = List([
    make_cfg("gpt2",       "qa",   format_qa),
    make_cfg("gpt2",       "inst", format_inst),
    make_cfg("distilgpt2", "qa",   format_qa),
    make_cfg("distilgpt2", "inst", format_inst),
])
""",
    """
def create_model_fn(cfg):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(cfg["model_name"], **cfg["model_kwargs"])
    tokenizer = AutoTokenizer.from_pretrained(cfg["model_name"])
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    model.config.pad_token_id = model.config.eos_token_id
    return model, tokenizer
""",
    """
import warnings
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    experiment.run_fit(
        RFGridSearch(configs, trainer_type="SFT"),
        create_model_fn,
        train_dataset,
        eval_dataset,
        num_chunks=4,
        seed=SEED,
    )
assert not any("report_to" in str(one.message) for one in told), told
experiment.end()
assert len(list((experiment.folder / "tensorboard").rglob("events.out.*"))) == 8
""",
    """
assert [str(run.state) for run in experiment.runs] == ["completed"] * 8, [run.traceback for run in experiment.runs]
losses = experiment.get_results().groupby("run_id").eval_loss.last()
assert losses.nunique() == 8, "two prompts, two ranks and two models train differently"
""",
]

#: A fourth: texts whose rows name their parts otherwise, several experiments, and a loop that asks
#: for the runs.
MASKING = [
    """
from rf_notebook import Experiment
from rf_notebook.automl import List, RFGridSearch, RFModelConfig, RFLoraConfig, RFSFTConfig
from datasets import load_dataset
full_train = load_dataset("json", data_files="masking.json")["train"]
train_dataset = full_train.select(range(16)).shuffle(seed=42)
eval_dataset = full_train.select(range(32, 36)).shuffle(seed=42)
""",
    '''
def formatting_function_prompt_a(example):
    prompt = f"""Instruction: Mask the names.
Text:
{example['source_text']}
Masked:
"""
    return {
        "text": prompt + example['masked_text'],
        "source_text": example['source_text'],
        "masked_text": example['masked_text'],
    }
''',
    """
def compute_metrics_pii(eval_preds):
    predictions, labels = eval_preds
    exact_matches = sum(p.strip().lower() == l.strip().lower() for p, l in zip(predictions, labels))
    return {
        "exact_match": round(exact_matches / len(predictions), 4),
        "num_exact_matches": exact_matches,
        "total_examples": len(predictions),
    }
""",
    """
my_experiment = "pii-masking-v1"
experiment = Experiment(experiment_name=my_experiment, mode="fit")
from rf_notebook.fit.db.rf_db import RfDb

db = RfDb()
experiment_path = db.get_experiments_path(my_experiment)
exp_name = f"{my_experiment}-all"
experiment = Experiment(experiment_name=exp_name, mode="fit")
experiment_path = db.get_experiments_path(exp_name)
""",
    """
config_group = RFGridSearch(
    configs=List([
        RFModelConfig(
            model_name="gpt2",
            peft_config=List([
                RFLoraConfig(r=8, lora_alpha=16, lora_dropout=0.1, target_modules=["c_attn"], bias="none"),
                RFLoraConfig(r=32, lora_alpha=64, lora_dropout=0.1, target_modules=["c_attn", "c_proj"], bias="none"),
            ]),
            training_args=RFSFTConfig(
                learning_rate=5e-4,
                lr_scheduler_type="linear",
                per_device_train_batch_size=2,
                gradient_accumulation_steps=2,
                max_steps=4,
                logging_steps=2,
                eval_strategy="steps",
                eval_steps=2,
                per_device_eval_batch_size=4,
                gradient_checkpointing=True,
                bf16=False,
                report_to="none",
            ),
            model_type="causal_lm",
            model_kwargs={"device_map": "auto", "torch_dtype": "float32", "use_cache": False},
            formatting_func=formatting_function_prompt_a,
            compute_metrics=compute_metrics_pii,
            generation_config={"max_new_tokens": 8, "temperature": 0.7, "top_p": 0.9, "top_k": 40,
                               "repetition_penalty": 1.1, "pad_token_id": 0},
        ),
    ]),
    trainer_type="SFT"
)
""",
    PROMPTS[4],
    """
import warnings
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    experiment.run_fit(config_group, create_model_fn, train_dataset, eval_dataset, num_chunks=2, seed=42)
assert any("no column of eval_dataset" in str(one.message) for one in told), told
""",
    """
import time
while True:
    runs_info = experiment.get_runs_info()
    if runs_info is not None and not runs_info.empty:
        active_runs = runs_info[runs_info['status'].isin(['New', 'Ongoing'])]
        if len(active_runs) == 0:
            break
    time.sleep(0.5)
experiment.end()
""",
    """
assert [str(run.state) for run in experiment.runs] == ["completed"] * 2, [run.traceback for run in experiment.runs]
assert set(experiment.get_results().total_examples.dropna()) == {4}
""",
]
