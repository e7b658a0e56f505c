"""Notebooks as RapidFire AI's users write them, with only the package's name changed in the imports."""

from __future__ import annotations

#: A notebook as RapidFire AI's users write it, with only the package's name changed in the imports. The data and the
#: base model are local, for tests reach no hub; everything else is the usual shape.
SFT = [
    """
from rf_notebook import Experiment
from rf_notebook.automl import List, RFGridSearch, RFModelConfig, RFLoraConfig, RFSFTConfig
""",
    """
from datasets import load_dataset
dataset = load_dataset("json", data_files="support.json")
train_dataset = dataset["train"].select(range(64)).shuffle(seed=42)
eval_dataset = dataset["train"].select(range(64, 76)).shuffle(seed=42)
""",
    '''
def sample_formatting_function(row):
    """Function to preprocess each example from dataset"""
    return {
        "prompt": [
            {"role": "system", "content": "You are a helpful support assistant."},
            {"role": "user", "content": row["instruction"]},
        ],
        "completion": [{"role": "assistant", "content": row["response"]}],
    }
''',
    """
experiment = Experiment(experiment_name="exp1-chatqa-lite", mode="fit")
""",
    '''
def sample_compute_metrics(eval_preds):
    """Optional function to compute eval metrics based on predictions and labels"""
    predictions, labels = eval_preds
    same = [len(set(p.split()) & set(l.split())) / max(len(set(l.split())), 1) for p, l in zip(predictions, labels)]
    return {"overlap": round(sum(same) / len(same), 4), "rows": len(predictions)}
''',
    """
peft_configs_lite = List([
    RFLoraConfig(r=8, lora_alpha=16, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], bias="none"),
    RFLoraConfig(r=32, lora_alpha=64, lora_dropout=0.1,
                 target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], bias="none"),
])
config_set_lite = List([
    RFModelConfig(
        model_name="base",
        peft_config=peft_configs_lite,
        training_args=RFSFTConfig(
            learning_rate=rate,
            lr_scheduler_type="linear",
            per_device_train_batch_size=4,
            per_device_eval_batch_size=4,
            max_steps=16,
            gradient_accumulation_steps=1,
            logging_steps=2,
            eval_strategy="steps",
            eval_steps=4,
            fp16=False,
            bf16=False,
        ),
        model_type="causal_lm",
        model_kwargs={"device_map": "auto", "torch_dtype": "auto", "use_cache": False},
        formatting_func=sample_formatting_function,
        compute_metrics=sample_compute_metrics,
        generation_config={"max_new_tokens": 8, "temperature": 0.8, "top_p": 0.9, "top_k": 30,
                           "repetition_penalty": 1.05},
    )
    for rate in (1e-3, 1e-4)
])
""",
    '''
def sample_create_model(model_config):
    """Function to create model object for any given config; must return tuple of (model, tokenizer)"""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model_name = model_config["model_name"]
    model_type = model_config["model_type"]
    model_kwargs = model_config["model_kwargs"]
    if model_type == "causal_lm":
        model = AutoModelForCausalLM.from_pretrained(model_name, **model_kwargs)
    tokenizer = AutoTokenizer.from_pretrained(model_name)
    return (model, tokenizer)
''',
    """
config_group = RFGridSearch(configs=config_set_lite, trainer_type="SFT")
""",
    """
experiment.run_fit(config_group, sample_create_model, train_dataset, eval_dataset, num_chunks=4, seed=42)
""",
    """
experiment.end()
""",
    """
results = experiment.get_results()
assert [str(run.state) for run in experiment.runs] == ["completed"] * 4, [run.traceback for run in experiment.runs]
assert set(results.run_id) == {1, 2, 3, 4}
assert (results.groupby("run_id").overlap.count() == 4).all(), results
assert (results.groupby("run_id").eval_loss.count() == 4).all()
assert (results.rows.dropna() == 12).all()
""",
]


