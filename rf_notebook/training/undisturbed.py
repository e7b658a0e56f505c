"""How is a run what plain TRL makes of it, whatever other cells of the notebook do to torch at that moment?

torch keeps its default dtype, its random streams and the functions of ``torch.nn.init`` for the whole process, and
transformers changes them while it loads a model. Nothing of that is blocked or patched. While a run is built, its own
thread gives every new tensor the run's dtype, and draws the adapter's first weights from a generator of the run's own;
functions that are replaced at the moment in which they are needed are noticed, and the run is built again. While it
trains beside a cell that is at work, new tensors keep the run's dtype; runs whose steps draw nothing leave the process's
streams alone, and others say that a cell was at work.
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.utils.checkpoint
import transformers
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

#: Tensor methods and functions that fill a tensor from a random stream and take a generator.
_RANDOM_NAMES = ("uniform_", "normal_", "random_", "bernoulli_", "exponential_", "log_normal_", "cauchy_", "geometric_")
_RANDOM: frozenset[Any] = frozenset(
    {*(getattr(torch.Tensor, name) for name in _RANDOM_NAMES), torch.normal, torch.bernoulli, torch.multinomial}
    | {torch.rand, torch.randn, torch.randint, torch.randperm}
)
_INFERRING: frozenset[Any] = frozenset({torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor})
#: Those of ``torch.nn.init``.
_RANDOM_INITS = frozenset(
    {"uniform_", "normal_", "trunc_normal_", "orthogonal_", "sparse_"}
    | {"kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_"}
)
#: Names of functions that make numbers of the default dtype out of whole ones.
_DIVIDING = frozenset(
    {"div", "true_divide", "__truediv__", "__rtruediv__", "__div__", "__rdiv__", "divide", "reciprocal"}
)
_TRIES = 3
_TRY_SECONDS = 8.0
_TIE_WEIGHTS = transformers.PreTrainedModel.tie_weights
_left_behind: set[Any] = set()
ValueT = TypeVar("ValueT")


class Disturbed(Exception):  # noqa: N818 - no error: what was built is built again
    """Another cell replaced something of the process that a run needed just then."""


class OwnDtype(TorchFunctionMode):
    """New tensors of the thread that enters it have the run's default dtype, whichever the process has."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        self._others: set[torch.dtype] = set()
        """Default dtypes that other threads have set."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if (now := torch.get_default_dtype()) is not self._dtype:
            self._others.add(now)
        if not isinstance(made, torch.Tensor) or made.dtype not in self._others or kwargs.get("dtype") is not None:
            return made
        if func not in _device_constructors():
            return self._divided(func, made, args, kwargs)
        if func in _INFERRING and hasattr(args[0] if args else kwargs.get("data"), "dtype"):
            return made
        return func(*args, **{**kwargs, "dtype": self._dtype})

    def _divided(self, func: Any, made: torch.Tensor, args: Any, kwargs: Any) -> Any:
        """Whole numbers that became others by a division, say, become those of the run's dtype."""
        tensors = [one for one in args if isinstance(one, torch.Tensor)]
        if getattr(func, "__name__", "") not in _DIVIDING or any(one.is_floating_point() for one in tensors):
            return made
        return func(*(one.to(self._dtype) if isinstance(one, torch.Tensor) else one for one in args), **kwargs)


class Undisturbed(OwnDtype):
    """While it is entered by the thread that builds a run, other threads do not reach what is made."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        """Nothing is drawn yet.

        Args:
            seed: Of the run, with which trl seeds before it makes the adapter.
            dtype: Of new tensors: the notebook's when the experiment was launched.
        """
        super().__init__(dtype)
        self._generators: dict[torch.device, torch.Generator] = {}
        self._seed = seed
        self._draws_itself = True

    def give_back_streams(self) -> None:
        """From here on the run draws from the process's streams, which Trainer seeds now."""
        self._draws_itself = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.nn.init.kaiming_uniform_.__name__ == "empty_func":  # transformers' no_init_weights
            raise Disturbed("a cell loaded a model and had replaced torch.nn.init")
        if self._draws_itself and _is_random(func) and kwargs.get("generator") is None:
            kwargs = {**kwargs, "generator": self._generator(args, kwargs)}
        return super().__torch_function__(func, types, args, kwargs)

    def _generator(self, args: Any, kwargs: dict[str, Any]) -> torch.Generator:
        tensor = args[0] if args and isinstance(args[0], torch.Tensor) else kwargs.get("tensor")
        given = kwargs.get("device") if tensor is None else tensor.device
        device = torch.device("cpu" if given is None else given)
        if device.type == "meta":
            device = torch.device("cpu")
        if device not in self._generators:
            self._generators[device] = torch.Generator(device)
            self._generators[device].manual_seed(self._seed)
        return self._generators[device]


