"""What does a training method have to say for itself, and what do trl's trainers share?"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
import transformers
import trl

from rf_notebook.training.device import is_spread
from rf_notebook.training.divergence import Divergence
from rf_notebook.training.fused.sizes import SizedBatch, SizedCollator, Sizes
from rf_notebook.training.stages import answer_where_asked

if TYPE_CHECKING:
    from rf_notebook.core.run import Generation
    from rf_notebook.core.values import Json
    from rf_notebook.training.datasets import PreparedDatasets
    from rf_notebook.training.methods.trainer_like import TrainerLike

#: Where the libraries' own trainers lie.
_TRAINERS = tuple(str(Path(package.__file__).parent) for package in (transformers, trl))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerParts:
    """All that a trainer is built from.

    Everything but the shared data belongs to this run alone.
    """

    model: Any
    """A module tree of the run's own; a PEFT model when the run starts from an adapter that is also
    its reference."""
    tokenizer: Any
    arguments: Any
    """What ``Method.arguments`` made."""
    peft_config: Any | None
    """None when all weights are trained, and when ``model`` has its adapter already."""
    train_dataset: Any
    eval_dataset: Any | None
    formatting_func: Callable[[dict[str, Any]], str] | None = None
    """Only one that returns text, which trl applies itself."""
    compute_metrics: Callable[[Any], dict[str, float]] | None = None
    callbacks: list[Any]
    prepared: PreparedDatasets
    on_seeding: Callable[[], None]
    """Called when Trainer seeds the process's random streams, after the adapter was made."""
    reference_model: Any | None = None
    """A module tree over the reference's weights, when the method asked for one."""
    prepare_reference: Callable[[Any], None]
    """Gives the model's reference adapter its weights, where they are not those that the run starts
    from."""
    reference_key: str | None = None
    """Equal for runs whose reference gives the same probabilities; None when nothing is known of
    it."""
    reward_funcs: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What one pass over the data is, to a method."""

    rows: int
    """Rows that are gone through."""
    repeats: int = 1
    """How often each row is part of a batch: GRPO's generations times its iterations."""


