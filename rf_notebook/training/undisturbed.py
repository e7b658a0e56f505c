"""How does a run stay what plain TRL makes of it, whatever other cells do to torch?

torch keeps its default dtype, its random streams and the functions of ``torch.nn.init`` for the
whole process, and transformers changes them while it loads a model. Nothing of that is blocked.
While a run is built, its own thread gives every new tensor the run's dtype, and draws the adapter's
first weights from a generator of the run's own; functions that are replaced at the moment in which
they are needed are noticed, and the run is built again. While it trains alongside a cell that is at
work, new tensors keep the run's dtype; runs whose steps draw nothing leave the process's streams
alone from their building on, and others say that a cell was at work.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FunctionType
from typing import Any, TypeVar

import torch
import torch.utils.checkpoint
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

from rf_notebook.training.device import gpus_of_runs
from rf_notebook.training.per_thread import seeding_only
from rf_notebook.training.process_state import RandomState, isolated

#: Tensor methods and functions that fill a tensor from a random stream and take a generator.
_RANDOM_NAMES = (
    "uniform_",
    "normal_",
    "random_",
    "bernoulli_",
    "exponential_",
    "log_normal_",
    "cauchy_",
    "geometric_",
)
_RANDOM: frozenset[Any] = frozenset(
    {
        *(getattr(torch.Tensor, name) for name in _RANDOM_NAMES),
        torch.normal,
        torch.bernoulli,
        torch.multinomial,
    }
    | {torch.rand, torch.randn, torch.randint, torch.randperm}
)
_INFERRING: frozenset[Any] = frozenset(
    {torch.tensor, torch.as_tensor, torch.asarray, torch.scalar_tensor}
)
#: Those of ``torch.nn.init``.
_RANDOM_INITS = frozenset(
    {"uniform_", "normal_", "trunc_normal_", "orthogonal_", "sparse_"}
    | {"kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_"}
)
#: Names of functions that make numbers of the default dtype out of whole ones.
_DIVIDING = frozenset(
    {
        "div",
        "true_divide",
        "__truediv__",
        "__rtruediv__",
        "__div__",
        "__rdiv__",
        "divide",
        "reciprocal",
    }
)
_TRIES = 3
_TRY_SECONDS = 8.0
ValueT = TypeVar("ValueT")


class Disturbed(Exception):  # noqa: N818 - no error: what was built is built again
    """Another cell replaced something of the process that a run needed just then."""


class OwnDtype(TorchFunctionMode):
    """New tensors of the entering thread have the run's default dtype, not the process's."""

    def __init__(self, dtype: torch.dtype, within: torch.dtype | None = None) -> None:
        """Nothing is made yet.

        Args:
            dtype: Of new tensors.
            within: The dtype that they have around it, where this thread is inside another one of
                these.
        """
        super().__init__()
        self._dtype = dtype
        self._others = set() if within in (None, dtype) else {within}

    @property
    def others(self) -> frozenset[torch.dtype]:
        """Default dtypes that the process had meanwhile, which were not the thread's."""
        return frozenset(self._others)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if (now := torch.get_default_dtype()) is not self._dtype:
            self._others.add(now)
        if (
            not isinstance(made, torch.Tensor)
            or made.dtype not in self._others
            or kwargs.get("dtype") is not None
        ):
            return made
        if func not in _device_constructors():
            return self._divided(func, made, args, kwargs)
        if func in _INFERRING and hasattr(args[0] if args else kwargs.get("data"), "dtype"):
            return made
        return func(*args, **{**kwargs, "dtype": self._dtype})

    def _divided(self, func: Any, made: torch.Tensor, args: Any, kwargs: Any) -> Any:
        """Whole numbers that became others by a division, say, become those of the run's dtype."""
        tensors = [one for one in args if isinstance(one, torch.Tensor)]
        if getattr(func, "__name__", "") not in _DIVIDING or any(
            one.is_floating_point() for one in tensors
        ):
            return made
        return func(
            *(one.to(self._dtype) if isinstance(one, torch.Tensor) else one for one in args),
            **kwargs,
        )


