"""What do two devices give against one? Real rows, all linear layers, mixed ranks.

Every experiment is a real one in worker processes. Its time begins when all workers listen and have
their base model, which the table names by itself, and ends when the last run is over.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.common import DEVICE, ON_GPU
from benchmarks.real_world import Knobs, arguments, base_of, lora, searched, sft_rows
from benchmarks.report import Report
from benchmarks.spread import model_over_two
from benchmarks.whole import script_seconds
from rf_notebook import Experiment
from rf_notebook.automation import Halving
from rf_notebook.automl import RFLoraConfig, RFModelConfig, RFSFTConfig
from rf_notebook.core.fleet import TurnOver
from rf_notebook.engine import turns
from rf_notebook.engine.devices import Devices
from rf_notebook.runners.links import RemoteWorker
from rf_notebook.runners.messages import Ready
from rf_notebook.runners.process import ProcessFleet
from rf_notebook.testing.anywhere import anywhere
from rf_notebook.testing.tiny import tiny_tokenizer
from rf_notebook.training import memory

ONE, TWO = (["cuda:0"], ["cuda:0", "cuda:1"]) if ON_GPU else (["cpu"], ["cpu", "cpu"])
#: One worker, whose runs lie on both.
SPREAD = [tuple(TWO)]
#: A file in this folder takes the seconds of each load.
_LOADS = "RF_BENCH_LOADS"


def create_model(_config: Any) -> tuple[Any, Any]:
    """The base model of a worker."""
    began = time.perf_counter()
    made = base_of("1.1B"), tiny_tokenizer()
    Path(os.environ[_LOADS], str(os.getpid())).write_text(str(time.perf_counter() - began))
    return made


@dataclass(slots=True)
class Watched:
    """What an experiment over workers took."""

    ready: float = 0.0
    """When the last worker began to listen for the first time."""
    listens: set[str] = field(default_factory=set)
    handovers: list[float] = field(default_factory=list)
    """Seconds from the end of a turn to the beginning of the device's next one, where there is one:
    a device that has nothing to train is idle, and counted as that."""
    busy: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds in turns, by device."""
    began: dict[str, float] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)


@contextmanager
def watched() -> Iterator[Watched]:
    """While it lasts, the turns of worker processes are timed where the kernel sees them."""
    seen = Watched()
    hear, begin, listen = RemoteWorker.hear, ProcessFleet.begin, ProcessFleet.next

    def heard(self: RemoteWorker) -> Any:
        said = hear(self)
        if isinstance(said, Ready) and self.facts.name not in seen.listens:
            seen.listens.add(self.facts.name)  # one that is started again is not waited for
            seen.ready = time.perf_counter()
        return said

    def begun(self: ProcessFleet, device: str, turn: Any) -> None:
        now = time.perf_counter()
        if device in seen.ended:
            seen.handovers.append(now - seen.ended.pop(device))
        seen.began[device] = now
        begin(self, device, turn)

    def listened(self: ProcessFleet, timeout: float | None) -> Any:
        found = listen(self, timeout)
        if found is not None and isinstance(found[1], TurnOver):
            now, device = time.perf_counter(), found[0]
            seen.ended[device] = now
            seen.busy[device] += now - max(seen.began[device], seen.ready)
        return found

    def heard_by_engine(self: Devices, *timeout: float) -> Any:
        for device in self.all:
            if device.work is None:
                seen.ended.pop(device.name, None)  # there is nothing that it could train
        return listen_engine(self, *timeout)

    listen_engine = Devices.hear
    patched: Any = ((Devices, "hear", heard_by_engine),)
    patched += ((RemoteWorker, "hear", heard), (ProcessFleet, "begin", begun))
    patched += ((ProcessFleet, "next", listened),)
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in patched]
    for owner, name, value in patched:
        setattr(owner, name, value)
    try:
        yield seen
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


@dataclass(frozen=True, slots=True)
class Seen:
    """Of one experiment."""

    seconds: float
    """To its end."""
    first: float
    """Until all runs were evaluated once; NaN without evaluation data."""
    start: float
    """Of the workers: imports and the base model."""
    losses: Any
    weights: list[Any]
    idle: float
    """Share of the devices' time that was not in a turn."""
    handovers: list[float]
    moved: int
    """Runs that trained on more than one device."""
    notes: list[str]