#: Its DPO tutorial: three losses over one LoRA, an 8-bit optimizer, arguments of older versions of trl.
DPO = [
    """
from rf_notebook import Experiment
from rf_notebook.automl import List, RFGridSearch, RFModelConfig, RFLoraConfig, RFDPOConfig
""",
    """
from datasets import load_dataset
train_dataset = load_dataset("json", data_files="pairs.json", split="train").select(range(48))
""",
    """
experiment = Experiment(experiment_name="exp1-sft-dpo", mode="fit")
""",
    """
from peft import TaskType

base_lora_config = RFLoraConfig(
    task_type=TaskType.CAUSAL_LM, r=8, lora_alpha=8, lora_dropout=0.1,
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], bias="none",
)
base_dpo_config = RFDPOConfig(
    model_adapter_name="default",
    ref_adapter_name="reference",
    force_use_ref_model=False,
    loss_type="sigmoid",
    beta=0.1,
    max_prompt_length=64,
    max_completion_length=64,
    max_length=128,
    per_device_train_batch_size=2,
    gradient_accumulation_steps=4,
    learning_rate=5e-4,
    warmup_ratio=0.1,
    weight_decay=0,
    lr_scheduler_type="linear",
    num_train_epochs=1,
    optim="adamw_8bit",
    bf16=False,
    use_cpu=True,
    save_strategy="epoch",
    logging_strategy="steps",
    logging_steps=1,
)
""",
    """
lora_config_1 = base_lora_config.copy()
dpo_config_1 = base_dpo_config.copy()
dpo_config_2 = base_dpo_config.copy()
dpo_config_2.loss_type = "robust"
dpo_config_2.label_smoothing = 0.2
dpo_config_3 = base_dpo_config.copy()
dpo_config_3.loss_type = ["sigmoid", "bco_pair", "sft"]
dpo_config_3.loss_weights = [0.8, 0.2, 1.0]
""",
    """
import torch

config_set = List([
    RFModelConfig(
        model_name="base",
        ref_model_name=None,
        peft_config=lora_config_1,
        training_args=dpo_config,
        model_kwargs={"device_map": "auto", "torch_dtype": torch.float32},
        tokenizer_kwargs={"model_max_length": 256, "padding_side": "right", "truncation": True},
    )
    for dpo_config in (dpo_config_1, dpo_config_2, dpo_config_3)
])
""",
    '''
def sample_create_model(model_config):
    """Function to create model object for any given config; must return tuple of (model, tokenizer)"""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(model_config["model_name"], **model_config["model_kwargs"])
    model.config.use_cache = False
    tokenizer = AutoTokenizer.from_pretrained(model_config["model_name"], **model_config["tokenizer_kwargs"])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return (model, tokenizer)
''',
    """
config_group = RFGridSearch(configs=config_set, trainer_type="DPO")
experiment.run_fit(config_group, sample_create_model, train_dataset, eval_dataset=None, num_chunks=4, seed=42)
""",
    """
experiment.end()
""",
    """
assert [str(run.state) for run in experiment.runs] == ["completed"] * 3, [run.traceback for run in experiment.runs]
assert {"rewards/margins", "rewards/accuracies"} <= set(experiment.get_results().columns)
""",
]

