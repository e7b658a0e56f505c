"""How is a run what plain TRL makes of it, whatever other cells of the notebook do to torch at that moment?

torch keeps its default dtype, its random streams and the functions of ``torch.nn.init`` for the whole process, and
transformers changes them while it loads a model. Nothing of that is blocked or patched. While a run is built, its own
thread gives every new tensor the run's dtype, and draws the adapter's first weights from a generator of the run's own;
what remains, functions that are replaced at the moment in which they are needed, is noticed, and the run is built again.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
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
#: Where a thread stands that has nothing to do.
_WAITING = ("selectors.py", "threading.py", "queue.py", "socket.py", "asyncio")
_OURS = str(Path(__file__).parents[1])


class Disturbed(Exception):  # noqa: N818 - no error: what was built is built again
    """Another cell replaced something of the process that a run needed just then."""


class Undisturbed(TorchFunctionMode):
    """While it is entered by the thread that builds a run, other threads do not reach what is made."""

    def __init__(self, seed: int, dtype: torch.dtype) -> None:
        """Nothing is drawn yet.

        Args:
            seed: Of the run, with which trl seeds before it makes the adapter.
            dtype: Of new tensors: the notebook's when the experiment was launched.
        """
        super().__init__()
        self._dtype = dtype
        self._generators: dict[torch.device, torch.Generator] = {}
        self._seed = seed
        self._draws_itself = True

    def give_back_streams(self) -> None:
        """From here on the run draws from the process's streams, which Trainer seeds now."""
        self._draws_itself = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.nn.init.kaiming_uniform_.__name__ == "empty_func":  # transformers' no_init_weights
            raise Disturbed("a cell loads a model and has replaced torch.nn.init")
        if self._draws_itself and _is_random(func) and kwargs.get("generator") is None:
            kwargs = {**kwargs, "generator": self._generator(args, kwargs)}
        if torch.get_default_dtype() is self._dtype or kwargs.get("dtype") is not None:
            return func(*args, **kwargs)
        return self._in_own_dtype(func, args, kwargs)

    def _in_own_dtype(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """A tensor made while a cell has another default dtype."""
        if func in _INFERRING:
            if hasattr(args[0] if args else kwargs.get("data"), "dtype"):
                return func(*args, **kwargs)
        elif func not in _device_constructors():
            return func(*args, **kwargs)
        made = func(*args, **kwargs)
        is_default = isinstance(made, torch.Tensor) and made.is_floating_point()
        return func(*args, **{**kwargs, "dtype": self._dtype}) if is_default else made

    def _generator(self, args: Any, kwargs: dict[str, Any]) -> torch.Generator:
        given = args[0].device if args and isinstance(args[0], torch.Tensor) else kwargs.get("device")
        device = torch.device("cpu" if given is None else given)
        if device.type == "meta":
            device = torch.device("cpu")
        if device not in self._generators:
            self._generators[device] = torch.Generator(device)
            self._generators[device].manual_seed(self._seed)
        return self._generators[device]


def _is_random(func: Any) -> bool:
    if getattr(func, "__module__", None) == "torch.nn.init":
        return func.__name__ in _RANDOM_INITS
    return func in _RANDOM


def is_another_at_work() -> bool:
    """Whether the notebook's own thread, or one of the user's, runs code at this moment rather than waits."""
    me = threading.get_ident()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        if ident == me or names.get(ident, "").startswith(("rf-", "IPythonHistory")):
            continue
        file = frame.f_code.co_filename
        if not any(part in file for part in _WAITING) and not file.startswith(_OURS):
            return True
    return False


def until_undisturbed(attempt: Callable[[], Any], *, tries: int = 3) -> Any:
    """Do something until no other cell disturbs it.

    Raises:
        Disturbed: when it was disturbed each time.
    """
    for left in range(tries - 1, -1, -1):
        try:
            return attempt()
        except Disturbed:
            if not left:
                raise
            _wait_for_loading()
    raise AssertionError


def _wait_for_loading(seconds: float = 5.0) -> None:
    """Until no cell has replaced torch.nn.init."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if torch.nn.init.kaiming_uniform_.__name__ != "empty_func":
            return
        pause.wait(0.01)
