"""Which state of the process does a trainer use as if it were alone, and how is it set aside?

A run's random streams, a few environment variables and torch's numeric switches belong to the
process. Before a run's turn its own are installed, after the turn the notebook's own come back:
only those in which the two differ, and streams only for runs that draw in their steps. accelerate's
three singletons and torch's grad mode and default device are a run's own, in its thread: no other
thread sees them.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

from rf_notebook.training.device import gpus_of_runs

#: Held by whoever has the process's state to itself: a run's turn, a check of arguments, the
#: loading of a model.
PROCESS = threading.RLock()


class _PerThread:
    """Stands for a shared dictionary of accelerate's.

    A thread that has a run's state in has one of its own.

    accelerate ships such a thing for TPUs (``ThreadLocalSharedDict``); here all other threads continue
    sharing theirs.
    """

    def __init__(self, shared: dict[str, Any]) -> None:
        self._shared = shared
        self._local = threading.local()

    def __get__(self, instance: object, owner: type | None = None) -> dict[str, Any]:
        held: dict[str, Any] = (
            self._local.own if getattr(self._local, "is_inside", False) else self._shared
        )
        return held

    def capture(self) -> dict[str, Any] | None:
        """What this thread's own holds; None while it sees the shared one."""
        return dict(self._local.own) if getattr(self._local, "is_inside", False) else None

    def install(self, held: dict[str, Any] | None) -> None:
        """The inverse, in place.

        The ``__dict__`` of every instance that this thread made is this very dictionary.
        """
        self._local.is_inside = held is not None
        if held is not None:
            if not hasattr(self._local, "own"):
                self._local.own = {}
            self._local.own.clear()
            self._local.own.update(held)


def _per_thread(single: Any) -> _PerThread:
    """The descriptor of a singleton; put there the first time."""
    held = vars(single)["_shared_state"]
    if not isinstance(held, _PerThread):
        held = _PerThread(single._shared_state)  # noqa: SLF001 - accelerate's and torch's state of the process
        single._shared_state = held  # noqa: SLF001 - accelerate's and torch's state of the process
    return held


_SINGLETONS = tuple(map(_per_thread, (PartialState, AcceleratorState, GradientState)))
_ENVIRONMENT_PREFIXES = ("ACCELERATE_", "FSDP_")
_ENVIRONMENT_NAMES = (
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_LAUNCH_BLOCKING",
    "FLASH_ATTENTION_DETERMINISTIC",
    "ASCEND_LAUNCH_BLOCKING",
    "HCCL_DETERMINISTIC",
)