#: Its GRPO tutorial: five reward functions, two base models, one of them in 4 bits.
GRPO = [
    """
from rf_notebook import Experiment
from rf_notebook.automl import List, RFGridSearch, RFModelConfig, RFLoraConfig, RFGRPOConfig
""",
    """
from datasets import load_dataset
data = load_dataset("json", data_files="questions.json", split="train")
train_dataset = data.select(range(16)).shuffle(seed=42)
eval_dataset = data.select(range(16, 20)).shuffle(seed=42)
""",
    '''
def sample_formatting_function(row):
    """Function to preprocess each example from dataset"""
    return {
        "prompt": [
            {"role": "system", "content": "Answer."},
            {"role": "user", "content": row["question"]},
        ],
        "question": row["question"],
        "answer": row["answer"],
    }
''',
    """
experiment = Experiment(experiment_name="exp1-math-reasoning", mode="fit")
""",
    """
def correctness_reward_func(prompts, completions, answer, **kwargs) -> list[float]:
    responses = [completion[0]["content"] for completion in completions]
    return [2.0 if r == a else 0.0 for r, a in zip(responses, answer)]

def int_reward_func(completions, **kwargs) -> list[float]:
    return [0.5 if completion[0]["content"].strip().isdigit() else 0.0 for completion in completions]

def strict_format_reward_func(completions, **kwargs) -> list[float]:
    import re
    return [0.5 if re.match(r"^[A-Z].*[.]$", completion[0]["content"]) else 0.0 for completion in completions]

def soft_format_reward_func(completions, **kwargs) -> list[float]:
    return [0.5 if "." in completion[0]["content"] else 0.0 for completion in completions]

def count_reward_func(completions, **kwargs) -> list[float]:
    return [len(completion[0]["content"].split()) * 0.125 for completion in completions]
""",
    """
lora_config = RFLoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, target_modules=["q_proj", "v_proj"], bias="none")
grpo_config1 = RFGRPOConfig(
    learning_rate=5e-6,
    warmup_ratio=0.1,
    weight_decay=0.1,
    max_grad_norm=0.1,
    adam_beta1=0.9,
    adam_beta2=0.99,
    lr_scheduler_type="linear",
    per_device_train_batch_size=4,
    gradient_accumulation_steps=2,
    num_generations=4,
    optim="adamw_8bit",
    num_train_epochs=2,
    max_prompt_length=64,
    max_completion_length=8,
    logging_steps=2,
    eval_steps=5,
    bf16=False,
    use_cpu=True,
)
grpo_config2 = grpo_config1.copy()
grpo_config2.learning_rate = 1e-5

reward_funcs = [
    correctness_reward_func,
    int_reward_func,
    strict_format_reward_func,
    soft_format_reward_func,
    count_reward_func,
]

config_set = List([
    RFModelConfig(
        model_name=name,
        peft_config=lora_config,
        training_args=args,
        formatting_func=sample_formatting_function,
        reward_funcs=reward_funcs,
        model_kwargs={"load_in_4bit": quantised, "device_map": "auto", "torch_dtype": "auto", "use_cache": False},
        tokenizer_kwargs={"model_max_length": 256, "padding_side": "right", "truncation": True},
    )
    for name, args, quantised in (("base", grpo_config1, False), ("base", grpo_config2, False), ("other", grpo_config1, True))
])
""",
    '''
def sample_create_model(model_config):
   """Function to create model object for any given config; must return tuple of (model, tokenizer)"""
   from transformers import AutoModelForCausalLM, AutoTokenizer

   model_name = model_config["model_name"]
   model_kwargs = model_config["model_kwargs"]
   tokenizer_kwargs = model_config["tokenizer_kwargs"]
   return (
      AutoModelForCausalLM.from_pretrained(model_name, **model_kwargs),
      AutoTokenizer.from_pretrained(model_name, **tokenizer_kwargs)
   )
''',
    """
config_group = RFGridSearch(configs=config_set, trainer_type="GRPO")
experiment.run_fit(config_group, sample_create_model, train_dataset, eval_dataset, num_chunks=4, seed=42)
""",
    """
experiment.end()
""",
    """
assert [str(run.state) for run in experiment.runs] == ["completed"] * 3, [run.traceback for run in experiment.runs]
results = experiment.get_results()
for name in ("correctness", "int", "strict_format", "soft_format", "count"):
    assert f"rewards/{name}_reward_func/mean" in results.columns
    assert f"eval_rewards/{name}_reward_func/mean" in results.columns
""",
]


#: Its Optuna tutorial: a search space in one config, weak runs replaced by further suggestions, the study looked at.
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

#: The end of its notebooks for hosted front ends: where the trackers' files would be, the controls, the logs.
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

