"""Callbacks in the style of RapidFire AI, as policies."""

from __future__ import annotations

import pytest

from rf_notebook.automl.callbacks import RunDecision
from rf_notebook.results.decisions import decisions_of
from tests.automation.pruner import Pruner
from tests.automation.test_policies import (
    automated,
    notes,
    runs,
    states,
)


def test_a_callback_in_the_reference_s_style_prunes_and_replaces(tmp_path):
    callback = Pruner("loss")
    world = automated(tmp_path, callback, runs(8)[::-1])
    world.finish()
    made = [one for one in decisions_of(world.state) if one.what == "clone"]
    assert len(made) == 2
    assert all(one.policy == "Pruner" for one in decisions_of(world.state))
    assert made[0].reason == f"Pruner replaced run {made[0].run_id}."
    assert world.state.record(made[0].made).config.training["learning_rate"] == 0.3
    assert callback.configs.keys() == callback.final.keys() == world.state.runs.keys()
    assert callback.configs[1]["training_args"]["learning_rate"] == pytest.approx(0.16)
    assert callback.final[1]["loss"] == world.losses(1)


def test_a_callback_with_the_newer_name_works_and_odd_answers_are_told(tmp_path):
    class Newer:
        def __init__(self, answer):
            self.answer = answer

        def on_chunk_complete(self, run_id, chunk_id, metrics):
            return self.answer if (run_id, chunk_id) == (2, 0) else RunDecision("continue")

    world = automated(tmp_path / "a", Newer(RunDecision("prune")), runs(3))
    world.finish()
    assert states(world) == {1: "completed", 2: "stopped", 3: "completed"}
    world = automated(tmp_path / "b", Newer("prune"), runs(3))
    world.finish()
    assert "on_chunk_complete gave 'prune'; give RunDecision('continue')" in notes(world)[0]
