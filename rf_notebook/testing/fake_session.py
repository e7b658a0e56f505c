"""An experiment that trains nothing.

Panels, pictures and benchmarks can be made of it, of any size and with any text.
"""

from __future__ import annotations

import json
import math
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rf_notebook.automl.concrete import apply_edits
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.events import (
    ChunkTrained,
    Event,
    ExperimentStarted,
    Recorded,
    RunAdded,
    RunPinned,
    StateChanged,
)
from rf_notebook.core.labels import label_changes
from rf_notebook.core.objects import Objects
from rf_notebook.core.receipt import Receipt
from rf_notebook.core.run import MetricPoint, Progress, RunConfig, RunState, StoredFolder
from rf_notebook.core.state import ExperimentState, LiveRun
from rf_notebook.core.status import Status
from rf_notebook.engine.requests import LabelRuns

if TYPE_CHECKING:
    from rf_notebook.core.values import Json
    from rf_notebook.jupyterlab.protocols import LabExperiment
    from rf_notebook.record.differences import Difference
    from rf_notebook.session.cells import Sources


def recorded_state(events: Sequence[Event], *, at: float = 1.7e9) -> ExperimentState:
    """The state after events, recorded a second apart."""
    state = ExperimentState()
    for seq, event in enumerate(events, start=1):
        state.apply(Recorded(seq=seq, at=at + seq, event=event))
    return state


def started(name: str = "fake") -> ExperimentStarted:
    """The first event of an experiment."""
    return ExperimentStarted(
        name=name,
        identity="0" * 32,
        num_chunks=4,
        seed=1,
        data_seed=None,
        execution="exact",
        keep="best",
        data={"train": None, "eval": None},
        versions={},
    )


def config(**training: Json) -> RunConfig:
    """A config with some arguments of training_args; ``r`` goes to the adapter."""
    model = {
        "model_name": "fake",
        "model_type": "causal_lm",
        "model_kwargs": None,
        "tokenizer": None,
    }
    peft = {"r": training.pop("r", 8), "target_modules": "all-linear"}
    return RunConfig(
        method="SFT",
        model={**model, "tokenizer_kwargs": None},
        peft=peft,
        training={"learning_rate": 1e-3, "seed": 1, **training},
    )


def points(
    run_id: int, count: int, *, first: int = 1, metrics: Sequence[str] = ("loss",)
) -> tuple[MetricPoint, ...]:
    """Points of a falling, noisy curve."""
    noise = random.Random(run_id)
    made = []
    for step in range(first, first + count):
        value = 2 * math.exp(-step / 3000) + 0.1 * run_id / 8 + 0.05 * noise.random()
        made.append(
            MetricPoint(
                step=step,
                samples=4 * step,
                epoch=step / 10_000,
                chunk=1,
                metrics={name: value + 0.01 * i for i, name in enumerate(metrics)},
                at=1.7e9 + step,
            )
        )
    return tuple(made)


def many_runs(runs: int, count: int, *, metrics: Sequence[str] = ("loss",)) -> ExperimentState:
    """An experiment of some runs with this many points each, all still training."""
    events: list[Event] = [started()]
    for run_id in range(1, runs + 1):
        knobs = {"learning_rate": 10 ** -(2 + run_id % 4), "r": 2 ** (run_id % 6)}
        events.append(RunAdded(run_id=run_id, config=config(**knobs)))
        events.append(trained(run_id, points(run_id, count, metrics=metrics)))
    return recorded_state(events)


def trained(run_id: int, made: Sequence[MetricPoint], *, total_steps: int = 40_000) -> ChunkTrained:
    """A chunk with these points."""
    last = made[-1]
    return ChunkTrained(
        run_id=run_id,
        progress=Progress(
            steps=last.step,
            samples=last.samples,
            epoch=last.epoch,
            chunks=1,
            total_steps=total_steps,
            total_samples=4 * total_steps,
            total_chunks=4,
        ),
        points=tuple(made),
        checkpoint=StoredFolder(
            path=f"runs/{run_id}/1", sha256="0" * 64, steps=last.step, samples=last.samples, bytes=1
        ),
        train_seconds=2.0,
        overhead_seconds=0.5,
        own_bytes=1_800_000,
    )


