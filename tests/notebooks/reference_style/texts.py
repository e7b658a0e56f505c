"""Notebooks in the style of the reference: TEXTS, MESSAGES, FORMATTER."""

from __future__ import annotations

from tests.notebooks.reference_style.searching import CONTROLS, LOGS

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

#: A community notebook: messages with a system prompt from another column, two base models' worth
#: of learning rates.
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

#: Another: a formatter that carries its own tokenizer, with columns of its own beside the text;
#: both configs share it.
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

#: A third: GPT-2's kind of modules, the prompt as a knob, metrics without generated texts, a
#: tracker that is named.