def trained(
    devices: Sequence[str | tuple[str, ...]],
    configs: Sequence[Knobs],
    rows: Any,
    *,
    held_out: Any = None,
    num_chunks: int = 4,
    meanwhile: Callable[[Experiment], None] = lambda _: None,
    until_first: bool = False,
    **options: Any,
) -> Seen:
    """Train configs over worker processes.

    Args:
        devices: One worker each.
        configs: One run each.
        rows: To train on.
        held_out: To evaluate on at each boundary.
        num_chunks: Of the pass over the rows.
        meanwhile: Called again and again while they train.
        until_first: Whether to end when all were evaluated once.
        options: Of ``run_fit``.
    """
    templates = [
        RFModelConfig(
            model_name="bench",
            peft_config=RFLoraConfig(**lora(knobs)),
            training_args=RFSFTConfig(
                **arguments(knobs, seed=seed, max_steps=-1, num_train_epochs=1)
                | {"gradient_checkpointing": False, "logging_strategy": "steps", "logging_steps": 4}
            ),
        )
        for seed, knobs in enumerate(configs, start=1)
    ]
    with tempfile.TemporaryDirectory() as folder, watched() as seen:
        loads = Path(folder, "loads")
        loads.mkdir()
        os.environ[_LOADS] = str(loads)
        experiment = Experiment("fleet", experiment_path=Path(folder))
        called = time.perf_counter()
        experiment.run_fit(
            templates,
            create_model,
            rows,
            held_out,
            num_chunks=num_chunks,
            devices=list(devices),
            display=False,
            **options,
        )
        first = float("nan")
        while not experiment.wait(0.05):
            meanwhile(experiment)
            if first != first and _all_evaluated(experiment):
                first = time.perf_counter()
                if until_first:
                    break
        ended = time.perf_counter()
        failed = [run.error for run in experiment.runs if run.error]
        if failed:
            raise RuntimeError(failed[0])
        state = experiment.session.state
        load = max(float(one.read_text()) for one in loads.iterdir())
        began = seen.ready + load
        where = defaultdict(set)
        for turn in state.turns:
            where[turn.run_id].add(turn.device)
        found = Seen(
            seconds=ended - began,
            first=first - began,
            start=began - called,
            losses=experiment.get_results()[["run_id", "step", "loss"]],
            weights=[
                state.record(run.id).checkpoints[-1].folder.weights
                for run in experiment.runs
                if state.record(run.id).checkpoints
            ],
            idle=1 - sum(seen.busy.values()) / (len(devices) * (ended - seen.ready)),
            handovers=seen.handovers,
            moved=sum(len(devices) > 1 for devices in where.values()),
            notes=[one.event.text for one in state.notes],
        )
        experiment.cancel_current()
    memory.collect()
    return found


def _all_evaluated(experiment: Experiment) -> bool:
    records = experiment.session.state.runs.values()
    return bool(records) and all(
        any("eval_loss" in point.metrics for point in record.all_points()) for record in records
    )


def measure(_report: Report) -> None:
    """All cases, or those that RF_BENCH_ONLY names; a file each."""
    only = tuple(os.environ.get("RF_BENCH_ONLY", "").split(","))
    for name, case in _CASES.items():
        if name.startswith(only):
            report = Report(f"fleet-{name}")
            case(report)
            report.conditions = {"devices": f"{len(TWO)} x {DEVICE}"}
            report.finish()


def contexts() -> int:
    """How many CUDA contexts this process has."""
    if not ON_GPU:
        return 0
    cuda = ctypes.CDLL("libcuda.so.1")
    if cuda.cuInit(0):
        raise RuntimeError("cuInit failed")
    count = 0
    for device in range(len(TWO)):
        flags, is_active = ctypes.c_uint(), ctypes.c_int()
        cuda.cuDevicePrimaryCtxGetState(device, ctypes.byref(flags), ctypes.byref(is_active))
        count += is_active.value
    return count


def _scaling(report: Report, execution: str, count: int, must: float) -> None:
    configs, rows = searched(8), sft_rows(count)
    one, two = (trained(devices, configs, rows, execution=execution) for devices in (ONE, TWO))
    report.row("CUDA contexts of the kernel", contexts(), "(must 0)")
    report.row("8 configs, one device", one.seconds, "s")
    report.row("8 configs, two devices", two.seconds, "s")
    report.row("two devices against one", one.seconds / two.seconds, f"x (must {must})")
    report.row("start of one worker: imports and base model", one.start, "s")
    report.row("start of two workers", two.start, "s")
    report.row("two devices: idle", 100 * two.idle, "%")
    report.row("runs that moved", two.moved, "runs")
    hand = sorted(two.handovers)
    report.row("hand-over, median", 1000 * statistics.median(hand), "ms")
    report.row("hand-over, 99 % below", 1000 * hand[int(0.99 * (len(hand) - 1))], "ms (must 10)")