#: Its hosted tutorial: whole texts made of question and answer, metrics of generated texts, a tracker's folder.
TEXTS = [
    """
import os
os.environ['RF_TRACKIO_ENABLED'] = 'true'
from rf_notebook import Experiment
from rf_notebook.automl import List, RFGridSearch, RFModelConfig, RFLoraConfig, RFSFTConfig
""",
    """
from datasets import load_dataset
dataset = load_dataset("json", data_files="support.json")
train_dataset = dataset["train"].select(range(16)).shuffle(seed=42)
eval_dataset = dataset["train"].select(range(32, 36)).shuffle(seed=42)
""",
    '''
def sample_formatting_function(example):
    """Format the dataset for fine-tuning"""
    return {"text": f"Question: {example['instruction']}\\nAnswer: {example['response']}"}

eval_dataset = eval_dataset.map(sample_formatting_function)
train_dataset = train_dataset.map(sample_formatting_function)
''',
    """
judged = []

def sample_compute_metrics(eval_preds):
    predictions, labels = eval_preds
    judged.append((predictions, labels))
    return {"rougeL": round(sum(len(p) for p in predictions) / len(labels), 4)}
""",
    """
my_experiment = "texts-demo-1"
experiment = Experiment(experiment_name=my_experiment, mode="fit")
""",
    """
from rf_notebook.fit.db.rf_db import RfDb

db = RfDb()
experiment_path = db.get_experiments_path(my_experiment)
tensorboard_log_dir = f"{experiment_path}/tensorboard_logs/{my_experiment}"
""",
    """
peft_configs_lite = List([
    RFLoraConfig(r=8, lora_alpha=16, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], bias="none"),
    RFLoraConfig(r=32, lora_alpha=64, lora_dropout=0.1,
                 target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], bias="none"),
])
generation_config = {"max_new_tokens": 8, "temperature": 0.7, "top_p": 0.9, "top_k": 40, "repetition_penalty": 1.1}
config_set_lite = List([
    RFModelConfig(
        model_name="base",
        peft_config=peft_configs_lite,
        training_args=RFSFTConfig(
            learning_rate=rate,
            lr_scheduler_type=schedule,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            max_steps=4,
            logging_steps=2,
            eval_strategy="steps",
            eval_steps=2,
            per_device_eval_batch_size=2,
            gradient_checkpointing=True,
            bf16=False,
            save_strategy="chunk",
            report_to="none",
            **more,
        ),
        model_type="causal_lm",
        model_kwargs={"device_map": "auto", "torch_dtype": "float32", "use_cache": False},
        formatting_func=sample_formatting_function,
        compute_metrics=sample_compute_metrics,
        generation_config=generation_config,
    )
    for rate, schedule, more in ((5e-4, "linear", {}), (2e-4, "cosine", {"warmup_steps": 2}))
])
""",
    '''
def sample_create_model(model_config):
    """Function to create model object for any given config; must return tuple of (model, tokenizer)"""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if model_config["model_type"] != "causal_lm":
        raise ValueError(f"Unknown model_type: {model_config['model_type']}")
    model = AutoModelForCausalLM.from_pretrained(model_config["model_name"], **model_config["model_kwargs"])
    tokenizer = AutoTokenizer.from_pretrained(model_config["model_name"])
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
        model.config.pad_token_id = model.config.eos_token_id
    tokenizer.padding_side = "left"
    return (model, tokenizer)
''',
    """
config_group = RFGridSearch(
    configs=config_set_lite,
    trainer_type="SFT"
)
""",
    """
experiment.run_fit(
    config_group,
    sample_create_model,
    train_dataset,
    eval_dataset,
    num_chunks=4,
    seed=42,
    num_gpus=1,
)
""",
    CONTROLS,
    """
experiment.end()
print("Done!")
""",
    LOGS,
    """
assert [str(run.state) for run in experiment.runs] == ["completed"] * 4, [run.traceback for run in experiment.runs]
assert (experiment.get_results().groupby("run_id").rougeL.count() >= 2).all()
assert all(labels == [row["response"].strip() for row in eval_dataset] for _, labels in judged)
assert os.path.samefile(f"{experiment_path}/{my_experiment}", experiment.folder)
info = experiment.get_runs_info()
assert list(info["status"]) == ["Completed"] * 4 and list(info["completed_steps"]) == [4] * 4, info
""",
]

#: A community notebook: messages with a system prompt from another column, two base models' worth of learning rates.
MESSAGES = [
    *TEXTS[:2],
    '''
def sample_formatting_function(row):
    """Function to preprocess each example from dataset"""
    system_content = f"You are talking to a child aged {row['age']}."
    return {
        "messages": [
            {"role": "system", "content": system_content},
            {"role": "user", "content": row['instruction']},
            {"role": "assistant", "content": row['response']}
        ]
    }

train_dataset = train_dataset.add_column("age", [5 + i % 9 for i in range(len(train_dataset))])
eval_dataset = eval_dataset.add_column("age", [5] * len(eval_dataset))
''',
    TEXTS[3],
    """
os.environ['RF_TRACKING_BACKEND'] = 'tensorboard'
my_experiment = 'sft-child-age'
experiment = Experiment(experiment_name=my_experiment, mode="fit")
""",
    TEXTS[5],
    TEXTS[6].replace('report_to="none"', 'report_to="tensorboard"'),
    TEXTS[7],
    "config_group = RFGridSearch(config_set_lite)",
    TEXTS[9],
    CONTROLS,
    "experiment.end()",
    LOGS,
    TEXTS[-1],
]

