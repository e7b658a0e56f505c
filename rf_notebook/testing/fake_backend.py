"""Experiments without libraries.

The public API over a runner whose training is one line of arithmetic.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rf_notebook.core.errors import ConfigError
from rf_notebook.core.values import Json, digest
from rf_notebook.runners.in_kernel import KernelFleet
from rf_notebook.testing.fake_runner import FakeRunner

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rf_notebook.core.fleet import DeviceFacts, Fleet
    from rf_notebook.core.objects import Objects
    from rf_notebook.core.ports import CommitObserver
    from rf_notebook.core.runner import ConfigRules
    from rf_notebook.session.launch import Launch


@dataclass(frozen=True, slots=True)
class FakeData:
    """See session.backend.Data: lists of rows."""

    train: Sequence[Any]
    evaluation: Sequence[Any] | None

    def fingerprint(self) -> dict[str, Json]:
        """See Data."""
        return {"train": _fingerprint(self.train), "eval": _fingerprint(self.evaluation)}

    def origin(self) -> dict[str, Json]:
        """See Data."""
        return {}


@dataclass(slots=True)
class FakeBackend:
    """See session.backend.Backend."""

    on_step: Callable[[int, int], None] = lambda _run_id, _step: None
    """Called before each step with the run and its steps done."""
    gpus: int = 0
    """That are said to be visible."""
    runners: list[FakeRunner] = field(default_factory=list)
    """Those that were made."""

    def load(self) -> None:
        """See Backend: nothing to load."""

    def gpu_count(self) -> int:
        """See Backend."""
        return self.gpus

    def devices(self, wanted: Any, stages: int, cluster: Any) -> tuple[DeviceFacts, ...]:
        """See Backend: runs train in the kernel, and there are no GPUs."""
        if isinstance(wanted, int):
            raise ConfigError(f"run_fit(devices={wanted!r}): this machine has cpu.")
        return ()

    def data(self, train: Any, evaluation: Any) -> FakeData:
        """See Backend."""
        for name, rows in (("train_dataset", train), ("eval_dataset", evaluation)):
            if rows is not None and (not isinstance(rows, list) or not rows):
                raise ConfigError(f"{name} must be a list of at least one row.")
        return FakeData(train, evaluation)

    def environment(self, devices: Sequence[DeviceFacts]) -> dict[str, Json]:
        """See Backend."""
        return {"device": "none"}

    def rules(
        self,
        folder: Path,
        data: Any,
        objects: Objects,
        create_model: Any,
        num_chunks: int,
        devices: Sequence[DeviceFacts],
    ) -> ConfigRules:
        """See Backend."""
        return FakeRunner(folder, examples=len(data.train), num_chunks=num_chunks)

    def fleet(
        self, folder: Path, launch: Launch, observer: CommitObserver, log: logging.Logger
    ) -> Fleet:
        """See Backend."""
        data: Any = launch.data
        runner = FakeRunner(
            folder,
            examples=len(data.train),
            num_chunks=launch.started.num_chunks,
            observer=observer,
            on_step=lambda run_id, step: self.on_step(run_id, step),
            evaluates=data.evaluation is not None,
        )
        self.runners.append(runner)
        return KernelFleet(runner)

    def messages_to(self, log: logging.Logger) -> AbstractContextManager[None]:
        """See Backend."""
        return nullcontext()

    def release_threads(self) -> None:
        """See Backend."""


def _fingerprint(rows: Sequence[Any] | None) -> Json:
    return None if rows is None else {"rows": len(rows), "sha256": digest(list(rows))}