@contextmanager
def deterministic() -> Iterator[None]:
    """While it lasts, workers are started with torch's deterministic algorithms."""
    torch.use_deterministic_algorithms(True)
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        del os.environ["CUBLAS_WORKSPACE_CONFIG"]


def _equal(report: Report) -> None:
    """One device and two give the same bits, also of runs that move, where torch is deterministic.

    Without that no run equals itself on a GPU: the backward pass of attention adds up in any order.
    """
    configs, rows = searched(3), sft_rows(64)
    with deterministic():
        one, two = (trained(devices, configs, rows) for devices in (ONE, TWO))
        with patch.object(turns, "place", partial(anywhere, random.Random(1))):
            back = trained(TWO, configs, rows)
        spread_out = trained(SPREAD, configs, rows)
    others = (
        ("two devices", two),
        ("two devices, runs moved about", back),
        ("each model over two devices", spread_out),
    )
    for name, other in others:
        equal = one.losses.equals(other.losses) and one.weights == other.weights
        report.row(f"{name}: losses and weights equal those of one", equal, "(must 1)")
        report.row(f"{name}: runs that moved", other.moved, "runs")


def _first(report: Report) -> None:
    """Four configs, sixteen chunks: the first comparison, against four scripts one after another."""
    configs, count = searched(4), 1000 if ON_GPU else 128
    rows, held_out, chunks = sft_rows(count), sft_rows(count // 20, seed=2), 16
    script = 0.0
    base = base_of("1.1B")
    script = 4 * script_seconds(base, rows, held_out, configs[1], chunks)
    del base
    memory.collect()
    report.row("4 scripts one after another: one warmed run, times 4", script, "s")
    for execution in ("exact", "fused"):
        seen = trained(
            TWO,
            configs,
            rows,
            held_out=held_out,
            num_chunks=chunks,
            execution=execution,
            until_first=True,
        )
        report.row(f"{execution}: first comparison", seen.first, "s")
        report.row(f"{execution}: start of the workers before", seen.start, "s")
        report.row(f"{execution}: against the scripts", script / seen.first, "x (must 30)")
        report.row(f"{execution}: that ratio by chunks", script / seen.first / chunks, "x")


def _halving(report: Report) -> None:
    """Sixteen configs, Halving, until the winner is fully trained."""
    configs, rows = searched(16), sft_rows(256 if ON_GPU else 64)
    held_out = sft_rows(32 if ON_GPU else 8, seed=2)
    for execution, must in (("exact", " (must 1.5)"), ("fused", "")):
        one, two = (
            trained(
                devices,
                configs,
                rows,
                held_out=held_out,
                num_chunks=16,
                execution=execution,
                policy=Halving(),
            )
            for devices in (ONE, TWO)
        )
        report.row(f"{execution}: one device", one.seconds, "s")
        report.row(f"{execution}: two devices", two.seconds, "s")
        report.row(f"{execution}: two against one", one.seconds / two.seconds, f"x{must}")
        report.row(f"{execution}: two devices idle", 100 * two.idle, "%")


def _killed(report: Report) -> None:
    """A worker that is killed inside a chunk costs that chunk and its start."""
    configs, rows = searched(4), sft_rows(256 if ON_GPU else 64)
    killed: list[float] = []

    def kill(experiment: Experiment) -> None:
        records = experiment.session.state.runs.values()
        chunks = sum(record.progress.chunks for record in records)
        if chunks >= 6 and not killed:
            killed.append(time.perf_counter())
            fleet: Any = experiment.session.engine.fleet
            os.kill(next(iter(fleet.workers.values())).pid, signal.SIGKILL)

    with deterministic():
        whole = trained(TWO, configs, rows)
        again = trained(TWO, configs, rows, meanwhile=kill)
    equal = whole.losses.equals(again.losses) and whole.weights == again.weights
    report.row("4 configs, nobody killed", whole.seconds, "s")
    report.row("one worker killed", again.seconds, "s")
    report.row("a chunk of one run", whole.seconds * 2 / 16, "s")
    report.row("start of a worker", whole.start, "s")
    report.row("losses and weights equal", equal, "(must 1)")


_CASES: dict[str, Callable[[Report], None]] = {
    "equal": _equal,
    "exact": lambda report: _scaling(report, "exact", 256 if ON_GPU else 32, 1.85),
    "joint": lambda report: _scaling(report, "fused", 1024 if ON_GPU else 64, 1.6),
    "first": _first,
    "halving": _halving,
    "killed": _killed,
    "spread": model_over_two,
}