#: Another: a formatter that carries its own tokenizer, with columns of its own beside the text; both configs share it.
FORMATTER = [
    """
from rf_notebook import Experiment
from rf_notebook.automl import List, RFGridSearch, RFModelConfig, RFLoraConfig, RFSFTConfig
from datasets import load_dataset
from transformers import AutoTokenizer

model_id = "base"
tokenizer = AutoTokenizer.from_pretrained(model_id, trust_remote_code=True)
dataset = load_dataset("json", data_files={"train": "security.json", "validation": "security-eval.json"})
train_dataset = dataset["train"]
eval_dataset = dataset["validation"]
""",
    '''
class ChatFormatter:
    """Carries its own tokenizer."""

    def __init__(self, model_id):
        self.model_id = model_id
        self._tokenizer = None

    @property
    def tokenizer(self):
        if self._tokenizer is None:
            from transformers import AutoTokenizer
            self._tokenizer = AutoTokenizer.from_pretrained(self.model_id, trust_remote_code=True)
        return self._tokenizer

    def __call__(self, example):
        user_input = example.get('input', "") or ""
        full_content = f"{example.get('instruction', '')}\\n{user_input}".strip()
        messages = [
            {"role": "user", "content": full_content},
            {"role": "assistant", "content": example['output']}
        ]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
        return {"text": text, "user": full_content, "assistant": example['output']}

formatter = ChatFormatter(model_id)
''',
    TEXTS[3],
    """
my_experiment = "formatter_demo"
experiment = Experiment(experiment_name=my_experiment, mode="fit")
""",
    """
config_set = List([
    RFModelConfig(
        model_name=model_id,
        peft_config=List([
            RFLoraConfig(r=8, lora_alpha=16, lora_dropout=0.05, target_modules=["q_proj", "v_proj"], bias="none",
                         task_type="CAUSAL_LM"),
            RFLoraConfig(r=32, lora_alpha=64, lora_dropout=0.05, bias="none", task_type="CAUSAL_LM",
                         target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]),
        ]),
        training_args=RFSFTConfig(
            learning_rate=rate,
            lr_scheduler_type=schedule,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=4,
            max_steps=4,
            logging_steps=1,
            eval_strategy="steps",
            eval_steps=2,
            gradient_checkpointing=True,
            report_to="none",
            num_train_epochs=10,
            bf16=False,
        ),
        model_type="causal_lm",
        model_kwargs={"device_map": "auto", "torch_dtype": "auto", "trust_remote_code": True, "use_cache": False},
        formatting_func=formatter,
        compute_metrics=sample_compute_metrics,
        generation_config={
            "max_new_tokens": 8,
            "temperature": 0.6,
            "top_p": 0.9,
            "repetition_penalty": 1.1,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
    )
    for rate, schedule in ((2e-4, "linear"), (5e-5, "cosine"))
])
""",
    """
def create_model(model_config):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model_kwargs = model_config["model_kwargs"]
    model = AutoModelForCausalLM.from_pretrained(model_config["model_name"], **model_kwargs)
    tokenizer = AutoTokenizer.from_pretrained(
        model_config["model_name"], trust_remote_code=model_kwargs.get("trust_remote_code", False)
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
        model.config.pad_token_id = tokenizer.eos_token_id
    tokenizer.padding_side = "left"
    return (model, tokenizer)
""",
    """
config_group = RFGridSearch(configs=config_set, trainer_type="SFT")
experiment.run_fit(config_group, create_model, train_dataset, eval_dataset, num_chunks=2, seed=67)
""",
    CONTROLS,
    "experiment.end()",
    """
assert [str(run.state) for run in experiment.runs] == ["completed"] * 4, [run.traceback for run in experiment.runs]
assert (experiment.get_results().groupby("run_id").rougeL.count() >= 2).all()
assert all(labels == [row["output"].strip() for row in eval_dataset] for _, labels in judged)
""",
]

#: A third: GPT-2's kind of modules, the prompt as a knob, metrics without generated texts, a tracker that is named.
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
assert sum("report_to='tensorboard' has no effect" in str(one.message) for one in told) == 1, told
experiment.end()
""",
    """
assert [str(run.state) for run in experiment.runs] == ["completed"] * 8, [run.traceback for run in experiment.runs]
losses = experiment.get_results().groupby("run_id").eval_loss.last()
assert losses.nunique() == 8, "two prompts, two ranks and two models train differently"
""",
]

#: A fourth: texts whose rows name their parts otherwise, several experiments, and a loop that asks for the runs.
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
