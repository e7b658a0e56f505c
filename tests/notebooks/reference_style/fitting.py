"""Notebooks in the style of the reference: SFT, DPO, GRPO."""

from __future__ import annotations

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


#: Its DPO tutorial: three losses over one LoRA, an 8-bit optimizer, arguments of older versions of
#: trl.
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


#: Its Optuna tutorial: a search space in one config, weak runs replaced by further suggestions, the
#: study looked at.
