"""What of trl's trainers is used? Everything else in them may change with their next version.

Written for trl 1.16 and transformers 5.23; a newer one is compared with this list first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch

    from rf_notebook.training.divergence import Divergence


class TrainerLike(Protocol):
    """A trainer of a run: one of trl's below a ``RunTrainer``."""

    model: Any
    """With its adapter, as it trains."""
    model_wrapped: Any
    """The same, as accelerate prepared it."""
    optimizer: Any
    """None before training begins; accelerate's wrapper then."""
    lr_scheduler: Any
    """The same."""
    processing_class: Any
    """The tokenizer or processor."""
    train_dataset: Any
    divergence: Divergence
    """Of a ``RunTrainer``: since when its losses or norms are not numbers."""
    is_joint: bool
    """Of a ``RunTrainer``: whether it is inside a turn of joint steps."""

    _tr_loss: torch.Tensor
    """The sum of losses since the last log; a scalar on the device."""
    _total_loss_scalar: float
    """The sum of losses that were logged."""
    _globalstep_last_logged: int
    _initial_global_step: int
    """The step from which the mean loss of the whole training counts."""
    _total_train_tokens: int
    _metrics: dict[str, Any]
    """By mode, what the next log will average."""

    ref_model: Any
    """Of methods that compare with one: the reference; None where it is the base below the adapter."""
    _step: int
    """Of GRPO's and RLOO's: micro-steps so far, which decide when to generate."""
    _buffered_inputs: Any
    """Of GRPO's and RLOO's: the generations that are still to be trained on."""
    _entropy_window_stats: Any
    """Of GRPO's alone."""
    _logs: dict[str, Any]
    """Of GRPO's and RLOO's: the newest prompts and completions."""

    @property
    def args(self) -> Any:
        """Trl's config object."""

    @property
    def accelerator(self) -> Any:
        """Accelerate's."""

    @property
    def state(self) -> Any:
        """Steps, epoch and the log history."""

    @property
    def callback_handler(self) -> Any:
        """Holds the callbacks, and what they decided."""

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train to the end."""

    def skip_passes(self) -> None:
        """Of a ``GeneratingTrainer``: leave the sampler as it is after the passes that are done."""

    def settle(self) -> None:
        """Of a ``RunTrainer``: read from the device what was left there."""

    def evaluate_aside(self) -> Any:
        """Of a ``RunTrainer``: evaluate without a trace in the run's course."""

    def get_train_dataloader(self) -> Iterable[Any]:
        """The batches of an epoch."""

    def get_eval_dataloader(self, *args: Any) -> Iterable[Any]:
        """The batches of an evaluation."""

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """One micro-step: forward and backward."""

    def save_model(self, output_dir: str, _internal_call: bool = False) -> None:
        """Write all weights."""

    def store_flos(self) -> None:
        """Add the operations since the last call to the state."""

    def _save_scaler(self, output_dir: str) -> None: ...