class OwnStream(TorchFunctionMode):
    """What its thread draws comes from its own generators; the process's streams stay put."""

    def __init__(self, seed: int = 0) -> None:
        """Nothing is drawn yet.

        Args:
            seed: Seed of the generators, one for each device.
        """
        super().__init__()
        self._generators: dict[torch.device, torch.Generator] = {}
        self._seed = seed
        self._is_open = True

    @classmethod
    def like_process(cls) -> OwnStream:
        """One whose stream on the CPU begins where the process's is.

        It gives the numbers that the process would give.
        """
        stream = cls()
        stream.state = torch.get_rng_state()
        return stream

    def seed(self, seed: int) -> None:
        """Begin again on every device."""
        self._seed = seed
        self._generators.clear()

    def give_back(self) -> None:
        """From here on what is drawn comes from the process's streams."""
        self._is_open = False

    @property
    def state(self) -> torch.Tensor:
        """Of the stream on the CPU, as ``torch.get_rng_state`` gives it."""
        return self.of(torch.device("cpu")).get_state()

    @state.setter
    def state(self, value: torch.Tensor) -> None:
        self.of(torch.device("cpu")).set_state(value)

    def of(self, device: torch.device) -> torch.Generator:
        """The generator of a device."""
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[device]

    def streams(self, seed: int) -> RandomState:
        """All of a run's that seeded only this.

        Python's and numpy's as ``set_seed`` leaves them.
        """
        cuda = tuple(self.of(gpu).get_state() for gpu in gpus_of_runs())
        return replace(RandomState.seeded(seed), cpu=self.state, cuda=cuda)

    def drawing(self, func: Any, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a function, with its generator where it draws."""
        if self._is_open and _is_random(func) and kwargs.get("generator") is None:
            return {**kwargs, "generator": self.of(_device_of(args, kwargs))}
        return kwargs

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **self.drawing(func, args, kwargs or {}))


@contextmanager
def isolated_from_streams() -> Iterator[None]:
    """``isolated``, for what may draw but need not draw anything in particular.

    The process's streams are not touched.
    """
    with isolated(streams=lambda: False), OwnStream():
        yield


class Drawn(TorchFunctionMode):
    """Notices whether its thread draws from the process's streams."""

    has_drawn = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _is_random(func) and kwargs.get("generator") is None:
            tensor = _filled(args, kwargs)
            self.has_drawn |= tensor is None or tensor.device.type != "meta"
        return func(*args, **kwargs)


class _Building(OwnDtype):
    """``OwnDtype`` and ``OwnStream`` in one, for each costs microseconds for everything torch does.

    Raises while a cell that loads a model has replaced the functions of ``torch.nn.init``.
    """

    def __init__(self, dtype: torch.dtype, stream: OwnStream) -> None:
        super().__init__(dtype)
        self._stream = stream

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.nn.init.kaiming_uniform_.__name__ == "empty_func":  # transformers' no_init_weights
            raise Disturbed("a cell loaded a model and had replaced torch.nn.init")
        drawing = self._stream.drawing(func, args, kwargs or {})
        return super().__torch_function__(func, types, args, drawing)


@contextmanager
def undisturbed(dtype: torch.dtype, stream: OwnStream, *, is_quiet: bool) -> Iterator[None]:
    """While it is entered by the thread that builds a run, other threads do not reach what is made.

    Args:
        dtype: Of new tensors: the notebook's when the experiment was launched.
        stream: From which the run draws, seeded as trl seeds before it makes the adapter.
        is_quiet: Whether the run draws nothing in its steps: then it does not seed the process's
            streams either.
    """
    with (
        seeding_only(stream.seed if is_quiet else None),
        _Building(dtype, stream),
    ):
        yield


def without_streams(own: Callable[..., Any]) -> Callable[..., Any]:
    """Torch's checkpointing without resetting the process's streams when nothing draws."""
    is_torch = isinstance(own, functools.partial) and own.func is torch.utils.checkpoint.checkpoint
    return functools.partial(own, preserve_rng_state=False) if is_torch else own


def _is_random(func: Any) -> bool:
    if func in _RANDOM:
        return True
    is_python = type(func) is FunctionType
    return (
        is_python
        and func.__module__ in ("torch.nn.init", "transformers.initialization")
        and func.__name__ in _RANDOM_INITS
    )


def _filled(args: Any, kwargs: Any) -> torch.Tensor | None:
    """The tensor that a random function fills; None for one that makes it."""
    given = args[0] if args and isinstance(args[0], torch.Tensor) else kwargs.get("tensor")
    return given if isinstance(given, torch.Tensor) else None


def _device_of(args: Any, kwargs: Any) -> torch.device:
    """Where a random function draws; what has no weights yet, on the CPU."""
    tensor = _filled(args, kwargs)
    device = torch.device((kwargs.get("device") if tensor is None else tensor.device) or "cpu")
    return torch.device("cpu") if device.type == "meta" else device


def until_undisturbed(attempt: Callable[[], ValueT]) -> ValueT:
    """Do something that other cells may disturb until they do not.

    Three times at least, and for a while.

    Raises:
        Disturbed: when it was disturbed each time.
    """
    until = time.monotonic() + _TRY_SECONDS
    for tries in itertools.count(1):
        try:
            return attempt()
        except Disturbed:
            if tries >= _TRIES and time.monotonic() > until:
                raise
    raise AssertionError
