"""What an evaluation of several runs at once gives is what trl's own evaluation gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rf_notebook.core.objects import Objects
from rf_notebook.core.run import RunState
from rf_notebook.planning.fusion import Execution
from rf_notebook.testing.tiny import preference_rows
from rf_notebook.training.active_run import ActiveRun
from rf_notebook.training.fused.evaluation import Evaluation
from rf_notebook.training.fused.joint_model import JointModel
from tests.exactness import harness
from tests.fused.world import config, figures

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("layout")]
METHODS = ["SFT", "SFT", "DPO", "GRPO"]


def trained(folder: Path, execution: Execution, **more: Any) -> Any:
    objects = Objects()
    configs = [
        config(
            method,
            objects,
            adapter={"r": 4 + 4 * seed, "lora_dropout": 0.1},
            training={"seed": seed, "num_train_epochs": 2, "per_device_eval_batch_size": 4},
        )
        for seed, method in enumerate(METHODS)
    ]
    rows = (preference_rows(16, 1), preference_rows(10, 2))
    engine = harness.engine_over(
        folder, rows, configs, objects, execution=execution, num_chunks=2, **more
    )
    harness.turn_all(engine)
    return engine


def evaluations(engine: Any, run_id: int) -> list[tuple[int, dict[str, float]]]:
    return [
        (step, {name: value for name, value in metrics.items() if name.startswith("eval_")})
        for step, metrics in figures(engine, run_id)
        if "eval_loss" in metrics
    ]


def test_it_is_that_of_each_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joint_of: list[int] = []
    own = Evaluation.__init__

    def begun(self: Evaluation, run: ActiveRun, dtype: Any) -> None:
        joint_of.append(run.run_id)
        own(self, run, dtype)

    together: list[int] = []
    one_pass = JointModel.pass_together

    def passed(self: JointModel, requests: Any, *more: Any) -> Any:
        if isinstance(requests[0].member.run, Evaluation):
            together.append(len(requests))
        return one_pass(self, requests, *more)

    alone = trained(tmp_path / "alone", Execution.EXACT)
    monkeypatch.setattr(Evaluation, "__init__", begun)
    monkeypatch.setattr(JointModel, "pass_together", passed)
    joint = trained(tmp_path / "joint", Execution.FUSED)
    assert sorted(set(joint_of)) == [1, 2, 3], "GRPO's evaluation generates and is its own"
    assert len(joint_of) == 3 * 4, "at every boundary, the last included"
    # Three batches at each boundary, for which the DPO run asks twice: its reference, and itself.
    assert sorted(together) == [1] * 12 + [3] * 12
    for run_id in alone.state.runs:
        before, now = evaluations(alone, run_id), evaluations(joint, run_id)
        assert len(before) == 4
        for (step, expected), (at, found) in zip(before, now, strict=True):
            assert (step, expected.keys()) == (at, found.keys())
            assert found == pytest.approx(expected, rel=2e-5, abs=2e-6)


def test_one_that_fails_fails_its_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ActiveRun.evaluate_here
    joint = trained(tmp_path / "undisturbed", Execution.FUSED)

    def evaluate(self: ActiveRun) -> None:
        if self.run_id == 2:
            self.trainer.prediction_step = lambda *_, **__: 1 / 0
        own(self)

    monkeypatch.setattr(ActiveRun, "evaluate_here", evaluate)
    engine = trained(tmp_path / "failing", Execution.FUSED)
    failed = engine.state.record(2)
    assert failed.state is RunState.FAILED
    assert failed.failure.message.startswith("ZeroDivisionError")
    for run_id in (1, 3, 4):
        assert engine.state.record(run_id).state is RunState.COMPLETED
        assert len(evaluations(engine, run_id)) == 4
        for (step, expected), (at, found) in zip(
            figures(joint, run_id), figures(engine, run_id), strict=True
        ):
            assert (step, found) == (at, pytest.approx(expected, rel=2e-5, abs=2e-6))