class Method(Protocol):
    """One of trl's trainers; its base class, too, for what most of them answer alike."""

    needs: str
    """The columns that the data must have, in words."""
    pads_right: bool
    """Whether batches are padded on the right only: then a causal model's real tokens see no
    padding, mask or not."""
    generates: bool
    """Whether its training and its evaluation let the model write."""

    def fits(self, columns: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
        """Whether a row with these columns can be trained on under these arguments."""

    def columns(self, columns: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[str, ...]:
        """Those among a row's columns that it trains on."""

    def arguments(self, given: dict[str, Any]) -> Any:
        """Trl's config object. Raises what trl raises."""

    def check(self, arguments: Any, extras: Mapping[str, Any], *, evaluates: bool) -> None:
        """Refuse fields of RFModelConfig that cannot be. Raises ConfigError."""
        return

    def advice(self, columns: Mapping[str, Any], arguments: Any) -> tuple[str, ...]:
        """What a user should know of training on rows with these columns."""
        return ()

    def one_pass(self, arguments: Any, rows: int) -> Pass:
        """What a pass over this many rows is."""
        return Pass(rows=rows)

    def least_examples(self, given: Mapping[str, Any]) -> int:
        """How many examples a micro-batch must have, under these arguments."""
        return 1

    def needs_reference_model(self, arguments: Any, *, has_adapter: bool, is_named: bool) -> bool:
        """Whether the trainer wants a second model.

        Without one, the base under the adapter is the reference.
        """
        return False

    def has_reference(self, arguments: Any) -> bool:
        """Whether training compares with a reference at all."""
        return False

    def trainer(self, parts: TrainerParts) -> Any:
        """The trainer, as a user of trl would build it."""

    def tokenizer_settings(self, given: dict[str, Any]) -> dict[str, Any]:
        """The arguments by which the trainer changes its tokenizer."""

    def completions(self, trainer: TrainerLike) -> tuple[Generation, ...]:
        """What the model wrote most recently as part of its training, with its rewards."""
        return ()

    def extra_state(self, trainer: TrainerLike) -> dict[str, Any]:
        """What the trainer counts beyond its checkpoint: tensors, numbers, lists and dicts."""
        return counters(trainer)

    def restore_extra_state(self, trainer: TrainerLike, state: dict[str, Any]) -> None:
        """The inverse, before the first step."""
        restore_counters(trainer, state)


class RunTrainer:
    """Comes before trl's trainer among the bases.

    Takes side effects away, and in joint steps what makes the CPU wait.

    Side effects are telemetry, model cards, and a collection of the whole process's garbage before
    the first step (``Accelerator.free_memory`` of an accelerator that holds nothing yet, 0.3 s a
    run).
    """

    is_joint = False
    """Whether the trainer is inside a turn of joint steps; its figures are then read from the
    device when logged."""

    let_others: Callable[[], float] | None = None
    """Inside a turn of joint steps, lets other runs continue while this one waits for something else;
    returns for how many seconds it may wait then."""
    _on_seeding: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        trainer: Any = self
        if is_spread():
            answer_where_asked(trainer.model)
            if getattr(trainer, "ref_model", None) is not None:
                answer_where_asked(trainer.ref_model)
        loading = trainer.accelerator.dataloader_config
        if (
            loading.data_seed is None
        ):  # accelerate would look at the process's streams, which another cell may have seeded
            loading.data_seed = trainer.args.seed
        trainer.accelerator.free_memory = lambda *objects: list(objects)
        # Copies from page-locked memory need not be waited for.
        trainer.accelerator.dataloader_config.non_blocking |= trainer.args.dataloader_pin_memory
        # Counted again for every micro-step otherwise, over all modules.
        trainer.model.num_parameters = functools.cache(trainer.model.num_parameters)
        self._waiting: list[tuple[list[Any], int]] = []
        self._waiting_tokens: list[Any] = []
        self._sized: tuple[torch.Tensor, Sizes] | None = None
        """The tokens of the batch in progress, and where they lie, where its collator knew it."""
        self.divergence = Divergence()
        self.reward_seconds: defaultdict[str, float] = defaultdict(float)
        """Of GRPO's, since they were taken, by function."""

    @property
    def args(self) -> Any:
        """Trl's config object.

        ``Trainer.__init__`` seeds right after it has set it (transformers 5.23).
        """
        return self._args

    @args.setter
    def args(self, value: Any) -> None:
        self._args = value
        self._on_seeding()

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trl's own, below what mlflow.autolog() and the like have put over it.

        The mirror alone logs runs.
        """
        trainer: Any = super()
        train = inspect.unwrap(
            trainer.train.__func__, stop=lambda one: one.__code__.co_filename.startswith(_TRAINERS)
        )
        return train(self, *args, **kwargs)

    def get_train_dataloader(self) -> Any:
        """Trl's own; its batches carry their sizes, which joint steps need on the host."""
        trainer: Any = super()
        with self._collating_sizes():
            return trainer.get_train_dataloader()

    def get_eval_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """The same of an evaluation."""
        trainer: Any = super()
        with self._collating_sizes():
            return trainer.get_eval_dataloader(*args, **kwargs)

    @contextmanager
    def _collating_sizes(self) -> Iterator[None]:
        me: Any = self
        own = me.data_collator
        me.data_collator = SizedCollator(own)
        try:
            yield
        finally:
            me.data_collator = own

    def _look_at(self, inputs: Any) -> None:
        """This batch is in progress."""
        sizes = inputs.sizes if isinstance(inputs, SizedBatch) else None
        self._sized = None if sizes is None else (inputs["input_ids"], sizes)

    def known_sizes(self, input_ids: torch.Tensor) -> Sizes | None:
        """Where tokens lie; None of any that are not those of the batch in progress.

        Args:
            input_ids: [b, l], on whatever device.
        """
        if self._sized is None:
            return None
        own, sizes = self._sized
        is_own = input_ids.shape == own.shape and input_ids.data_ptr() == own.data_ptr()
        return sizes if is_own else None

    def _send_telemetry(self) -> None:
        """Nothing that the user did not ask for."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """A checkpoint inside an experiment is not a publication."""

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """What the loss was is remembered.

        In joint steps NaN and infinity are left out on the device, not by waiting for it.

        ``logging_nan_inf_filter`` leaves them out of the sum that is logged, so that it recovers.
        Source: transformers 5.23, ``Trainer._run_epoch``.
        """
        trainer: Any = super()
        me: Any = self
        self._look_at(args[1] if len(args) > 1 else kwargs.get("inputs"))
        if not self.is_joint:
            loss = trainer.training_step(*args, **kwargs)
        else:
            with self._joint_loss_inside():
                loss = trainer.training_step(*args, **kwargs)
        self.divergence.see_loss(loss, me.state.global_step + 1)
        if not self.filters_losses:
            return loss
        instead = me._tr_loss / (1 + me.state.global_step - me._globalstep_last_logged)  # noqa: SLF001 - trl's trainer keeps it so
        return torch.where(torch.isfinite(loss), loss, instead)

    def evaluate_aside(self) -> None:
        """Evaluate outside the training's course: nothing of it stays in its history."""
        me: Any = self
        logged = len(me.state.log_history)
        loaders = len(me.accelerator._dataloaders)  # noqa: SLF001 - accelerate offers no way to forget a loader
        try:
            with torch.enable_grad():
                me.evaluate()
        finally:
            del me.state.log_history[logged:]
            del me.accelerator._dataloaders[loaders:]  # noqa: SLF001 - accelerate offers no way to forget a loader

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Trl's own, for a batch that carries its sizes."""
        trainer: Any = super()
        self._look_at(inputs)
        with self._joint_loss_inside() if self.is_joint else nullcontext():
            return trainer.prediction_step(model, inputs, *args, **kwargs)

    @contextmanager
    def _joint_loss_inside(self) -> Iterator[None]:
        """Let the step compute its loss by ``joint_loss``, where the method has one."""
        me: Any = self
        joint_loss = getattr(self, "joint_loss", None)
        own = self.__dict__.get("compute_loss")
        if joint_loss is None or own is not None:
            yield
            return
        me.compute_loss = joint_loss
        try:
            yield
        finally:
            del me.compute_loss

    filters_losses = False
    """The user's ``logging_nan_inf_filter``, while it is off because the trainer is in joint steps."""

    def take_later(self, name: str, value: Any) -> None:
        """A metric of a step that is still being computed on the device, a number."""
        me: Any = self
        mode = "train" if me.model.training else "eval"
        values = me._metrics[mode][name]  # noqa: SLF001 - trl's trainer keeps it so
        self._waiting.append((values, len(values)))
        values.append(value)

    def count_tokens_later(self, tokens: Any) -> None:
        """Tokens of a step, a number on the device; an evaluation tells how many there were before."""
        me: Any = self
        if me.model.training:
            self._waiting_tokens.append(tokens)
            return
        if self._waiting_tokens:
            self.settle()
        me._metrics["eval"]["num_tokens"] = [me._total_train_tokens]  # noqa: SLF001 - trl's trainer keeps it so

    def settle(self) -> None:
        """Read from the device what steps have left there, all at once."""
        if not self._waiting and not self._waiting_tokens:
            return
        me: Any = self
        numbers = [values[place].double() for values, place in self._waiting]
        settled = torch.stack(
            [*numbers, *(tokens.double() for tokens in self._waiting_tokens)]
        ).tolist()
        for (values, place), number in zip(self._waiting, settled, strict=False):
            values[place] = number
        if self._waiting_tokens:
            me._total_train_tokens += int(sum(settled[len(numbers) :]))  # noqa: SLF001 - trl's trainer keeps it so
            me._metrics["train"]["num_tokens"] = [me._total_train_tokens]  # noqa: SLF001 - trl's trainer keeps it so
        self._waiting.clear()
        self._waiting_tokens.clear()

    def _maybe_log_save_evaluate(
        self, tr_loss: Any, grad_norm: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Called after every optimizer step.

        One that a gradient scaler skipped changed no weights.
        """
        trainer: Any = super()
        me: Any = self
        if not me.accelerator.optimizer_step_was_skipped:
            self.divergence.see_gradients(grad_norm, me.state.global_step)
        trainer._maybe_log_save_evaluate(tr_loss, grad_norm, *args, **kwargs)  # noqa: SLF001 - trl's trainer keeps it so

    def take_reward_seconds(self) -> dict[str, float]:
        """What reward functions took since this was asked last."""
        taken = dict(self.reward_seconds)
        self.reward_seconds.clear()
        return taken

    def add_reward_seconds(self, seconds: Mapping[str, float]) -> None:
        """These were taken by training, too."""
        for name, took in seconds.items():
            self.reward_seconds[name] += took

    def log(self, logs: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """See Trainer.

        A window with a bad loss shows that loss, in place of the mean of the others, which may be
        0.
        """
        self.settle()
        if "loss" in logs or "train_loss" in logs:
            bad_loss = self.divergence.end_window()
            if "loss" in logs and bad_loss != 0.0:
                logs["loss"] = bad_loss
            if "train_loss" in logs and self.divergence.has_bad_loss:
                logs["train_loss"] = float("nan")
        trainer: Any = super()
        trainer.log(logs, *args, **kwargs)


def spelled_as_now(config_class: type, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments with checkpointing under the name that the installed transformers uses.

    Its value stays.

    trl 1.16 has a default of its own under the older name, for which transformers warns every user.
    Source: transformers 5.23, ``TrainingArguments.__post_init__``: older names are used where the
    newer are not set.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(config_class)}
    spelled = dict(given)
    for old, new in (
        ("gradient_checkpointing", "activation_checkpointing"),
        ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"),
    ):
        if new in defaults and spelled.get(new) is None:
            spelled[new] = spelled.pop(old, defaults[old])
    return spelled


def preparation_settings(arguments: Any, names: tuple[str, ...], tokenizer: Any) -> dict[str, Json]:
    """What decides how trl prepares a data set, as a key."""
    return {"tokenizer": id(tokenizer)} | {
        name: repr(getattr(arguments, name, None)) for name in names
    }


def counters(trainer: TrainerLike) -> dict[str, Any]:
    """What every trainer of trl counts between two logs, and over the whole run."""
    trainer.settle()
    return {
        "total_train_tokens": int(trainer._total_train_tokens),  # noqa: SLF001 - trl's trainer keeps it so
        "train_metrics": {name: list(values) for name, values in trainer._metrics["train"].items()},  # noqa: SLF001 - trl's trainer keeps it so
    }


def restore_counters(trainer: TrainerLike, state: dict[str, Any]) -> None:
    """The inverse of ``counters``."""
    trainer._total_train_tokens = state["total_train_tokens"]  # noqa: SLF001 - trl's trainer keeps it so
    trainer._metrics["train"] = defaultdict(  # noqa: SLF001 - trl's trainer keeps it so
        list, {k: list(v) for k, v in state["train_metrics"].items()}
    )


def reference_weights(trainer: TrainerLike) -> dict[str, Any]:
    """The weights of a reference that follows the policy (``sync_ref_model``).

    Of a fixed one nothing is saved.
    """
    if trainer.ref_model is None or not trainer.args.sync_ref_model:
        return {}
    return {name: tensor.detach().cpu() for name, tensor in trainer.ref_model.state_dict().items()}


def restore_reference_weights(trainer: TrainerLike, weights: dict[str, Any]) -> None:
    """The inverse of ``reference_weights``."""
    if weights:
        trainer.ref_model.load_state_dict(weights)
