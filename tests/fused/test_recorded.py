"""Small joint passes whose kernels were recorded give what the same passes give as usual.

A CPU has nothing to record. Here the work is done again at each replay, on the same inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rf_notebook.core import foreground
from rf_notebook.core.objects import Objects
from rf_notebook.core.run import RunConfig
from rf_notebook.planning.fusion import Execution
from rf_notebook.testing.tiny import preference_rows
from rf_notebook.training.fused import linear, recorded
from rf_notebook.training.fused.linear import Way
from rf_notebook.training.fused.recorded import RecordedPasses
from tests.exactness import harness
from tests.fused.test_equals_alone import losses, micro_steps, trained, weights_apart
from tests.fused.world import config, figures

pytestmark = pytest.mark.slow


class Again:
    """Instead of a recording: the work itself."""

    def __init__(self, work: Callable[[], Any], _pool: Any, _stream: Any) -> None:
        self._work, self.result = work, work()

    def replay(self) -> None:
        self.result = self._work()


@pytest.fixture(autouse=True)
def _records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RecordedPasses, "is_possible", True)
    monkeypatch.setattr(RecordedPasses, "recorder", Again)
    monkeypatch.setattr(linear, "forced_way", Way.GROUPED)
    monkeypatch.setattr(foreground, "is_cell_at_work", lambda: False)


def group(objects: Objects, kinds: list[tuple[str, int, float]], **more: Any) -> list[RunConfig]:
    return [
        config(
            method,
            objects,
            adapter={"r": rank, "lora_dropout": drops, "target_modules": "all-linear"},
            training={"seed": seed, "num_train_epochs": 3, **more},
        )
        for seed, (method, rank, drops) in enumerate(kinds)
    ]


def counts_of(engine: Any) -> Any:
    (model,) = engine.fleet.runner.joint_turns.models.values()
    return model.counts


KINDS = {
    "a lone run": [("SFT", 8, 0.0)],
    "a lone run with dropout": [("SFT", 4, 0.1)],
    "a lone DPO run": [("DPO", 8, 0.0)],
    "three ranks": [("SFT", 8, 0.0), ("SFT", 16, 0.0), ("SFT", 4, 0.0)],
    "with dropout": [("SFT", 8, 0.1), ("SFT", 4, 0.1)],
    "with a reference": [("SFT", 8, 0.0), ("DPO", 8, 0.0)],
}


@pytest.mark.parametrize("name", KINDS)
def test_weights_and_losses_are_those_of_the_runs_alone(name: str, tmp_path: Path) -> None:
    objects = Objects()
    configs = group(objects, KINDS[name], gradient_accumulation_steps=2)
    alone, alone_results = trained(tmp_path / "alone", configs, objects, Execution.EXACT)
    joint, joint_results = trained(tmp_path / "joint", configs, objects, Execution.FUSED)
    counts = counts_of(joint)
    assert counts.replayed > max(micro_steps(joint)) / 2, "most passes were replayed"
    for run_id in alone.state.runs:
        before, now = losses(alone, run_id), losses(joint, run_id)
        assert now == pytest.approx(before, rel=1e-6)
        apart = weights_apart(joint_results[run_id]["weights"], alone_results[run_id]["weights"])
        assert apart <= 5e-6


@pytest.mark.parametrize(("ranks", "most"), [((8,), 32), ((8, 4), 32), ((8, 4), 1)])
def test_evaluations_by_recorded_passes_are_those_of_the_runs_alone(
    ranks: tuple[int, ...], most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the oldest recording has to give way to each new one."""
    replayed: list[bool] = []
    held: list[int] = []
    own = RecordedPasses.begin

    def begin(self: RecordedPasses, known: Any, laid: Any, block: Any) -> Any:
        replayed.append(laid.requests[0].needs_grad)
        held.append(len(self._recorded))
        return own(self, known, laid, block)

    monkeypatch.setattr(recorded, "_MOST_RECORDED", most)
    monkeypatch.setattr(RecordedPasses, "begin", begin)
    objects = Objects()
    configs = group(objects, [("SFT", rank, 0.1) for rank in ranks], per_device_eval_batch_size=4)
    rows = (preference_rows(16, 1), preference_rows(10, 2))
    engines = []
    for execution in (Execution.EXACT, Execution.FUSED):
        folder = tmp_path / str(execution)
        engine = harness.engine_over(
            folder, rows, configs, objects, execution=execution, num_chunks=3
        )
        harness.turn_all(engine)
        engines.append(engine)
    alone, joint = engines
    for run_id in alone.state.runs:
        before, now = figures(alone, run_id), figures(joint, run_id)
        assert sum("eval_loss" in metrics for _, metrics in now) >= 3
        for (step, expected), (at, found) in zip(before, now, strict=True):
            assert (step, found) == (at, pytest.approx(expected, rel=2e-5, abs=2e-6))
    evaluations = [metrics for _, metrics in figures(joint, 1) if "eval_loss" in metrics]
    assert max(held) <= most
    if most > 1:
        batches = 3
        assert replayed.count(False) >= batches * (len(evaluations) - 1), "all but the first"


