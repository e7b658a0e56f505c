"""Rewards of every kind: functions, partial ones, objects, models, and what cannot be one."""

from __future__ import annotations

import asyncio
import functools
import math
import re

import pytest
import torch

from rf_notebook.automl import (
    List,
)
from rf_notebook.testing.tiny import preference_rows, tiny_tokenizer
from tests.experiment_world import curve
from tests.methods_world import fit, grpo, length


def late(fault):
    """A reward that is right for two batches."""
    calls = []

    def reward(completions, **kwargs):
        calls.append(1)
        return [1.0] * len(completions) if len(calls) < 3 else fault(completions)

    return reward


def raises(completions):
    if any(completions):
        raise KeyError("answer")
    return []


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (
            raises,
            r"the reward function 'reward' raised KeyError: 'answer', for completion 1 of its batch, to the prompt '",
        ),
        (lambda texts: None, "returned None; it must return a list of 4 numbers"),
        (lambda texts: 1.0, "returned a float; it must return a list of 4 numbers"),
        (lambda texts: [1.0], "returned 1 rewards; it must return a list of 4 numbers"),
        (
            lambda texts: [1.0, math.nan, 1.0, 1.0],
            "returned nan for completion 2 of its batch, to the prompt '",
        ),
        (lambda texts: [1.0, 1.0, math.inf, 1.0], "returned inf for completion 3"),
        (lambda texts: [1.0, "good", 1.0, 1.0], "returned 'good' for completion 2"),
        (
            lambda texts: [1.0, 1.0, 1.0, None],
            "returned None for completion 4 of its batch, to the prompt '",
        ),
    ],
)
def test_a_reward_that_cannot_be_used_fails_its_run_alone_with_the_function_and_the_row(
    new, fault, sentence
):
    experiment = fit(new(), [grpo(late(fault)), grpo(length)])
    experiment.wait()
    assert experiment.run(1).state == "failed"
    assert re.search(sentence, experiment.run(1).error), experiment.run(1).error
    assert experiment.run(2).state == "completed"
    assert experiment.run(1).metrics["reward"] == 1.0, "what was trained before is kept"


def test_several_rewards_partial_ones_async_ones_and_objects_that_are_called(new):
    async def slow(completions, **kwargs):
        await asyncio.sleep(0)
        return length(completions)

    def only_short(completions, **kwargs):
        return [1.0 if len(text) < 20 else None for text in completions]

    class Judge:
        def __call__(self, completions, **kwargs):
            return length(completions)

    def scaled(completions, by, **kwargs):
        return [by * value for value in length(completions)]

    rewards = [
        [length, only_short],
        [slow, only_short],
        [Judge(), only_short],
        [functools.partial(scaled, by=1.0), only_short],
    ]
    experiment = fit(new(), grpo(List(rewards), logging_steps=1))
    experiment.wait()
    curves = [
        [
            {k: v for k, v in m.items() if not k.startswith("rewards/")}
            for _, m in curve(experiment, run.id)
        ]
        for run in experiment.runs
    ]
    assert [run.state for run in experiment.runs] == ["completed"] * 4
    assert curves[0] == curves[1] == curves[2] == curves[3]
    assert {
        "rewards/only_short/mean",
        "rewards/slow/mean",
        "reward",
        "completions/mean_length",
    } <= experiment.run(2).metrics.keys()


def test_closures_that_differ_in_what_they_hold_are_different_rewards(new):
    def times(factor):
        def reward(completions, **kwargs):
            return [factor * value for value in length(completions)]

        return reward

    experiment = fit(new(), grpo(List([times(1.0), times(-1.0)]), logging_steps=1))
    experiment.wait()
    first, second = (curve(experiment, run_id)[0][1]["reward"] for run_id in (1, 2))
    assert first == -second != 0.0


def test_a_reward_model_by_name_is_loaded_once(new, tmp_path):
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(3)
    small = LlamaConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=512,
        num_labels=1,
    )
    LlamaForSequenceClassification(small).save_pretrained(tmp_path / "judge")
    tiny_tokenizer().save_pretrained(tmp_path / "judge")
    experiment = fit(
        new(), grpo([str(tmp_path / "judge"), length], learning_rate=List([1e-3, 2e-3]))
    )
    experiment.wait()
    assert [run.state for run in experiment.runs] == ["completed"] * 2, experiment.run(1).traceback
    assert "rewards/judge/mean" in experiment.run(1).metrics
    assert len(experiment.session.engine.fleet.runner.models.loaded_rewards) == 1


def test_completions_with_their_rewards_are_in_the_samples(new):
    experiment = fit(new(), grpo(length))
    experiment.wait()
    written = experiment.session.state.written[1]
    assert len(written.generations) == 4
    for one in written.generations:
        assert one.rewards == {"length": float(len(one.text))}
        assert one.prompt in preference_rows(24, 1)["prompt"]
    from rf_notebook.views.document import to_html
    from rf_notebook.views.samples import samples

    assert "length " in to_html(samples(experiment.session.state, []))


# ---- a kill between two chunks