class LoadWatch(TorchFunctionMode):
    """Notices that another thread loads a model at the same time: each sets the process's default dtype for its own."""

    def __init__(self) -> None:
        super().__init__()
        self._before = torch.get_default_dtype()
        self._seen = {self._before}
        self._own: Any = None
        """What transformers ties no weights with during this load."""

    @property
    def is_disturbed(self) -> bool:
        """Whether there was a third dtype, beside the notebook's and the model's, or another load has not ended."""
        if self._own is not None:
            _left_behind.add(self._own)
        has_not_ended = is_another_loading() or torch.get_default_dtype() is not self._before
        return len(self._seen) > 2 or has_not_ended

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._seen.add(torch.get_default_dtype())
        if self._own is None and transformers.PreTrainedModel.tie_weights.__name__ == "empty_func":
            self._own = transformers.PreTrainedModel.tie_weights
        return func(*args, **(kwargs or {}))


class OwnStream(TorchFunctionMode):
    """What its thread draws on the CPU comes from a generator of the run's own, and the process's stream stays where it is.

    For runs whose steps draw nothing: what is left are the seeds that data loaders draw.
    """

    def __init__(self) -> None:
        super().__init__()
        self._generator = torch.Generator()

    @property
    def state(self) -> torch.Tensor:
        """Of the run's stream on the CPU, as ``torch.get_rng_state`` gives it."""
        return self._generator.get_state()

    @state.setter
    def state(self, value: torch.Tensor) -> None:
        self._generator.set_state(value)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensor = args[0] if args and isinstance(args[0], torch.Tensor) else None
        device = torch.device((kwargs.get("device") if tensor is None else tensor.device) or "cpu")
        if func in _RANDOM and device.type == "cpu" and kwargs.get("generator") is None:
            kwargs = {**kwargs, "generator": self._generator}
        return func(*args, **kwargs)


def without_streams(own: Callable[..., Any]) -> Callable[..., Any]:
    """Torch's checkpointing without setting the process's streams back and forth, where nothing is drawn from them."""
    is_torch = isinstance(own, functools.partial) and own.func is torch.utils.checkpoint.checkpoint
    return functools.partial(own, preserve_rng_state=False) if is_torch else own


def _is_random(func: Any) -> bool:
    if getattr(func, "__module__", None) in ("torch.nn.init", "transformers.initialization"):
        return func.__name__ in _RANDOM_INITS
    return func in _RANDOM


def is_another_loading() -> bool:
    """Whether a thread is about to load a model with transformers, which ties no weights while it does.

    A load that began during ours and ended after it leaves behind what ours had put there; that is put right here.
    """
    held = transformers.PreTrainedModel.tie_weights
    if held in _left_behind:
        transformers.PreTrainedModel.tie_weights = _TIE_WEIGHTS
        return False
    return held.__name__ == "empty_func"


def until_undisturbed(attempt: Callable[[], ValueT]) -> ValueT:
    """Do something that other cells may disturb until they do not: three times at least, and for a while.

    Raises:
        Disturbed: when it was disturbed each time.
    """
    until = time.monotonic() + _TRY_SECONDS
    for tries in itertools.count(1):
        _wait_for_loads()
        try:
            return attempt()
        except Disturbed:
            if tries >= _TRIES and time.monotonic() > until:
                raise
    raise AssertionError


def _wait_for_loads(seconds: float = 5.0) -> None:
    """Until no other cell loads a model, or so long."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.002)):
        if not is_another_loading():
            return
        pause.wait(0.002)
