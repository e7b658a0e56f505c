"""What do the runs of one device share?

The models, the data, the device's memory, and who may interrupt them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from rf_notebook.core.run import LoadedModel, RunConfig, StoredFolder
from rf_notebook.core.runner import Saved
from rf_notebook.core.values import digest
from rf_notebook.store import folders
from rf_notebook.training import awaiting, memory
from rf_notebook.training.base_models import BaseModels, does_not_fit
from rf_notebook.training.device import run_device
from rf_notebook.training.facts import model_facts
from rf_notebook.training.residency import Residency, storage_of, tensors_of, trainer_tensors
from rf_notebook.training.trained_model import base_of
from rf_notebook.training.warm_start import Start, load_start
from rf_notebook.training.writers import Writers

if TYPE_CHECKING:
    from concurrent.futures import Future

    from rf_notebook.core.objects import Objects
    from rf_notebook.core.ports import CommitObserver
    from rf_notebook.core.runner import LiveListener, SavedListener
    from rf_notebook.training.trainers import Trainers


#: Bytes of ended runs that are worth half a second, in which no thread of the process moves: that is
#: what a collection takes. Fewer are Python's to find.
_WORTH_COLLECTING = 2**26


class HeldRun(Protocol):
    """As much of a run as the memory has to know."""

    @property
    def trainer(self) -> Any:
        """The run's, in memory."""


class Resources:
    """See the module."""

    def __init__(
        self,
        folder: Path,
        objects: Objects,
        models: BaseModels,
        trainers: Trainers,
        *,
        fail_on_nan: bool,
        sample_prompts: int | Sequence[str],
        listener: LiveListener | None,
        observer: CommitObserver,
        log: logging.Logger,
    ) -> None:
        """Nothing is loaded yet.

        Args:
            folder: The experiment's.
            objects: Functions and other values behind the configs' names.
            models: Keeps base models resident.
            trainers: Makes trainers.
            fail_on_nan: Whether a loss that is NaN or infinite ends a run.
            sample_prompts: What every run answers at each boundary: texts, or how many rows of the
                data are asked.
            listener: Hears of every step.
            observer: For the crash tests.
            log: The experiment's.
        """
        self.folder = folder
        self.objects = objects
        self.models = models
        self.trainers = trainers
        self.fail_on_nan = fail_on_nan
        self.sample_prompts = sample_prompts
        self.listener = listener
        self.on_saved: SavedListener | None = None
        """See ChunkRunner."""
        self.writers = Writers()
        self.written: dict[int, StoredFolder] = {}
        """The newest checkpoint of each run that was written behind a turn."""
        self.observer = observer
        self.log = log
        self.dtype = torch.get_default_dtype()
        """The notebook's, when the experiment was launched."""
        self.interrupted = threading.Event()
        """While set, runs park at their next step."""
        self.abandoned = threading.Event()
        """While set, runs give up at their next callback."""
        self._residency = Residency(log)
        self._held: dict[int, HeldRun] = {}
        self._known_models: set[str] = set()
        """Digests of what chose the base models of which it was told what they are."""
        models.on_use = lambda model: self.bring_in([model])

    def hold(self, run_id: int, run: HeldRun) -> None:
        """A run's trainer is in memory."""
        self._held[run_id] = run
        self._residency.keep(_run_key(run_id), lambda: self._own_tensors(run), is_base=False)

    def own_bytes(self, run_ids: Sequence[int]) -> int:
        """What the trainers of runs hold besides the base models."""
        runs = [self._held[run_id] for run_id in run_ids if run_id in self._held]
        trainers = [run for run in runs if run.trainer is not None]
        own = (tensor for run in trainers for tensor in self._own_tensors(run))
        return sum(tensor.numel() * tensor.element_size() for tensor in own)

    def forget(self, run_ids: Sequence[int], held_bytes: int) -> None:
        """The trainers of runs are gone, which held so many bytes."""
        for run_id in run_ids:
            self._held.pop(run_id, None)
            self._residency.forget(_run_key(run_id))
        if held_bytes >= _WORTH_COLLECTING:
            memory.collect()

    def loaded(self, config: RunConfig) -> list[Any]:
        """The models that a run needs.

        When there is no room to load one, everything else leaves the device first.
        """
        try:
            return self.trainers.modules_of(config)
        except torch.cuda.OutOfMemoryError:
            self._residency.clear()
            memory.collect()
        try:
            return self.trainers.modules_of(config)
        except torch.cuda.OutOfMemoryError as error:
            raise does_not_fit(run_device(use_cpu=config.use_cpu)) from error

    def bring_in(
        self, modules: Sequence[Any], run_ids: Sequence[int] = (), *, room: int = 0
    ) -> None:
        """Have models and runs on the device, and ``room`` bytes besides them."""
        for module in modules:
            self._residency.keep(
                _model_key(module), partial(self._shared_tensors, module), is_base=True
            )
        keys = [_model_key(module) for module in modules]
        self._residency.use([*keys, *map(_run_key, run_ids)], room)

    def new_facts(self, config: RunConfig) -> tuple[LoadedModel, ...]:
        """What the base model of a run is, the first time that this is asked."""
        key = digest(config.model)
        if key in self._known_models:
            return ()
        self._known_models.add(key)
        base = base_of(self.models, self.objects, config)
        return (LoadedModel(chosen_by=config.model, facts=model_facts(base.model, base.tokenizer)),)

    def tell_saved(self, run_id: int, steps: int, writing: Future[StoredFolder]) -> None:
        """A checkpoint is written behind a turn, or is not; called by the thread that did it."""
        error = writing.exception()
        checkpoint = None if error is not None else writing.result()
        if checkpoint is not None:
            self.written[run_id] = checkpoint
        if self.on_saved is not None:
            self.on_saved(Saved(run_id=run_id, steps=steps, checkpoint=checkpoint, error=error))

    def start_from(self, config: RunConfig, folder: StoredFolder) -> Start:
        """The adapter that a run starts from.

        Raises:
            CheckpointDamaged: when it is not what was recorded.
        """
        path = folders.verify_folder(self.folder, folder)
        return load_start(path, lambda: base_of(self.models, self.objects, config).model)

    def close(self) -> None:
        """Free the models."""
        awaiting.close()
        self.writers.close()
        for module in self.models.modules():
            self._residency.forget(_model_key(module))
        self.models.on_use = lambda _model: None  # whoever keeps the models does not keep the rest
        self.models.clear()
        memory.collect()

    def _shared_tensors(self, module: Any) -> Iterator[torch.Tensor]:
        """A resident model's tensors, and those of all runs over the same storage."""
        yield from (own := list(tensors_of(module)))
        storages = {storage_of(tensor) for tensor in own}
        for run in self._held.values():
            yield from (t for t in trainer_tensors(run.trainer) if storage_of(t) in storages)

    def _own_tensors(self, run: HeldRun) -> Iterator[torch.Tensor]:
        """What only this run holds."""
        shared = {
            storage_of(tensor) for module in self.models.modules() for tensor in tensors_of(module)
        }
        yield from (t for t in trainer_tensors(run.trainer) if storage_of(t) not in shared)


def _run_key(run_id: int) -> str:
    return f"run {run_id}"


def _model_key(module: Any) -> str:
    return f"model {id(module)}"
