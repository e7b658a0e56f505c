"""Turns an engine over real trainers by hand, and keeps what each trainer had when its run ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from rf_notebook.automl.adapter_configs import adapter_config_of
from rf_notebook.automl.concrete import build_run_config
from rf_notebook.automl.configs import RFModelConfig
from rf_notebook.automl.library_configs import TRAINING_CONFIGS
from rf_notebook.core.events import Event, RunAdded
from rf_notebook.core.objects import Objects
from rf_notebook.core.ports import EventStore
from rf_notebook.core.run import RunConfig
from rf_notebook.core.state import fold
from rf_notebook.engine.loop import Engine
from rf_notebook.engine.turns import Idle
from rf_notebook.planning.fusion import Execution
from rf_notebook.store.lease import this_process
from rf_notebook.store.memory import MemoryStore
from rf_notebook.training.datasets import ExperimentData
from rf_notebook.training.runner import KernelRunner
from rf_notebook.training.validation import Validation
from tests.exactness.cases import CASES, REFERENCE_SEED, REWARDS, arguments, without_clock
from tests.exactness.models import create

#: Of the engines that were made here.
_stores: WeakKeyDictionary[Engine, EventStore] = WeakKeyDictionary()


class WatchedRunner(KernelRunner):
    """Keeps history and weights of each run before its trainer is let go."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.results: dict[int, dict[str, Any]] = {}

    def release(self, *run_ids: int) -> None:
        for run_id in run_ids:
            held = self.runs.get(run_id)
            if held is not None and held.trainer is not None:
                trainer = held.trainer
                self.results[run_id] = {
                    "history": without_clock(trainer.state.log_history),
                    "weights": {
                        n: p.detach().clone()
                        for n, p in trainer.model.named_parameters()
                        if p.requires_grad
                    },
                }
        super().release(*run_ids)


def run_config(name: str, objects: Objects) -> RunConfig:
    case = CASES[name]
    adapter = None
    if case.adapter is not None:
        given = {key: value for key, value in case.adapter.items() if key != "peft_type"}
        adapter = adapter_config_of(case.adapter)(**given)
    fields = RFModelConfig(
        model_name="tiny",
        model_kwargs=None if case.quantised is None else {"quantised": case.quantised},
        peft_config=adapter,
        training_args=TRAINING_CONFIGS[case.method](**arguments(name)),
        reward_funcs=[REWARDS[reward] for reward in case.rewards] or None,
        ref_model_name="another" if case.own_reference else None,
        ref_model_kwargs={"seed": REFERENCE_SEED} if case.own_reference else None,
    ).given()
    return build_run_config(fields, case.method, objects, seed=0)


def engine_over(
    folder: Path,
    data: tuple[Any, Any],
    configs: Sequence[RunConfig],
    objects: Objects,
    *,
    num_chunks: int,
    store: EventStore | None = None,
    runner: Callable[..., KernelRunner] = WatchedRunner,
    execution: Execution = Execution.EXACT,
) -> Engine:
    """An engine with a run for each config, or with the runs that the store has."""
    store = store or MemoryStore()
    known = store.read()
    fence = store.acquire(this_process(), take_over=True)
    made = runner(folder, ExperimentData(*data), objects, create, num_chunks=num_chunks)
    rules = Validation(folder, ExperimentData(*data), objects, create, num_chunks)
    engine = Engine(
        store, made, fold(known), fence=fence, folder=folder, rules=rules, execution=execution
    )
    _stores[engine] = store
    if not known:
        engine.commit(
            [RunAdded(run_id=i, config=config) for i, config in enumerate(configs, start=1)]
        )
    return engine


def events_of(engine: Engine) -> list[Event]:
    """All that an engine has committed."""
    return [recorded.event for recorded in _stores[engine].read()]


def start(folder: Path, names: list[str], data: tuple[Any, Any], **more: Any) -> Engine:
    """An engine with a run for each case that is named."""
    objects = Objects()
    return engine_over(folder, data, [run_config(name, objects) for name in names], objects, **more)


def turn_all(engine: Engine, *, turns: int | None = None) -> None:
    """Until no run wants a turn, or so many turns."""
    done = 0
    while turns is None or done < turns:
        if isinstance(engine.turn(), Idle):
            return
        done += 1