class FakeSession:
    """An experiment's session and its commands at once, for panels and for JupyterLab.

    What is asked of it is noted in ``asked``; stops and resumes take effect at once.
    """

    def __init__(
        self, state: ExperimentState, name: str = "fake", status: Status | None = None
    ) -> None:
        self.name = name
        self.recent_state = state
        self.standing = status or Status(
            open=True, memory_bytes=10**9, memory_total_bytes=2 * 10**10
        )
        self.sources: Sources | None = None
        self.arranged: Json = None
        """How the panel is arranged."""
        self.saved_seq = 0
        """See LabExperiment."""
        self.beside: dict[str, list[Difference] | Exception] = {}
        """Experiments in the same folder, and in what this one differs from them."""
        self.asked: list[tuple[Any, ...]] = []
        self.asked_at: list[float] = []
        """Seconds since 1970 of each stop, resume and delete."""
        self._changed = threading.Condition()
        self._version = 0

    @property
    def session(self) -> FakeSession:
        """See LabExperiment."""
        return self

    @property
    def commands(self) -> FakeSession:
        """See LabExperiment."""
        return self

    def status(self) -> Status:
        """See PanelSession."""
        return self.standing

    def wait_for_change(self, seen: int, timeout: float) -> int:
        """See PanelSession."""
        with self._changed:
            if self._version == seen:
                self._changed.wait(timeout)
            return self._version

    def add_live(self, run_id: int, made: Sequence[MetricPoint]) -> None:
        """Points of the chunk in progress."""
        record = self.recent_state.record(run_id)
        live = self.recent_state.live.setdefault(run_id, LiveRun(record.progress))
        live.points.extend(made)
        self._tell()

    def operate(self, verb: str, runs: Sequence[int], origin: str) -> Receipt[Any]:
        """See PanelCommands."""
        self.asked.append((verb, list(runs), origin))
        self.asked_at.append(time.time())
        states = {"stop": RunState.STOPPED, "resume": RunState.RUNNING, "delete": RunState.DELETED}
        for run_id in runs:
            event = StateChanged(run_id=run_id, state=states[verb])
            self.recent_state.apply(
                Recorded(seq=self.recent_state.last_seq + 1, at=time.time(), event=event)
            )
        self._tell()
        return _done(list(runs))

    def clone_all(
        self, run_id: int, edits: Sequence[Mapping[str, Any]], warm_start: bool, origin: str
    ) -> Receipt[Any]:
        """See PanelCommands."""
        self.asked.append(("clone", run_id, [dict(edit) for edit in edits], warm_start, origin))
        return _done([run_id] * len(edits))

    def check_edits(
        self, run_id: int, edits: Mapping[str, Any]
    ) -> tuple[RunConfig, dict[str, Json]]:
        """See PanelCommands."""
        return apply_edits(self.recent_state.record(run_id).config, dict(edits), Objects())

    def set_paused(self, paused: bool, origin: str) -> Receipt[Any]:
        """See PanelCommands."""
        self.asked.append(("pause", paused, origin))
        return _done([])

    def undo(self, run: int, origin: str) -> Receipt[Any]:
        """See PanelCommands."""
        self.asked.append(("undo", run, origin))
        return _done([run])

    def pin(self, runs: int, pinned: bool, origin: str) -> Receipt[Any]:
        """See PanelCommands."""
        self.asked.append(("pin", runs, pinned, origin))
        event = RunPinned(run_id=runs, pinned=pinned)
        self.recent_state.apply(
            Recorded(seq=self.recent_state.last_seq + 1, at=time.time(), event=event)
        )
        return _done([])

    def label(
        self,
        runs: Sequence[int] | None,
        origin: str,
        *,
        name: str | None = None,
        tags: Sequence[str] | None = None,
        note: str | None = None,
    ) -> Receipt[Any]:
        """See PanelCommands."""
        self.asked.append(("label", runs, origin, name, tags, note))
        changes = label_changes(name=name, tags=tags, note=note)
        for event in LabelRuns(
            run_ids=(None,) if runs is None else tuple(runs), changes=changes
        ).events(self.recent_state):
            self.recent_state.apply(
                Recorded(seq=self.recent_state.last_seq + 1, at=time.time(), event=event)
            )
        return _done([])

    def automate(self, policy: None, origin: str) -> Receipt[Any]:
        """See PanelCommands."""
        self.asked.append(("automate", policy, origin))
        return _done([])

    def arrangement(self) -> Json:
        """See PanelSession."""
        return self.arranged

    def keep_arrangement(self, arrangement: Mapping[str, Json]) -> None:
        """See PanelSession."""
        self.arranged = json.loads(json.dumps(arrangement))

    def also_saved(self) -> Mapping[str, Json]:
        """See PanelSession."""
        return {}

    def export(self, run: int, path: str | Path, *, origin: str) -> Path:
        """See PanelCommands."""
        self.asked.append(("export", run, str(path), origin))
        return Path(path)

    def end_soon(self, on_done: Callable[[BaseException | None], None]) -> None:
        """See PanelCommands."""
        self.asked.append(("end",))
        on_done(None)

    @property
    def folder(self) -> Path:
        """See LabExperiment."""
        return Path("/fake") / self.name

    @property
    def log_path(self) -> Path:
        """See LabExperiment."""
        return self.folder / "experiment.log"

    def names_beside(self) -> list[str]:
        """See PanelCommands."""
        return sorted(self.beside)

    def differences_from(self, name: str) -> list[Difference]:
        """See PanelCommands."""
        found = self.beside[name]
        if isinstance(found, Exception):
            raise found
        return found

    def retry(self, run: int, origin: str) -> Receipt[Any]:
        """See LabExperiment."""
        self.asked.append(("retry", run, origin))
        return _done([run])

    def replay(self) -> str:
        """See LabExperiment."""
        self.asked.append(("replay",))
        return f"{self.name}-replay"

    def export_notebook(self, path: str) -> Path:
        """See LabExperiment."""
        self.asked.append(("export notebook", path))
        return Path(path)

    def saved_bundle(self) -> dict[str, Json]:
        """See LabExperiment."""
        return {"text/plain": f"figures up to event {self.saved_seq}"}

    def panel_model(self) -> str:
        """See LabExperiment."""
        return "panel-model"

    def panel_bundle(self) -> dict[str, Json]:
        """See LabExperiment."""
        return {"text/plain": "a live panel"}

    def clone_form_model(self, run_id: int, *, warm: bool) -> str:
        """See LabExperiment."""
        self.asked.append(("clone form", run_id, warm))
        return "form-model"

    def _tell(self) -> None:
        with self._changed:
            self._version += 1
            self._changed.notify_all()


class FakeExperiments:
    """See jupyterlab.protocols.Experiments."""

    def __init__(self, *sessions: FakeSession) -> None:
        self.sessions = list(sessions)
        self.opened: list[str] = []
        self.on_disk: dict[str, dict[str, Any]] = {}

    def known(self) -> Sequence[LabExperiment]:
        """See Experiments."""
        return list(self.sessions)

    def recorded(self) -> Mapping[str, Mapping[str, Any]]:
        """See Experiments."""
        return self.on_disk

    def open(self, name: str) -> None:
        """See Experiments."""
        if name not in self.on_disk:
            raise ConfigError(f"no experiment {name!r} is recorded.")
        self.opened.append(name)

    def remove(self, name: str) -> None:
        """See Experiments."""
        if name not in self.on_disk:
            raise ConfigError(f"no experiment {name!r} is recorded here; there are: none.")
        del self.on_disk[name]

    def wait_for_change(self, seen: int, timeout: float) -> int:
        """See Experiments."""
        if self.sessions:
            return self.sessions[-1].wait_for_change(seen, timeout)
        time.sleep(timeout)
        return seen


def _done(value: Any) -> Receipt[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return Receipt([future], lambda results: results[0])
