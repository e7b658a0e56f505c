"""What methods have in common whose steps let the model write and judge what it wrote."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from trl.trainer.callbacks import SyncRefModelCallback
from trl.trainer.utils import add_fused_lm_head, disable_dropout_in_model

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.run import Generation
from rf_notebook.training.device import is_spread
from rf_notebook.training.methods.base import (
    Method,
    Pass,
    RunTrainer,
    TrainerParts,
    counters,
    reference_weights,
    restore_counters,
    restore_reference_weights,
    spelled_as_now,
)
from rf_notebook.training.methods.rewards import Rewards, check_rewards, unscored
from rf_notebook.training.stages import answer_where_asked

if TYPE_CHECKING:
    from rf_notebook.training.methods.trainer_like import TrainerLike

#: Of the newest generation batch, shown in the samples view.
_COMPLETIONS = 4


class GeneratingTrainer(RunTrainer):
    """Comes before trl's trainer among the bases: no side effects.

    Its reference shares the resident weights, and it can be continued anywhere.
    """

    def __init__(self, *, parts: TrainerParts) -> None:
        self._sampler: Any = None
        self._rewards = Rewards()
        self._on_seeding = parts.on_seeding
        arguments, reference = parts.arguments, parts.reference_model
        beta, follows = arguments.beta, arguments.sync_ref_model
        if reference is not None:
            # trl has no argument for the reference of a full fine-tuning: it would load the model
            # again, by its name.
            arguments.beta, arguments.sync_ref_model = 0.0, False
        super().__init__(
            model=parts.model,
            reward_funcs=[self._rewards.watched(reward) for reward in parts.reward_funcs],
            args=arguments,
            train_dataset=parts.train_dataset,
            eval_dataset=parts.eval_dataset,
            processing_class=parts.tokenizer,
            peft_config=parts.peft_config,
            callbacks=parts.callbacks,
        )
        me: Any = self
        parts.prepare_reference(me.model)
        if reference is not None:
            arguments.beta, arguments.sync_ref_model = beta, follows
            self._take_reference(reference)

    def _take_reference(self, reference: Any) -> None:
        """What trl's ``__init__`` does with the reference that it loads (trl 1.16)."""
        me: Any = self
        me.beta = me.args.beta
        if me.args.disable_dropout:
            disable_dropout_in_model(reference)
        add_fused_lm_head(reference, temperature=me.temperature)
        if is_spread():
            answer_where_asked(reference)
        me.ref_model = me.accelerator.prepare_model(reference, evaluation_mode=True)
        if me.args.sync_ref_model:
            me.add_callback(
                SyncRefModelCallback(ref_model=me.ref_model, accelerator=me.accelerator)
            )

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> Any:
        """Trl's own, watched."""
        trainer: Any = super()
        me: Any = self
        self._rewards.let_others = self.let_others
        try:
            rewards_BF = trainer._calculate_rewards(  # noqa: SLF001 - trl's trainer names it so
                inputs, prompts, completions, completion_ids_list
            )
        finally:
            seconds = self._rewards.end_batch()
            if me.model.training:
                self.add_reward_seconds(seconds)
        nothing_B = torch.isnan(rewards_BF).all(dim=1)
        if nothing_B.any():
            row = int(nothing_B.nonzero()[0])
            raise unscored(me.reward_func_names, row, prompts[row])
        return rewards_BF

    def _get_train_sampler(self, dataset: Any | None = None) -> Any:
        """Trl's own, kept for ``skip_passes``."""
        trainer: Any = super()
        self._sampler = trainer._get_train_sampler(dataset)  # noqa: SLF001 - transformers names it so
        return self._sampler

    def skip_passes(self) -> None:
        """Leave the sampler as it is after the passes that are done.

        Its next order follows from the ones before.
        """
        me: Any = self
        sampler, arguments = self._sampler, self.args
        if sampler is None or not me.shuffle_dataset:
            return
        batches = len(sampler) // (
            arguments.per_device_train_batch_size * arguments.steps_per_generation
        )
        steps = max(1, math.ceil(batches / arguments.gradient_accumulation_steps))
        for _ in range(me.state.global_step // steps):
            torch.randperm(sampler.num_samples, generator=sampler.generator)


class Generating(Method):
    """See Method."""

    name: str
    """The trainer_type."""
    config_class: Any
    """Trl's."""
    trainer_class: type[GeneratingTrainer]

    needs = "prompt"
    pads_right = False
    generates = True

    def fits(self, columns: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
        """See Method."""
        return "prompt" in columns

    def columns(self, columns: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[str, ...]:
        """See Method."""
        return ("prompt",)

    def arguments(self, given: dict[str, Any]) -> Any:
        """See Method."""
        # Completions are seen in the samples view; trl would print them into whichever cell ran
        # last.
        given = given | {"log_completions": False}
        return self.config_class(**spelled_as_now(self.config_class, given))

    def check(self, arguments: Any, extras: Mapping[str, Any], *, evaluates: bool) -> None:
        """See Method."""
        rewards = extras.get("reward_funcs")
        if rewards is None:
            raise ConfigError(
                f"{self.name} needs reward_funcs; give RFModelConfig a function, or several, that return rewards."
            )
        rewards = rewards if isinstance(rewards, list | tuple) else [rewards]
        check_rewards(rewards)
        weights = arguments.reward_weights
        if weights is not None and len(weights) != len(rewards):
            raise ConfigError(
                f"reward_weights has {len(weights)} numbers for {len(rewards)} reward_funcs; give one for each."
            )
        if extras.get("compute_metrics") is not None and extras.get("generation_config") is None:
            raise ConfigError(
                f"{self.name} evaluates with its reward_funcs; give compute_metrics a generation_config, or remove it."
            )
        generations = arguments.num_generations_eval or arguments.num_generations
        if evaluates and arguments.per_device_eval_batch_size % generations:
            raise ConfigError(
                f"per_device_eval_batch_size={arguments.per_device_eval_batch_size} is not a multiple of the {generations} "
                f"generations a prompt in evaluation; set per_device_eval_batch_size={generations}, or num_generations_eval."
            )

    def one_pass(self, arguments: Any, rows: int) -> Pass:
        """See Method."""
        prompts = arguments.generation_batch_size // arguments.num_generations
        if rows < prompts:
            raise ConfigError(
                f"a generation batch of {arguments.generation_batch_size} completions, {arguments.num_generations} a "
                f"prompt, needs {prompts} prompts, and the data has {rows}; lower per_device_train_batch_size, "
                "gradient_accumulation_steps or steps_per_generation, or raise num_generations."
            )
        return Pass(
            rows=rows
            // prompts
            * prompts,  # the sampler leaves out what does not fill a generation batch
            repeats=arguments.num_generations * arguments.num_iterations,
        )

    def needs_reference_model(self, arguments: Any, *, has_adapter: bool, is_named: bool) -> bool:
        """See Method."""
        needs = not has_adapter and self.has_reference(arguments)
        if needs and getattr(arguments, "cast_lm_head_to_fp32", False):
            raise ConfigError(
                "cast_lm_head_to_fp32=True is not possible for a full fine-tuning with beta above 0; "
                "set it to False, or beta=0.0, or give a peft_config."
            )
        return needs

    def has_reference(self, arguments: Any) -> bool:
        """See Method."""
        return bool(arguments.beta != 0.0)

    def trainer(self, parts: TrainerParts) -> GeneratingTrainer:
        """See Method."""
        return self.trainer_class(parts=parts)

    def tokenizer_settings(self, given: dict[str, Any]) -> dict[str, Any]:
        """See Method."""
        return {"method": self.name}

    def extra_state(self, trainer: TrainerLike) -> dict[str, Any]:
        """See Method."""
        return counters(trainer) | {
            "micro_steps": int(trainer._step),  # noqa: SLF001 - trl's trainer keeps it so
            "generated": _on(torch.device("cpu"), trainer._buffered_inputs),  # noqa: SLF001 - trl's trainer keeps it so
            "reference": reference_weights(trainer),
        }

    def restore_extra_state(self, trainer: TrainerLike, state: dict[str, Any]) -> None:
        """See Method."""
        restore_counters(trainer, state)
        trainer._step = state["micro_steps"]  # noqa: SLF001 - trl's trainer keeps it so
        trainer._buffered_inputs = _on(trainer.accelerator.device, state["generated"])  # noqa: SLF001 - trl's trainer keeps it so
        restore_reference_weights(trainer, state["reference"])
        trainer.skip_passes()

    def completions(self, trainer: TrainerLike) -> tuple[Generation, ...]:
        """See Method."""
        logs = trainer._logs  # noqa: SLF001 - trl's trainer keeps it so
        rewards = {name: list(values) for name, values in logs["rewards"].items()}
        written = []
        for i, (prompt, completion) in enumerate(
            zip(logs["prompt"], logs["completion"], strict=True)
        ):
            scores = {
                name: values[i] for name, values in rewards.items() if math.isfinite(values[i])
            }
            written.append(Generation(prompt=_text(prompt), text=_text(completion), rewards=scores))
        return tuple(written[-_COMPLETIONS:])


def _text(content: Any) -> str:
    """A prompt or completion as text: the last message of a conversation."""
    if isinstance(content, str):
        return content
    last = content[-1]["content"] if content else ""
    return last if isinstance(last, str) else "".join(part.get("text", "") for part in last)


def _on(device: torch.device, batches: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Generated batches on a device."""
    if batches is None:
        return None
    return [
        {k: v.detach().to(device) if torch.is_tensor(v) else v for k, v in batch.items()}
        for batch in batches
    ]
