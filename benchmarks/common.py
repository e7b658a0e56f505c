"""What several benchmarks need.

A base model, plain trl without its printing, an engine over run configs.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, LlamaConfig, TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from rf_notebook.automl.adapter_configs import RFLoraConfig
from rf_notebook.automl.concrete import build_run_config
from rf_notebook.automl.configs import RFModelConfig
from rf_notebook.automl.library_configs import TRAINING_CONFIGS
from rf_notebook.core.events import RunAdded
from rf_notebook.core.objects import Objects
from rf_notebook.core.run import RunConfig
from rf_notebook.core.state import ExperimentState
from rf_notebook.engine.loop import Engine
from rf_notebook.planning.fusion import Execution
from rf_notebook.store.lease import this_process
from rf_notebook.store.memory import MemoryStore
from rf_notebook.testing.tiny import tiny_tokenizer
from rf_notebook.training import memory
from rf_notebook.training.base_models import tree_clone
from rf_notebook.training.datasets import ExperimentData
from rf_notebook.training.device import is_spread
from rf_notebook.training.runner import KernelRunner
from rf_notebook.training.stages import answer_where_asked
from rf_notebook.training.validation import Validation

_PLAIN: dict[str, Any] = {
    "SFT": (SFTConfig, SFTTrainer),
    "DPO": (DPOConfig, DPOTrainer),
    "GRPO": (GRPOConfig, GRPOTrainer),
}
ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
#: Of a Llama of 1.1 billion weights, and of one with a few million.
LARGE = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
}
SMALL = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
}


def synchronize() -> None:
    """Wait for the GPU."""
    if ON_GPU:
        torch.cuda.synchronize()


def llama() -> Any:
    """1.1 billion random weights in bfloat16 on a GPU; a few million in float32 elsewhere."""
    return model_of(
        LlamaConfig(
            **(LARGE if ON_GPU else SMALL),
            num_key_value_heads=4,
            vocab_size=32000 if ON_GPU else 512,
            max_position_embeddings=2048,
        )
    )


def model_of(config: Any) -> Any:
    """Random weights of this shape on the device, in bfloat16 on a GPU.

    Args:
        config: A transformers config; its special tokens and its attention are set.
    """
    config.pad_token_id, config.eos_token_id, config.bos_token_id = 0, 1, 2
    config._attn_implementation = "sdpa"  # noqa: SLF001 - where transformers keeps it
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[0] if ON_GPU else []), torch.device(DEVICE):
        torch.manual_seed(0)
        torch.set_default_dtype(torch.bfloat16 if ON_GPU else torch.float32)
        try:
            model = AutoModelForCausalLM.from_config(config)
        finally:
            torch.set_default_dtype(before)
    model.config._name_or_path = "bench"  # noqa: SLF001 - what is measured
    return model


class Clock(TrainerCallback):
    """Notes when steps end, the device's work included."""

    def __init__(self, warm_up: int) -> None:
        self._warm_up = warm_up
        self.began = self.ended = 0.0
        self.steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The trainer has done a step."""
        if state.global_step == self._warm_up:
            synchronize()
            self.began = time.perf_counter()
        elif state.global_step == state.max_steps:
            synchronize()
            self.ended = time.perf_counter()
            self.steps = state.global_step - self._warm_up


def quiet(trainer: Any) -> Any:
    """The same trainer, which no longer prints what it logs."""
    for callback in list(trainer.callback_handler.callbacks):
        if type(callback).__name__ == "PrinterCallback":
            trainer.remove_callback(callback)
    return trainer


def plain_step_seconds(
    base: Any,
    rows: Any,
    arguments: dict[str, Any],
    lora: dict[str, Any],
    *,
    warm_up: int,
    method: str = "SFT",
    **more: Any,
) -> float:
    """Seconds of one step of one config in plain trl, the model kept loaded.

    Args:
        base: The resident model.
        rows: What it trains on.
        arguments: Of trl's config; ``max_steps`` among them.
        lora: Of peft's config.
        warm_up: Steps that are not timed.
        method: SFT, DPO or GRPO.
        more: Of trl's trainer.
    """
    clock = Clock(warm_up)
    with tempfile.TemporaryDirectory() as folder:
        trainer = plain_trainer(base, rows, arguments, lora, folder, method=method, **more)
        trainer.add_callback(clock)
        quiet(trainer).train()
        del trainer
    memory.collect()
    return (clock.ended - clock.began) / clock.steps


def plain_trainer(
    base: Any,
    rows: Any,
    arguments: dict[str, Any],
    lora: dict[str, Any],
    folder: str,
    *,
    method: str = "SFT",
    **more: Any,
) -> Any:
    """Plain trl's, over a model that is kept loaded; see ``plain_step_seconds``."""
    config, trainer_class = _PLAIN[method]
    args = config(
        output_dir=folder,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        **arguments,
    )
    if args.n_gpu > 1:
        args._n_gpu = 1  # noqa: SLF001 - as with CUDA_VISIBLE_DEVICES=0; trl refuses DataParallel
    trainer = trainer_class(
        model=tree_clone(base),
        args=args,
        train_dataset=rows,
        processing_class=tiny_tokenizer(),
        peft_config=LoraConfig(task_type="CAUSAL_LM", **lora),
        **more,
    )
    if is_spread():  # trl 1.16 by itself fails there, see answer_where_asked
        answer_where_asked(trainer.model)
    return trainer