@dataclass(frozen=True, slots=True)
class RandomState:
    """The random streams that torch, numpy and Python share process-wide."""

    python: Any
    numpy: Any
    cpu: torch.Tensor
    cuda: tuple[torch.Tensor, ...]
    """Of the run's GPUs, usually the first alone; of all GPUs where the notebook's streams are set
    aside; empty without one."""

    @classmethod
    def capture(cls) -> RandomState:
        """The streams of a run as they are: those of its own devices, whatever else is visible."""
        return cls._with(tuple(map(torch.cuda.get_rng_state, gpus_of_runs())))

    @classmethod
    def capture_everywhere(cls) -> RandomState:
        """The streams of the whole process as they are: seeding a run seeds every visible GPU."""
        return cls._with(
            tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else ()
        )

    @classmethod
    def seeded(cls, seed: int) -> RandomState:
        """The streams as ``transformers.set_seed`` leaves them.

        Those of the process stay as they are.
        """
        cuda = tuple(torch.Generator(gpu).manual_seed(seed).get_state() for gpu in gpus_of_runs())
        numpy = np.random.RandomState(seed).get_state()
        return cls(
            random.Random(seed).getstate(),
            numpy,
            torch.Generator().manual_seed(seed).get_state(),
            cuda,
        )

    @classmethod
    def _with(cls, cuda: tuple[torch.Tensor, ...]) -> RandomState:
        return cls(random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda)

    def install(self) -> None:
        """Make the streams these."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.cpu)
        if torch.cuda.is_available():
            for index, state in enumerate(self.cuda[: torch.cuda.device_count()]):
                torch.cuda.set_rng_state(state, index)

    def as_plain(self) -> dict[str, Any]:
        """Tensors, numbers, strings, lists and tuples only.

        What ``torch.load(weights_only=True)`` reads.
        """
        kind, keys, position, has_gauss, gauss = self.numpy
        return {
            "python": self.python,
            "numpy": (
                str(kind),
                torch.from_numpy(keys.astype(np.int64)),
                int(position),
                int(has_gauss),
                float(gauss),
            ),
            "cpu": self.cpu,
            "cuda": list(self.cuda),
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> RandomState:
        """The inverse of ``as_plain``.

        A run that was on more GPUs keeps the streams of the first ones; on one that is new to it, it
        draws as on the first.
        """
        kind, keys, position, has_gauss, gauss = plain["numpy"]
        version, words, gauss_next = plain["python"]
        return cls(
            python=(version, tuple(words), gauss_next),
            numpy=(kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss),
            cpu=plain["cpu"],
            cuda=_of_each_gpu(plain["cuda"]),
        )


def _of_each_gpu(states: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    count = max(1, len(gpus_of_runs()))
    return (*states, *states[:1] * (count - len(states)))[:count]


@dataclass(frozen=True, slots=True)
class _Switches:
    """torch's process-wide numeric settings that TrainingArguments can turn."""

    deterministic: bool
    deterministic_warn_only: bool
    cudnn_deterministic: bool
    cudnn_benchmark: bool
    cudnn_tf32: bool
    matmul_precision: str
    threads: int

    @classmethod
    def capture(cls) -> _Switches:
        return cls(
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.allow_tf32,
            torch.get_float32_matmul_precision(),
            torch.get_num_threads(),
        )

    def install(self) -> None:
        now = _Switches.capture()
        if now == self:
            return
        torch.use_deterministic_algorithms(
            self.deterministic, warn_only=self.deterministic_warn_only
        )
        torch.backends.cudnn.deterministic = self.cudnn_deterministic
        torch.backends.cudnn.benchmark = self.cudnn_benchmark
        torch.backends.cudnn.allow_tf32 = self.cudnn_tf32
        torch.set_float32_matmul_precision(self.matmul_precision)
        if now.threads != self.threads:
            torch.set_num_threads(self.threads)


@dataclass(frozen=True, slots=True)
class _Contexts:
    """What torch keeps for each thread, which all runs share.

    One run's reward must not change it for another.
    """

    grad: bool = True
    device: torch.device | None = None
    """torch's default."""
    gpu: int | None = None
    """The current one; None before anything uses CUDA."""

    @classmethod
    def capture(cls) -> _Contexts:
        context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)  # noqa: SLF001 - accelerate's and torch's state of the process
        device = None if context is None else context.device
        gpu = torch.cuda.current_device() if torch.cuda.is_initialized() else None
        return cls(torch.is_grad_enabled(), device, gpu)

    def install(self) -> None:
        now = _Contexts.capture()
        if now.grad != self.grad:
            torch.set_grad_enabled(self.grad)
        if now.device != self.device:
            torch.set_default_device(self.device)
        if self.gpu is not None and now.gpu != self.gpu:
            torch.cuda.set_device(self.gpu)


def _environment() -> dict[str, str]:
    return {
        k: v
        for k, v in os.environ.items()
        if k.startswith(_ENVIRONMENT_PREFIXES) or k in _ENVIRONMENT_NAMES
    }


