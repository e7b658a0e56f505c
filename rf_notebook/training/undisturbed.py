"""How is a run what plain TRL makes of it, whatever other cells of the notebook do to torch at that moment?

torch keeps its default dtype, its random streams and the functions of ``torch.nn.init`` for the whole process, and
transformers changes them while it loads a model. Nothing of that is blocked or patched. While a run is built, its own
thread gives every new tensor the run's dtype, and draws the adapter's first weights from a generator of the run's own;
functions that are replaced at the moment in which they are needed are noticed, and the run is built again. While it
trains beside a cell that is at work, ``Watch`` puts its streams back before it draws.
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.utils.checkpoint
import transformers
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

from rf_notebook.training.device import gpu_of_runs

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
#: Names of functions that draw from the process's streams.
_DRAWS = frozenset(
    {*_RANDOM_NAMES, "normal", "bernoulli", "multinomial", "poisson", "scaled_dot_product_attention"}
    | {"rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "rrelu", "rrelu_"}
    | {"dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "native_dropout", "feature_dropout"}
    | {"alpha_dropout", "feature_alpha_dropout", "gumbel_softmax"}
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

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if not isinstance(made, torch.Tensor) or made.dtype is self._dtype or kwargs.get("dtype") is not None:
            return made
        if not made.is_floating_point():
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


class Watch(OwnDtype):
    """Keeps a run's steps its own while a cell is at work beside them.

    Whatever the run draws goes through here, in its threads alone. On the CPU it draws from a generator of its own. A
    GPU's stream that is not where the run left it was moved by another thread: it is put back before the run draws. Where
    layers are checkpointed, what they drew in the forward is remembered, and drawn again from there.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        self.disturbances = 0
        """How often a stream was put back."""
        self.is_on = False
        self._expected: list[torch.Tensor] = []
        """The process's streams as they were last; that of the GPU is the run's."""
        self._generator = torch.Generator()
        """The run's stream on the CPU."""
        self._layers = threading.local()

    def begin(self) -> None:
        """The process's streams are the run's as they are now."""
        self._expected = _streams()
        self._generator.set_state(self._expected[0])

    def streams(self) -> dict[str, Any]:
        """Where the run left its streams: fields of a RandomState."""
        return {"cpu": self._generator.get_state(), "cuda": tuple(self._expected[1:])}

    @contextmanager
    def on(self) -> Iterator[None]:
        """While it lasts, this thread runs the run's steps; the process's streams are the run's when it begins."""
        self.begin()
        self.is_on = True
        try:
            with self:
                yield
        finally:
            self.is_on = False

    def draw_from(self, cpu: torch.Tensor) -> None:
        """The run's stream on the CPU is in this state."""
        self._generator.set_state(cpu)

    @contextmanager
    def drawing_from(self, cpu: torch.Tensor) -> Iterator[None]:
        """While it lasts, what this thread draws on the CPU comes from here, and the process's stream stays where it is."""
        was_on, self.is_on = self.is_on, True
        self.begin()
        self.draw_from(cpu)
        try:
            with self:
                yield
        finally:
            self.is_on = was_on

    def checkpointed(self, own: Callable[..., Any]) -> Callable[..., Any]:
        """A function that checkpoints a layer, as ``own`` does, whose draws are the same when it is computed again."""

        def checkpoint(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if not self.is_on:
                return own(function, *args, **kwargs)
            drawn_at: list[list[torch.Tensor]] = []
            passes = itertools.count()

            def layer(*args: Any, **kwargs: Any) -> Any:
                is_first = next(passes) == 0
                self._layers.draws = _Recording(drawn_at) if is_first else iter(list(drawn_at))
                try:
                    with nullcontext() if is_first else self:  # on a GPU it is computed again by another thread
                        return function(*args, **kwargs)
                finally:
                    self._layers.draws = None

            return without_streams(own)(layer, *args, **kwargs)

        return checkpoint

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") not in _DRAWS or kwargs.get("generator") is not None:
            return super().__torch_function__(func, types, args, kwargs)
        draws = getattr(self._layers, "draws", None)
        if draws is not None and not isinstance(draws, _Recording):
            return self._drawn_again(next(draws), func, types, args, kwargs)
        self._put_back_streams()
        if draws is not None:
            draws.states.append([self._generator.get_state(), *self._expected[1:]])
        return self._drawn(func, types, args, kwargs)

    def _drawn_again(self, states: list[torch.Tensor], func: Any, types: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        own = self._generator.get_state()
        self._generator.set_state(states[0])
        for state in states[1:]:
            torch.cuda.set_rng_state(state, gpu_of_runs())  # type: ignore[arg-type]
        expected = self._expected[1:]
        try:
            return self._drawn(func, types, args, kwargs)
        finally:
            self._generator.set_state(own)
            self._expected[1:] = expected

    def _put_back_streams(self) -> None:
        now = _streams()
        if not all(map(torch.equal, now, self._expected)):
            self.disturbances += 1
        self._expected[0] = now[0]  # on the CPU the run draws from a generator of its own
        for state in self._expected[1:]:
            torch.cuda.set_rng_state(state, gpu_of_runs())  # type: ignore[arg-type]

    def _drawn(self, func: Any, types: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """What the function gives, drawn from the run's streams.

        Source: torch 2.13, ``aten/src/ATen/native/Dropout.cpp``, for dropout on a CPU.
        """
        tensor = args[0] if args and isinstance(args[0], torch.Tensor) else None
        device = kwargs.get("device") if tensor is None else tensor.device
        is_on_cpu = torch.device("cpu" if device is None else device).type == "cpu"
        if is_on_cpu and func is torch.nn.functional.dropout:
            p, training, in_place = _dropout_arguments(*args, **kwargs)
            if not training or p == 0.0 or p == 1.0:
                return func(*args, **kwargs)
            assert tensor is not None
            noise = torch.empty_like(tensor).bernoulli_(1 - p, generator=self._generator).div_(1 - p)
            return tensor.mul_(noise) if in_place else tensor * noise
        if is_on_cpu and (func in _RANDOM or getattr(func, "__name__", "") in _RANDOM_NAMES):
            kwargs = {**kwargs, "generator": self._generator}
        made = super().__torch_function__(func, types, args, kwargs)
        self._expected[1:] = _streams()[1:]
        return made


@dataclass(slots=True)
class _Recording:
    """Where the streams were before each draw of a layer."""

    states: list[list[torch.Tensor]]


def _streams() -> list[torch.Tensor]:
    """Of the CPU, and of the GPU on which runs train."""
    device = gpu_of_runs()
    gpu = [] if device is None or not torch.cuda.is_initialized() else [torch.cuda.get_rng_state(device)]
    return [torch.get_rng_state(), *gpu]


def _dropout_arguments(
    _input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> tuple[float, bool, bool]:
    """As ``torch.nn.functional.dropout`` takes them."""
    return p, training, inplace


def without_streams(own: Callable[..., Any]) -> Callable[..., Any]:
    """Torch's checkpointing without setting the process's streams back and forth, where nothing is drawn from them."""
    is_torch = isinstance(own, functools.partial) and own.func is torch.utils.checkpoint.checkpoint
    if not is_torch or torch.cuda.is_initialized():
        return own
    return functools.partial(own, preserve_rng_state=False)


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
