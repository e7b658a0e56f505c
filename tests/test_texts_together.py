"""``experiment.generate`` of several runs: a step a token for all, and the texts of each alone."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from rf_notebook import Experiment
from rf_notebook.automl import RFGridSearch, RFLoraConfig, RFModelConfig, RFSFTConfig
from rf_notebook.testing.tiny import create_tiny, preference_rows
from rf_notebook.training.fused.decoder import JointDecoder
from tests.api.world import until

pytestmark = pytest.mark.slow
PROMPTS = ["the cat", "a dog runs to the"]
SETTINGS: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.3, "seed": 4}


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs shared each step of one token."""
    seen: list[int] = []
    own = JointDecoder.answer

    def answer(self: JointDecoder, requests: Any, stacked: Any) -> Any:
        answered, number = own(self, requests, stacked)
        seen.append(number)
        return answered, number

    monkeypatch.setattr(JointDecoder, "answer", answer)
    return seen


def begun(folder: Any, execution: str, steps: Any = (6, 6, 6)) -> Experiment:
    experiment = Experiment("texts", experiment_path=folder)
    configs = [
        RFModelConfig(
            model_name="tiny",
            peft_config=RFLoraConfig(r=4 * (seed + 1), target_modules="all-linear"),
            training_args=RFSFTConfig(
                max_length=64,
                use_cpu=True,
                bf16=False,
                learning_rate=3e-2,
                max_steps=many,
                seed=seed,
            ),
        )
        for seed, many in enumerate(steps)
    ]
    experiment.run_fit(
        [RFGridSearch(one, "SFT") for one in configs],
        create_tiny,
        preference_rows(16, 1),
        num_chunks=2,
        execution=execution,
    )
    return experiment


def completed(experiment: Experiment, run_id: int) -> bool:
    return experiment.run(run_id).state == "completed"


def test_texts_are_those_of_each_run_alone(tmp_path: Any, shared: list[int]) -> None:
    experiment = begun(tmp_path, "fused")
    experiment.wait()
    while_open = experiment.generate([1, 2, 3], PROMPTS, **SETTINGS)
    assert max(shared) == 3
    experiment.end()
    shared.clear()
    notebook = torch.get_rng_state()
    with warnings.catch_warnings(action="error"):  # nothing appears in the cell but the texts
        after = experiment.generate([3, 1, 2], PROMPTS, **SETTINGS)
        experiment.export(1, tmp_path / "adapter")
    assert max(shared) == 3
    assert torch.equal(torch.get_rng_state(), notebook)
    shared.clear()
    for run_id in (1, 2, 3):
        alone = experiment.generate(run_id, PROMPTS, **SETTINGS)[f"run {run_id}"]
        assert alone.equals(while_open[f"run {run_id}"])
        assert alone.equals(after[f"run {run_id}"])
    assert not shared
    assert len({tuple(after[name]) for name in after}) > 1, "they learned different things"


def test_runs_in_training_and_completed_ones_answer_at_once(
    tmp_path: Any, shared: list[int]
) -> None:
    experiment = begun(tmp_path, "fused", (4, 4, 400, 400))
    until(lambda: completed(experiment, 1) and completed(experiment, 2))
    texts = experiment.generate([1, 3, 2, 4], PROMPTS, **SETTINGS)
    assert list(texts) == ["run 1", "run 3", "run 2", "run 4"]
    assert shared.count(2) >= 2 * 11, "two in training, and two from their checkpoints"
    experiment.cancel_current()
    for run_id in (1, 2):
        alone = experiment.generate(run_id, PROMPTS, **SETTINGS)[f"run {run_id}"]
        assert alone.equals(texts[f"run {run_id}"])


def test_exact_runs_write_by_themselves(tmp_path: Any, shared: list[int]) -> None:
    experiment = begun(tmp_path, "exact")
    experiment.wait()
    experiment.generate([1, 2, 3], PROMPTS, **SETTINGS)
    experiment.end()
    experiment.generate([1, 2, 3], PROMPTS, **SETTINGS)
    assert not shared
