"""What do libraries change for the whole process where a run needs it for its own thread?

trl and transformers seed every random stream when a trainer is made; transformers sets torch's
default dtype and switches the tying of weights off while it loads a model. Each of these functions
is replaced once, by one that asks its thread: inside ``seeding_only`` and ``loading_alone`` only
that thread is changed, and everybody else gets the library's own.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel, initialization, modeling_utils
from transformers import trainer as transformers_trainer
from trl.trainer import (
    dpo_trainer,
    grpo_trainer,
    kto_trainer,
    reward_trainer,
    rloo_trainer,
    sft_trainer,
)

if TYPE_CHECKING:
    import torch


#: Modules whose ``set_seed`` a trainer calls.
SEEDING: tuple[Any, ...] = (
    transformers_trainer,
    sft_trainer,
    dpo_trainer,
    kto_trainer,
    grpo_trainer,
    rloo_trainer,
    reward_trainer,
)


class _Thread(threading.local):
    """What the thread that asks is doing."""

    seed: Callable[[int], None] | None = None
    own_dtype: Callable[[torch.dtype], AbstractContextManager[Any]] | None = None
    ties_weights = True


_thread = _Thread()


@contextmanager
def seeding_only(seed: Callable[[int], None] | None) -> Iterator[None]:
    """Let trainers that this thread makes seed this, instead of the process's streams.

    None changes nothing.
    """
    before, _thread.seed = _thread.seed, seed
    try:
        yield
    finally:
        _thread.seed = before


@contextmanager
def loading_alone(
    own_dtype: Callable[[torch.dtype], AbstractContextManager[Any]],
) -> Iterator[None]:
    """Let models that this thread loads leave torch's default dtype as it is for others.

    Args:
        own_dtype: Gives new tensors of this thread a dtype while it is entered.
    """
    before, _thread.own_dtype = _thread.own_dtype, own_dtype
    try:
        yield
    finally:
        _thread.own_dtype = before


def _seeds_its_thread(library: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(library)
    def set_seed(seed: int, *args: Any, **kwargs: Any) -> None:
        if _thread.seed is None:
            library(seed, *args, **kwargs)
        else:
            _thread.seed(seed)

    return set_seed


def _sets_dtype_of_its_thread(library: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(library)
    def local_torch_dtype(dtype: torch.dtype, *args: Any, **kwargs: Any) -> Any:
        own = _thread.own_dtype
        if own is None or not dtype.is_floating_point:  # the library says what is wrong with it
            return library(dtype, *args, **kwargs)
        return own(dtype)

    return local_torch_dtype


def _ties_in_its_thread(library: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(library)
    def tie_weights(*args: Any, **kwargs: Any) -> None:
        if _thread.ties_weights:
            library(*args, **kwargs)

    return tie_weights


@contextmanager
def _no_tie_weights() -> Iterator[None]:
    """Tie weights for this thread only.

    Transformers switches tying off for all threads, so that two loads at once would leave one model
    untied.
    """
    before, _thread.ties_weights = _thread.ties_weights, False
    try:
        yield
    finally:
        _thread.ties_weights = before


def _replace() -> None:
    while PreTrainedModel.tie_weights.__name__ == "empty_func":
        time.sleep(0.01)  # another thread is loading a model at this very moment
    for module in SEEDING:
        module.set_seed = _seeds_its_thread(module.set_seed)
    modeling_utils.local_torch_dtype = _sets_dtype_of_its_thread(modeling_utils.local_torch_dtype)
    PreTrainedModel.tie_weights = _ties_in_its_thread(PreTrainedModel.tie_weights)
    initialization.no_tie_weights = _no_tie_weights


_replace()
