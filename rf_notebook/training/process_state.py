"""Which state of the process does a trainer use as if it were alone, and how is it set aside?

A run's random streams, accelerate's three singletons, a few environment variables and torch's numeric switches belong
to the process. Before a run's turn its own are installed, after the turn the notebook's own come back.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

from rf_notebook.training.device import gpu_of_runs

#: Held by whoever has the process's state to itself: a run's turn, a check of arguments, the loading of a model.
PROCESS = threading.RLock()

_SINGLETONS = (PartialState, AcceleratorState, GradientState)
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
    """Of the run's GPU, the first; of all GPUs where the notebook's streams are set aside; empty without one."""

    @classmethod
    def capture(cls) -> RandomState:
        """The streams of a run as they are: those of its own device, whatever else is visible."""
        device = gpu_of_runs()
        return cls._with(() if device is None else (torch.cuda.get_rng_state(device),))

    @classmethod
    def capture_everywhere(cls) -> RandomState:
        """The streams of the whole process as they are: seeding a run seeds every visible GPU."""
        return cls._with(tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else ())

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
        """Tensors, numbers, strings, lists and tuples only: what ``torch.load(weights_only=True)`` reads."""
        kind, keys, position, has_gauss, gauss = self.numpy
        return {
            "python": self.python,
            "numpy": (str(kind), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)),
            "cpu": self.cpu,
            "cuda": list(self.cuda),
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> RandomState:
        """The inverse of ``as_plain``; of a checkpoint that holds the streams of several GPUs, the run's own."""
        kind, keys, position, has_gauss, gauss = plain["numpy"]
        version, words, gauss_next = plain["python"]
        return cls(
            python=(version, tuple(words), gauss_next),
            numpy=(kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss),
            cpu=plain["cpu"],
            cuda=tuple(plain["cuda"][:1]),
        )


@dataclass(frozen=True, slots=True)
class _Switches:
    """torch's process-wide numeric settings that TrainingArguments can turn."""

    deterministic: bool
    deterministic_warn_only: bool
    cudnn_deterministic: bool
    cudnn_benchmark: bool
    cudnn_tf32: bool
    matmul_precision: str

    @classmethod
    def capture(cls) -> _Switches:
        return cls(
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.allow_tf32,
            torch.get_float32_matmul_precision(),
        )

    def install(self) -> None:
        now = _Switches.capture()
        if now == self:
            return
        torch.use_deterministic_algorithms(self.deterministic, warn_only=self.deterministic_warn_only)
        torch.backends.cudnn.deterministic = self.cudnn_deterministic
        torch.backends.cudnn.benchmark = self.cudnn_benchmark
        torch.backends.cudnn.allow_tf32 = self.cudnn_tf32
        torch.set_float32_matmul_precision(self.matmul_precision)


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k.startswith(_ENVIRONMENT_PREFIXES) or k in _ENVIRONMENT_NAMES}


@dataclass(frozen=True, slots=True)
class ProcessState:
    """All of it, at one moment."""

    random: RandomState
    switches: _Switches
    environment: dict[str, str] = field(default_factory=dict)
    singletons: tuple[dict[str, Any], ...] = ({}, {}, {})

    @classmethod
    def capture(cls) -> ProcessState:
        """The state of a run as it is."""
        return cls._with(RandomState.capture())

    @classmethod
    def of_notebook(cls) -> ProcessState:
        """The state as it is, before a run's is installed: with the streams of devices on which no run trains."""
        return cls._with(RandomState.capture_everywhere())

    @classmethod
    def _with(cls, streams: RandomState) -> ProcessState:
        singletons = tuple(dict(single._shared_state) for single in _SINGLETONS)
        return cls(streams, _Switches.capture(), _environment(), singletons)

    @classmethod
    def fresh(cls, notebook: ProcessState) -> ProcessState:
        """What a process that has trained nothing yet has: no accelerate state, the rest as the notebook's."""
        return cls(notebook.random, notebook.switches, notebook.environment)

    def moved_on(self) -> ProcessState:
        """The state as it is, of a run that came from this one inside a joint step: switches and environment are the same."""
        return replace(self, random=RandomState.capture(), singletons=tuple(dict(s._shared_state) for s in _SINGLETONS))

    def install_again(self) -> None:
        """``install`` for runs that take turns inside a joint step: only streams and singletons differ among them."""
        self.random.install()
        self._install_singletons()

    def install(self) -> None:
        """Make the process's state this one."""
        self.random.install()
        self.switches.install()
        now = _environment()
        if now != self.environment:
            for name in now.keys() - self.environment.keys():
                del os.environ[name]
            os.environ.update({k: v for k, v in self.environment.items() if now.get(k) != v})
        self._install_singletons()

    def _install_singletons(self) -> None:
        for single, shared in zip(_SINGLETONS, self.singletons, strict=True):
            # In place: the __dict__ of every live instance is this very dictionary.
            single._shared_state.clear()
            single._shared_state.update(shared)


@contextmanager
def outside_torch_contexts() -> Iterator[None]:
    """As if no ``no_grad`` and no ``autocast`` were entered: while another run trains inside this run's contexts.

    Both are state of the thread, which all runs share. Source: torch 2.13, ``torch.amp.autocast_mode.autocast``.
    """
    gradients = torch.is_grad_enabled()
    kinds = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    autocasts = [(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds]
    torch.set_grad_enabled(True)
    for kind, _, _ in autocasts:
        torch.set_autocast_enabled(kind, False)
    torch.clear_autocast_cache()  # it would keep casts of weights for as long as any run is inside an autocast
    try:
        yield
    finally:
        torch.set_grad_enabled(gradients)
        for kind, enabled, dtype in autocasts:
            torch.set_autocast_enabled(kind, enabled)
            torch.set_autocast_dtype(kind, dtype)
        torch.clear_autocast_cache()


@contextmanager
def isolated() -> Iterator[None]:
    """Do something that may touch the process's state, and leave no trace in it.

    Waits for a turn in progress to end or park, so never call it while holding a lock that the engine needs.
    """
    with PROCESS:
        notebook = ProcessState.of_notebook()
        device = torch.cuda.current_device() if torch.cuda.is_initialized() else None
        try:
            ProcessState.fresh(notebook).install()
            yield
        finally:
            notebook.install()
            if device is not None:  # TrainingArguments makes the first GPU this thread's current one
                torch.cuda.set_device(device)
