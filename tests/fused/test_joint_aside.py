"""What runs do together at a boundary is what each does alone: evaluations, samples, texts to judge."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from greenlet import getcurrent

from rf_notebook.core.events import GenerationMeasured, SamplesWritten
from rf_notebook.core.objects import Objects
from rf_notebook.core.run import RunState
from rf_notebook.planning.fusion import Execution
from rf_notebook.results.speed import speed_of
from rf_notebook.testing.tiny import preference_rows
from rf_notebook.training.aside import Aside
from rf_notebook.training.at_boundary import AtBoundary
from rf_notebook.training.fused.decoder import JointDecoder
from rf_notebook.training.fused.joint_model import JointModel
from tests.exactness import harness
from tests.fused.world import config, figures

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("layout")]
METHODS = ["SFT", "SFT", "DPO", "GRPO", "KTO", "RLOO"]


def trained(
    folder: Path, execution: Execution, of_config: dict[str, Any] | None = None, **more: Any
) -> Any:
    objects = Objects()
    configs = [
        config(
            method,
            objects,
            adapter={"r": 4 + 4 * seed, "lora_dropout": 0.1},
            training={"seed": seed, "per_device_eval_batch_size": 4},
            **(of_config or {}),
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
    own = AtBoundary.evaluate_here

    def evaluated(self: AtBoundary) -> None:
        if getcurrent().parent is not None:  # it waits for others in a greenlet of its own
            joint_of.append(self._run.run_id)
        own(self)

    together: list[int] = []
    one_pass = JointModel.pass_together

    def passed(self: JointModel, requests: Any, *more: Any) -> Any:
        if isinstance(requests[0].member.run, Aside):
            together.append(len(requests))
        return one_pass(self, requests, *more)

    alone = trained(tmp_path / "alone", Execution.EXACT)
    monkeypatch.setattr(AtBoundary, "evaluate_here", evaluated)
    monkeypatch.setattr(JointModel, "pass_together", passed)
    joint = trained(tmp_path / "joint", Execution.FUSED)
    assert sorted(set(joint_of)) == list(joint.state.runs)
    assert len(joint_of) == len(METHODS) * 2, "at every boundary, the last included"
    # Three batches at each boundary. Runs with a reference ask again for it; those that generate
    # ask after they have written.
    assert together.count(len(METHODS)) == 3 * 2
    for run_id in alone.state.runs:
        before, now = evaluations(alone, run_id), evaluations(joint, run_id)
        assert len(before) == 2
        for (step, expected), (at, found) in zip(before, now, strict=True):
            assert (step, expected.keys()) == (at, found.keys())
            assert found == pytest.approx(expected, rel=2e-5, abs=2e-6)


def test_one_that_fails_fails_its_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = AtBoundary.evaluate_here
    joint = trained(tmp_path / "undisturbed", Execution.FUSED)

    def evaluate(self: AtBoundary) -> None:
        if self._run.run_id == 2:
            self._run.trainer.prediction_step = lambda *_, **__: 1 / 0
        own(self)

    monkeypatch.setattr(AtBoundary, "evaluate_here", evaluate)
    engine = trained(tmp_path / "failing", Execution.FUSED)
    failed = engine.state.record(2)
    assert failed.state is RunState.FAILED
    assert failed.failure.message.startswith("ZeroDivisionError")
    for run_id in joint.state.runs.keys() - {2}:
        assert engine.state.record(run_id).state is RunState.COMPLETED
        assert len(evaluations(engine, run_id)) == 2
        for (step, expected), (at, found) in zip(
            figures(joint, run_id), figures(engine, run_id), strict=True
        ):
            assert (step, found) == (at, pytest.approx(expected, rel=2e-5, abs=2e-6))


def test_samples_are_those_that_each_run_writes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together: list[int] = []
    own = JointModel.decode

    def decode(self: JointModel, requests: Any, *more: Any) -> Any:
        if isinstance(requests[0].member.run, Aside):
            together.append(len(requests))
        return own(self, requests, *more)

    fused = "rf_notebook.training.fused"
    monkeypatch.setattr(f"{fused}.joint_model._PROMPT_MULTIPLE", {"cpu": 16})  # as on a GPU
    monkeypatch.setattr(f"{fused}.table._COLUMNS", 64)  # so that they run out
    prompts = ["the fox", "a small dog jumps", "blue"]
    writing = partial(harness.WatchedRunner, sample_prompts=prompts)
    alone = trained(tmp_path / "alone", Execution.EXACT, runner=writing)
    monkeypatch.setattr(JointModel, "decode", decode)
    joint = trained(tmp_path / "joint", Execution.FUSED, runner=writing)
    assert max(together) == len(METHODS), "samples of GRPO runs are written with the others"
    for run_id in alone.state.runs:
        before, now = (
            [
                (event.steps, [one.text for one in event.generations if one.prompt in prompts])
                for event in harness.events_of(engine)
                if isinstance(event, SamplesWritten) and event.run_id == run_id
            ]
            for engine in (alone, joint)
        )
        assert len(now) == 2
        assert all(len(texts) == 3 for _, texts in now)
        assert now == before
        for engine in (alone, joint):
            events = harness.events_of(engine)
            (speed,) = [  # once, whatever the way it trains in
                event.speed
                for event in events
                if isinstance(event, GenerationMeasured) and event.run_id == run_id
            ]
            assert speed.new_tokens == 32
            assert speed.prompt_tokens > 0
            assert speed.first_token_seconds > 0
            assert speed.seconds > 0
            assert speed_of(engine.state.record(run_id))["eval_seconds"] > 0


@pytest.mark.parametrize("error", [RuntimeError("a kernel"), torch.OutOfMemoryError("no room")])
def test_samples_whose_joint_steps_fail_midway_are_finished_by_each_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("tests.fused.test_joint_aside.METHODS", ["SFT", "SFT"])
    prompts = ["the fox", "a small dog jumps", "blue"]
    writing = partial(harness.WatchedRunner, sample_prompts=prompts)
    alone = trained(tmp_path / "alone", Execution.EXACT, runner=writing)
    answered: list[int] = []
    own = JointDecoder.answer

    def answer(self: JointDecoder, requests: Any, stacked: Any) -> Any:
        answered.append(len(requests))
        if len(answered) == 5:
            raise error
        return own(self, requests, stacked)

    monkeypatch.setattr(JointDecoder, "answer", answer)
    joint = trained(tmp_path / "joint", Execution.FUSED, runner=writing)
    assert len(answered) >= 5
    for engine in (alone, joint):
        assert {record.state for record in engine.state.runs.values()} == {RunState.COMPLETED}
    before, now = (
        sorted(
            (event.run_id, event.steps, *(one.text for one in event.generations))
            for event in harness.events_of(engine)
            if isinstance(event, SamplesWritten)
        )
        for engine in (alone, joint)
    )
    assert now == before


def test_texts_that_are_drawn_to_be_judged_are_those_that_each_run_draws_alone(
    tmp_path: Path,
) -> None:
    def letters(given: tuple[list[str], list[str]]) -> dict[str, float]:
        texts, _ = given
        return {
            "letters": float(sum(map(len, texts))),
            "order": float(sum(place * ord(c) for t in texts for place, c in enumerate(t))),
        }

    judged = {
        "compute_metrics": letters,
        "generation_config": {"max_new_tokens": 6, "temperature": 1.3},
    }
    alone = trained(tmp_path / "alone", Execution.EXACT, judged)
    joint = trained(tmp_path / "joint", Execution.FUSED, judged)
    for run_id in (1, 2, 3):
        before, now = (
            [metrics for _, metrics in figures(engine, run_id) if "order" in metrics]
            for engine in (alone, joint)
        )
        assert len(now) == 2
        assert [(m["letters"], m["order"]) for m in now] == [
            (m["letters"], m["order"]) for m in before
        ]
        assert len({m["order"] for m in now}) > 1, "something is drawn, and not the same each time"