@contextmanager
def timed(owner: Any, name: str, spent: Counter[str], what: str) -> Iterator[None]:
    """Add the seconds of a method's calls, the GPU's included, to what was spent on something."""
    own = getattr(owner, name)

    def measured(*args: Any, **kwargs: Any) -> Any:
        synchronize()
        began = time.perf_counter()
        try:
            return own(*args, **kwargs)
        finally:
            synchronize()
            spent[what] += time.perf_counter() - began

    setattr(owner, name, measured)
    try:
        yield
    finally:
        setattr(owner, name, own)


def run_config(
    objects: Objects, arguments: dict[str, Any], lora: dict[str, Any], *, method: str = "SFT"
) -> RunConfig:
    """The same config as a run of an experiment."""
    fields = RFModelConfig(
        model_name="bench",
        peft_config=RFLoraConfig(**lora),
        training_args=TRAINING_CONFIGS[method](**arguments),
    ).given()
    return build_run_config(fields, method, objects, seed=0)


def plain_eval_loss(
    base: Any, tokenizer: Any, rows: Any, held_out: Any, lora: LoraConfig, **arguments: Any
) -> float:
    """The loss on the held-out rows after full training in plain TRL, on a copy of the base."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=copy.deepcopy(base),
            args=SFTConfig(
                output_dir=folder,
                report_to="none",
                disable_tqdm=True,
                save_strategy="no",
                **arguments,
            ),
            train_dataset=rows,
            eval_dataset=held_out,
            processing_class=tokenizer,
            peft_config=lora,
        )
        quiet(trainer).train()
        return float(trainer.evaluate()["eval_loss"])


def seconds_of_all(windows: Sequence[tuple[float, float]]) -> float:
    """Seconds that all windows take: those that lie beside each other share theirs."""
    total = 0.0
    for began, ended in windows:
        middle = (began + ended) / 2
        total += (ended - began) / sum(first <= middle <= last for first, last in windows)
    return total


def engine_over(
    folder: Path,
    base: Any,
    rows: Any,
    configs: Callable[[Objects], Sequence[RunConfig]],
    *,
    num_chunks: int,
    execution: Execution = Execution.EXACT,
    runner_class: type[KernelRunner] = KernelRunner,
    held_out: Any = None,
    sample_prompts: int | Sequence[str] = 0,
) -> tuple[Engine, Any]:
    """An engine and its runner, which keeps files in a folder, over runs that have not begun."""
    objects, data = Objects(), ExperimentData(rows, held_out)

    def create_model(_config: object) -> tuple[Any, Any]:
        return base, tiny_tokenizer()

    runner = runner_class(
        folder, data, objects, create_model, num_chunks=num_chunks, sample_prompts=sample_prompts
    )
    rules = Validation(folder, data, objects, create_model, num_chunks)
    store = MemoryStore()
    engine = Engine(
        store,
        runner,
        ExperimentState(),
        fence=store.acquire(this_process()),
        folder=folder,
        rules=rules,
        execution=execution,
    )
    engine.commit(
        [RunAdded(run_id=i, config=config) for i, config in enumerate(configs(objects), start=1)]
    )
    return engine, runner
