"""How does a run's config become trl's trainer, and would it?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft import PeftConfig, get_peft_config, get_peft_model

from rf_notebook.core.encoding import decode
from rf_notebook.core.errors import ConfigError, RFNotebookError
from rf_notebook.core.redaction import redact
from rf_notebook.core.values import mapping
from rf_notebook.planning.chunks import Plan, check_num_chunks
from rf_notebook.store import layout
from rf_notebook.training.base_models import (
    BaseModel,
    BaseModels,
    changes_base_weights,
    tree_clone,
    tree_copy,
)
from rf_notebook.training.datasets import (
    ExperimentData,
    FormattedData,
    PreparedDatasets,
    check_formatting,
    check_rows,
    formatted_row,
)
from rf_notebook.training.device import check_precision
from rf_notebook.training.exchanges import Exchange, exchange_of, is_chat
from rf_notebook.training.methods import Method, method_named
from rf_notebook.training.methods.base import TrainerParts
from rf_notebook.training.module_names import check_module_names
from rf_notebook.training.trained_model import base_of, reference_of
from rf_notebook.training.undisturbed import isolated_from_streams
from rf_notebook.training.warm_start import REFERENCE_ADAPTER, Start, warm_start

if TYPE_CHECKING:
    from rf_notebook.core.fleet import DeviceFacts
    from rf_notebook.core.objects import Objects
    from rf_notebook.core.run import RunConfig, WarmStartReport
    from rf_notebook.training.memory_estimate import MemoryNeeds
    from rf_notebook.training.methods.trainer_like import TrainerLike
    from rf_notebook.training.parked import Gate

#: Printers that trl and transformers add to every trainer.
_PRINTERS = (
    "PrinterCallback",
    "ProgressCallback",
    "NotebookProgressCallback",
    "RichProgressCallback",
)
#: Fields of RFModelConfig that only some methods use.
_OF_SOME_METHODS = {"reward_funcs": ("GRPO", "RLOO"), "ref_model_name": ("DPO", "KTO")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainers:
    """Makes the trainers of one experiment."""

    folder: Path
    """The experiment's."""
    data: ExperimentData
    objects: Objects
    models: BaseModels
    formatted: FormattedData
    prepared: PreparedDatasets
    num_chunks: int
    needs: MemoryNeeds
    elsewhere: tuple[DeviceFacts, ...] = ()
    """The devices of worker processes, where runs train there: nothing of this process's is used."""

    def validate(self, config: RunConfig) -> list[str]:
        """Try all that can be tried without a model.

        Returns:
            What the user should be warned of.

        Raises:
            ConfigError: what the libraries, the data, the method or the device would refuse.
        """
        method = method_named(config.method)
        with isolated_from_streams():
            try:
                arguments = self.arguments(method, config, layout.trainer(self.folder, 0))
                peft_config = None if config.peft is None else self._peft_config(config)
            except RFNotebookError:
                raise
            except Exception as error:
                remedy = (
                    " On this device set training_args.bf16=False."
                    if "bf16/gpu" in str(error)
                    else ""
                )
                raise ConfigError(f"the config is refused: {redact(str(error))}{remedy}") from error
        if not config.use_cpu:
            tf32 = bool(config.training.get("tf32"))
            check_precision(self.elsewhere, bf16=arguments.bf16, tf32=tf32)
        self._check_fields(method, config, arguments)
        columns = self._check_columns(method, config)
        told = [*method.advice(columns, arguments), *self._check_generation(config)]
        self._check_chunks(method, config, arguments)
        return told + self.needs.check(config, arguments, peft_config, self.elsewhere)

    def _check_fields(self, method: Method, config: RunConfig, arguments: Any) -> None:
        for name, owners in _OF_SOME_METHODS.items():
            if config.method not in owners and config.extras.get(name) is not None:
                of = " or ".join(map(repr, owners))
                raise ConfigError(
                    f"{name} belongs to trainer_type={of}, and this config is {config.method}; remove it."
                )
        is_named = config.extras.get("ref_model_name") is not None
        method.needs_reference_model(
            arguments, has_adapter=config.peft is not None, is_named=is_named
        )
        extras = {name: self.extra(config, name) for name in config.extras}
        method.check(arguments, extras, evaluates=self.data.evaluation is not None)
        if _needs_bitsandbytes(config) and find_spec("bitsandbytes") is None:
            raise ConfigError(
                "the config needs bitsandbytes, which is not installed; pip install 'rf-notebook[quant]'."
            )
        if config.extras.get("warm_start_from") is not None and config.peft is None:
            raise ConfigError(
                "warm_start_from is an adapter, and peft_config=None trains all weights; give a peft_config."
            )

    def _check_columns(self, method: Method, config: RunConfig) -> Mapping[str, Any]:
        """A row as the method gets it; without columns where it is text."""
        formatting = self.extra(config, "formatting_func")
        columns = self.data.first_row
        made_by = "train_dataset has"
        if formatting is not None:
            made = check_formatting(formatting, self.data.train, method.needs, "train_dataset")
            if self.data.evaluation is not None:
                check_formatting(formatting, self.data.evaluation, method.needs, "eval_dataset")
            if isinstance(made, str):
                if config.method != "SFT":
                    raise ConfigError(
                        f"formatting_func returns text, which {config.method} cannot train on; "
                        f"return a dict with {method.needs}."
                    )
                return {}
            columns = made
            made_by = "formatting_func returns"
        if not method.fits(columns, config.training):
            raise ConfigError(
                f"{config.method} needs rows with {method.needs}; {made_by} {', '.join(columns)}. "
                "Make them in formatting_func."
            )
        if formatting is None:
            for data, argument in (
                (self.data.train, "train_dataset"),
                (self.data.evaluation, "eval_dataset"),
            ):
                check_rows(data, method.columns(columns, config.training), argument)
        return columns

    def _check_generation(self, config: RunConfig) -> list[str]:
        """Whether the evaluation rows say what to generate from, and what to compare with."""
        evaluation, formatting = self.data.evaluation, self.extra(config, "formatting_func")
        if evaluation is None or config.extras.get("generation_config") is None:
            return []
        raw = dict(next(iter(evaluation)))
        row = raw if formatting is None else formatted_row(formatting, raw, 0, "eval_dataset")
        if not exchange_of(row, raw, text_column_of(config)).is_guess:
            return []
        return [
            "compute_metrics compares what is written after a whole evaluation text with that text, for no column of "
            f"eval_dataset ({', '.join(raw)}) is known to hold the answer. Return prompt and completion from formatting_func "
            "to compare with the completion."
        ]

    def _check_chunks(self, method: Method, config: RunConfig, arguments: Any) -> None:
        if self.data.examples is None or config.training.get("packing"):
            return  # how many rows there are is known when the data is packed, or never
        one_pass = method.one_pass(arguments, self.data.examples)
        check_num_chunks(
            self.num_chunks,
            rows=one_pass.rows,
            repeats=one_pass.repeats,
            batch_size=arguments.per_device_train_batch_size,
            accumulation=arguments.gradient_accumulation_steps,
        )

    def build(
        self,
        method: Method,
        config: RunConfig,
        gate: Gate,
        run_id: int,
        *,
        start: Start | None,
        on_started: Callable[[WarmStartReport], None],
        is_continued: bool,
        on_seeding: Callable[[], None] = lambda: None,
    ) -> Any:
        """The trainer; called in the run's greenlet, under the run's process state.

        Args:
            method: The config's method.
            config: The run's.
            gate: Among the trainer's callbacks.
            run_id: For the folders.
            start: The adapter that the run starts from.
            on_started: Told what a warm start took over.
            is_continued: Whether a checkpoint gives the trainer its weights after this.
            on_seeding: Called when Trainer seeds the process's streams, after the adapter was made.
        """
        base = base_of(self.models, self.objects, config)
        if config.peft is not None:
            check_module_names(config.peft, base.model)
        arguments = self.arguments(method, config, layout.trainer(self.folder, run_id))
        if is_continued:
            arguments.eval_on_start = False  # it was evaluated when it started
        formatting = self.extra(config, "formatting_func")
        returns_text = formatting is not None and isinstance(
            formatting(dict(self.data.first_row)), str
        )
        train, evaluation = self.formatted.get(None if returns_text else formatting)
        generates = self.extra(config, "generation_config")
        named = reference_of(self.models, self.objects, config)
        model, share_unchanged = _model_for(config, base.model)
        peft_config = None if config.peft is None else self._peft_config(config)
        compares_with_start = False
        if start is not None and peft_config is not None:
            compares_with_start = (
                start.reference is not None and named is None and method.has_reference(arguments)
            )
            if compares_with_start:
                # Handed a model with its adapter, trl keeps a copy of that adapter as the
                # reference.
                model, peft_config = get_peft_model(model, peft_config), None
                on_started(warm_start(model, start.adapter))
            elif not is_continued:
                gate.on_ready = lambda trainer: on_started(warm_start(trainer.model, start.adapter))
        reference, reference_key = self._reference(
            method, config, arguments, base, named, compares_with_start=compares_with_start
        )
        trainer = method.trainer(
            TrainerParts(
                model=model,
                tokenizer=base.tokenizer_for(method.tokenizer_settings(dict(config.training))),
                arguments=arguments,
                peft_config=peft_config,
                train_dataset=train,
                eval_dataset=evaluation,
                formatting_func=formatting if returns_text else None,
                compute_metrics=None
                if generates is not None
                else self.extra(config, "compute_metrics"),
                callbacks=[gate],
                prepared=self.prepared,
                on_seeding=on_seeding,
                reference_model=reference,
                prepare_reference=partial(_give_reference, start if compares_with_start else None),
                reference_key=reference_key,
                reward_funcs=self._rewards(config),
            )
        )
        share_unchanged()
        for callback in list(trainer.callback_handler.callbacks):
            if type(callback).__name__ in _PRINTERS:
                trainer.remove_callback(callback)
        return trainer

    def is_chat(self, config: RunConfig) -> bool:
        """Whether a run trains on messages."""
        rows, _ = self.formatted.get(self.extra(config, "formatting_func"))
        return is_chat(next(iter(rows)))

    def exchanges(self, config: RunConfig) -> Iterator[Exchange]:
        """What the evaluation data asks and expects, as the run sees it.

        Without evaluation data it is the training data.
        """
        train, evaluation = self.formatted.get(self.extra(config, "formatting_func"))
        raw_train, raw_evaluation = self.formatted.get(None)
        rows, raw = (train, raw_train) if evaluation is None else (evaluation, raw_evaluation or ())
        text_column, judged = (
            text_column_of(config),
            config.extras.get("generation_config") is not None,
        )
        return (
            exchange_of(*pair, text_column, needs_answer=judged)
            for pair in zip(rows, raw, strict=True)
        )

    def modules_of(self, config: RunConfig) -> list[Any]:
        """The resident models that a run needs, loaded if they are not there.

        Its base, its reference, its rewards.
        """
        models = [base_of(self.models, self.objects, config).model]
        reference = reference_of(self.models, self.objects, config)
        if reference is not None:
            models.append(reference.model)
        return [*models, *self._reward_models(config)]

    def arguments(self, method: Method, config: RunConfig, folder: Path) -> Any:
        """Trl's config object of a run whose files go to ``folder``. Raises what trl raises."""
        given = decode(dict(config.training), self.objects)
        if given.get("load_best_model_at_end"):
            given.setdefault("save_strategy", given.get("eval_strategy", "no"))
        else:
            given["save_strategy"] = "no"  # the engine saves
        if given.get("chat_template_path") is not None:
            given["chat_template_path"] = self.models.located(given["chat_template_path"])
        given |= {
            "output_dir": str(folder),
            "report_to": "none",
            "disable_tqdm": True,
            "dataloader_num_workers": 0,
            "push_to_hub": False,
            "log_level": "passive",
        }
        if self.elsewhere:
            given["use_cpu"] = True  # no CUDA context in this process
            given.pop("tf32", None)  # asks for this process's GPU
        for name in ("dataloader_persistent_workers", "dataloader_prefetch_factor"):
            given.pop(name, None)  # of workers, of which there are none
        if self.data.evaluation is None and given.get("eval_strategy", "no") != "no":
            raise ConfigError(
                f"training_args.eval_strategy={given['eval_strategy']!r} needs evaluation data; "
                "give run_fit an eval_dataset, or remove eval_strategy."
            )
        if self.data.is_streaming and given.get("max_steps", -1) < 1:
            raise ConfigError(
                "the training data is a stream without length, so epochs cannot be counted; set training_args.max_steps."
            )
        arguments = method.arguments(given)
        if arguments.n_gpu > 1:
            # Several visible GPUs make Trainer wrap the model in DataParallel, which trl refuses.
            arguments._n_gpu = 1  # noqa: SLF001 - transformers counts every visible GPU
        return arguments

    def plan(self, method: Method, trainer: TrainerLike) -> Plan:
        """The course of a trainer that knows its data."""
        arguments, total = trainer.args, int(trainer.state.max_steps)
        batch, accumulation = (
            arguments.per_device_train_batch_size,
            arguments.gradient_accumulation_steps,
        )
        if self.data.is_streaming:
            repeats = method.one_pass(arguments, total * batch * accumulation).repeats
            rows = max(1, total * batch * accumulation // repeats)
        else:
            one_pass = method.one_pass(arguments, len(trainer.train_dataset))
            rows, repeats = one_pass.rows, one_pass.repeats
        return Plan(
            rows=rows,
            repeats=repeats,
            examples=self.data.examples or rows,
            batch_size=batch,
            accumulation=accumulation,
            total_steps=total,
            num_chunks=self.num_chunks,
            drop_last=arguments.dataloader_drop_last,
        )

    def extra(self, config: RunConfig, name: str) -> Any:
        """The live value of a field of RFModelConfig besides model, adapter and trainer."""
        return decode(config.extras.get(name), self.objects)

    def _peft_config(self, config: RunConfig) -> PeftConfig:
        task_type = "CAUSAL_LM" if config.writes else "SEQ_CLS"
        given = {"peft_type": "LORA", "task_type": task_type} | decode(
            dict(config.peft or {}), self.objects
        )
        return get_peft_config(given)

    def _reference(
        self,
        method: Method,
        config: RunConfig,
        arguments: Any,
        base: BaseModel,
        named: BaseModel | None,
        *,
        compares_with_start: bool,
    ) -> tuple[Any | None, str | None]:
        """The run's own reference model, if it has one, and a key for its answers."""
        resident = named or base
        known = named is not None or not (
            compares_with_start
            or changes_base_weights((config.peft or {}).get("init_lora_weights"))
        )
        key = f"model {id(resident.model)}" if known else None
        if not method.needs_reference_model(
            arguments, has_adapter=config.peft is not None, is_named=named is not None
        ):
            return None, key
        if getattr(arguments, "sync_ref_model", False):
            return copy.deepcopy(
                resident.model
            ), key  # it follows the policy, so its weights must be its own
        return tree_clone(resident.model), key

    def _listed_rewards(self, config: RunConfig) -> list[Any]:
        given = self.extra(config, "reward_funcs")
        return [] if given is None else list(given) if isinstance(given, list | tuple) else [given]

    def _reward_models(self, config: RunConfig) -> list[Any]:
        names = [one for one in self._listed_rewards(config) if isinstance(one, str)]
        return [self.models.reward_model(name, use_cpu=config.use_cpu) for name in names]

    def _rewards(self, config: RunConfig) -> tuple[Any, ...]:
        """Functions as they are; a model as a tree of its own over the shared weights."""
        trees = iter([tree_clone(model) for model in self._reward_models(config)])
        return tuple(
            next(trees) if isinstance(one, str) else one for one in self._listed_rewards(config)
        )


def text_column_of(config: RunConfig) -> str:
    """The column of whole texts, for a run that trains on such."""
    return str(config.training.get("dataset_text_field") or "text")


def _needs_bitsandbytes(config: RunConfig) -> bool:
    quantised = mapping(config.model.get("model_kwargs") or {}).get("quantization_config")
    optimizer = str(config.training.get("optim", ""))
    return (
        "bitsandbytes" in str(quantised).lower()
        or "8bit" in optimizer
        or optimizer.startswith("paged_")
    )


def _model_for(config: RunConfig, base: Any) -> tuple[Any, Callable[[], None]]:
    """The model of a run, and what to do once its adapter is there."""
    if config.peft is None:
        own = copy.deepcopy(base).requires_grad_(True)  # the shared weights stay as they are
        return own, lambda: None
    if changes_base_weights(config.peft.get("init_lora_weights")):
        return tree_copy(base)
    return tree_clone(base), lambda: None


def _give_reference(start: Start | None, model: Any) -> None:
    """Write a reference that is not what the run starts from into the adapter that trl made for it."""
    if start is not None and start.reference is not None and start.reference is not start.adapter:
        warm_start(model, start.reference, adapter=REFERENCE_ADAPTER)