@pytest.mark.parametrize("number", [1, 2])
def test_runs_that_write_by_recorded_steps_write_what_they_write_alone(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works: list[Callable[[], Any]] = []
    own = RecordedPasses.repeatable

    def repeatable(self: RecordedPasses, work: Callable[[], Any]) -> Any:
        works.append(work)
        return own(self, work)

    monkeypatch.setattr(RecordedPasses, "repeatable", repeatable)
    objects = Objects()
    configs = [
        config(
            "GRPO",
            objects,
            adapter={"r": 4 * (seed + 1)},
            training={"seed": seed, "max_completion_length": 12, "max_steps": 6},
        )
        for seed in range(number)
    ]
    alone, alone_results = trained(tmp_path / "alone", configs, objects, Execution.EXACT)
    joint, joint_results = trained(tmp_path / "joint", configs, objects, Execution.FUSED)
    counts = counts_of(joint)
    assert counts.generated > len(works) > 0
    assert counts.replayed > counts.generated / 2
    for run_id in alone.state.runs:
        assert losses(joint, run_id) == pytest.approx(losses(alone, run_id), rel=1e-5, abs=1e-6)
        apart = weights_apart(joint_results[run_id]["weights"], alone_results[run_id]["weights"])
        assert apart <= 5e-6


def test_nothing_is_recorded_while_a_cell_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is memory given back to the device, which would have to be taken again by each pass."""
    own, given_back = RecordedPasses.counted, list[bool]()

    def counted(self: RecordedPasses) -> Any:
        given_back.append(foreground.is_cell_at_work())
        return own(self)

    monkeypatch.setattr(RecordedPasses, "counted", counted)
    objects = Objects()
    for is_at_work in (False, True):
        monkeypatch.setattr(foreground, "is_cell_at_work", lambda: is_at_work)  # noqa: B023
        configs = group(objects, KINDS["a lone run"])
        joint, _ = trained(tmp_path / str(is_at_work), configs, objects, Execution.FUSED)
        assert counts_of(joint).forwards > 0
        assert (counts_of(joint).replayed == 0) is is_at_work
    assert given_back
    assert not any(given_back)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_what_cannot_be_recorded_trains_as_usual(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fails(Again):
        made = 0

        def __init__(self, *given: Any) -> None:
            Fails.made += 1
            if Fails.made == number:
                raise RuntimeError("operation not permitted when stream is capturing")
            super().__init__(*given)

    objects = Objects()
    sizes = {"per_device_train_batch_size": 6} if number > 2 else {}
    configs = group(objects, KINDS["three ranks"], **sizes)
    usual, usual_results = trained(tmp_path / "usual", configs, objects, Execution.EXACT)
    monkeypatch.setattr(RecordedPasses, "recorder", Fails)
    joint, results = trained(tmp_path / "joint", configs, objects, Execution.FUSED)
    assert Fails.made == number, "it is not tried again"
    for run_id in usual.state.runs:
        assert losses(joint, run_id) == pytest.approx(losses(usual, run_id), rel=1e-6)
        apart = weights_apart(results[run_id]["weights"], usual_results[run_id]["weights"])
        assert apart <= 5e-6


def test_recordings_give_way_to_a_pass_that_runs_out_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replays = list[bool]()

    class RunsOut(Again):
        def replay(self) -> None:
            replays.append(True)
            if len(replays) == 7:
                raise torch.OutOfMemoryError("CUDA out of memory (injected)")
            super().replay()

    objects = Objects()
    configs = group(objects, KINDS["three ranks"])
    usual, usual_results = trained(tmp_path / "usual", configs, objects, Execution.EXACT)
    monkeypatch.setattr(RecordedPasses, "recorder", RunsOut)
    joint, results = trained(tmp_path / "joint", configs, objects, Execution.FUSED)
    assert len(replays) == 7
    assert counts_of(joint).too_large == 1
    for run_id in usual.state.runs:
        assert losses(joint, run_id) == pytest.approx(losses(usual, run_id), rel=1e-6)
        apart = weights_apart(results[run_id]["weights"], usual_results[run_id]["weights"])
        assert apart <= 5e-6