@dataclass(frozen=True, slots=True)
class ProcessState:
    """All of it, at one moment."""

    random: RandomState
    switches: _Switches
    environment: dict[str, str] = field(default_factory=dict)
    singletons: tuple[dict[str, Any] | None, ...] = (None, None, None)
    contexts: _Contexts = _Contexts()

    @classmethod
    def capture(cls, streams: RandomState | None = None) -> ProcessState:
        """The state of a run as it is.

        Args:
            streams: The run's own, where they are not the process's at this moment.
        """
        return cls._with(streams or RandomState.capture())

    @classmethod
    def of_notebook(cls) -> ProcessState:
        """The state as it is, before a run's is installed.

        With the streams of devices on which no run trains.
        """
        return cls._with(RandomState.capture_everywhere())

    @classmethod
    def _with(cls, streams: RandomState) -> ProcessState:
        singletons = tuple(single.capture() for single in _SINGLETONS)
        return cls(streams, _Switches.capture(), _environment(), singletons, _Contexts.capture())

    @classmethod
    def fresh(cls, notebook: ProcessState) -> ProcessState:
        """What a process that has trained nothing yet has.

        No accelerate state, the rest as the notebook's.
        """
        return cls(notebook.random, notebook.switches, notebook.environment, ({}, {}, {}))

    def moved_on(self, streams: RandomState | None = None) -> ProcessState:
        """The state as it is, of a run that came from this one inside a joint step.

        Switches and environment are the same.
        """
        singletons = tuple(single.capture() for single in _SINGLETONS)
        return replace(self, random=streams or RandomState.capture(), singletons=singletons)

    def install_again(self, *, streams: bool = True) -> None:
        """``install`` for runs that take turns inside a joint step.

        Only streams and singletons differ among them.
        """
        if streams:
            self.random.install()
        self._install_singletons()

    def install(self) -> None:
        """Make the process's state this one."""
        self.random.install()
        self.install_beside_streams(self.environment)

    def install_beside_streams(self, environment: dict[str, str] | None = None) -> None:
        """All but the random streams.

        The environment only where it is given, for it is not read after building.
        """
        self.switches.install()
        if environment is not None:
            now = _environment()
            for name in now.keys() - environment.keys():
                os.environ.pop(name, None)
            os.environ.update({k: v for k, v in environment.items() if now.get(k) != v})
        self._install_singletons()
        self.contexts.install()

    def _install_singletons(self) -> None:
        for single, held in zip(_SINGLETONS, self.singletons, strict=True):
            single.install(held)


def function_modes() -> int:
    """How many ``TorchFunctionMode``s this thread has entered."""
    return torch._C._len_torch_function_stack()  # noqa: SLF001 - torch says it nowhere else


@contextmanager
def outside_torch_contexts(modes: int) -> Iterator[None]:
    """As if no ``no_grad``, ``inference_mode``, ``autocast`` or further function mode were entered.

    While another run trains inside this run's contexts. All are state of the thread, which all runs
    share. Source: torch 2.13, ``torch.amp.autocast_mode.autocast``, ``torch.overrides``.

    Args:
        modes: How many function modes there were before the run entered its own.
    """
    own_modes = [
        torch.overrides._pop_mode()  # noqa: SLF001 - no public way to leave a mode for a while
        for _ in range(function_modes() - modes)
    ]
    inference = torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
    gradients = torch.is_grad_enabled()
    kinds = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    autocasts = [
        (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds
    ]
    for kind, _, _ in autocasts:
        torch.set_autocast_enabled(kind, False)
    # it would keep casts of weights for as long as any run is inside an autocast
    torch.clear_autocast_cache()
    try:
        with inference:
            torch.set_grad_enabled(True)
            yield
    finally:
        torch.set_grad_enabled(gradients)
        for kind, enabled, dtype in autocasts:
            torch.set_autocast_enabled(kind, enabled)
            torch.set_autocast_dtype(kind, dtype)
        torch.clear_autocast_cache()
        for mode in reversed(own_modes):
            torch.overrides._push_mode(mode)  # noqa: SLF001 - no public way to leave a mode for a while


@contextmanager
def isolated(*, streams: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Do something that may touch the process's state, and leave no trace in it.

    Waits for a turn in progress to end or park, so never call it while holding a lock that the
    engine needs.

    Args:
        streams: Asked at the end: whether the random streams go back to where they were. Another
            cell that seeded or drew meanwhile loses that.
    """
    with PROCESS:
        notebook = ProcessState.of_notebook()
        try:
            ProcessState.fresh(notebook).install_beside_streams(notebook.environment)
            yield
        finally:
            if streams():
                notebook.random.install()
            # TrainingArguments makes the first GPU this thread's current one
            notebook.install_beside_streams(notebook.environment)
