"""Whatever a policy decides, nothing illegal happens, and everything ends."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rf_notebook.automation import (
    AsyncHalving,
    Evolve,
    Halving,
    KeepPareto,
    MedianStop,
    Policies,
    StopRules,
)
from rf_notebook.automl import List, Range
from rf_notebook.core.events import OperationObeyed, RunPinned
from rf_notebook.core.run import RunState
from rf_notebook.engine.autopilot import Autopilot
from rf_notebook.planning.fusion import Execution
from rf_notebook.results.decisions import decisions_of
from tests.automation.pruner import Pruner
from tests.automation.test_policies import apply, automated, notes, runs, states, turn_to_the_end
from tests.engine.test_saving_behind import Desk, written_late
from tests.engine.world import World

POLICIES = st.sampled_from(
    [
        lambda: Halving("loss"),
        lambda: Halving("loss", eta=3, first=2, keep=2),
        lambda: MedianStop("loss", others=1),
        lambda: AsyncHalving("loss"),
        lambda: AsyncHalving("loss", eta=3),
        lambda: KeepPareto({"loss": "min", "learning_rate": "max"}),
        lambda: Halving("loss", sure=0.9),
        lambda: Halving("loss", compare="fraction"),
        lambda: Evolve({"learning_rate": Range(0.001, 0.5)}, "loss", share=0.5),
        lambda: Evolve({"learning_rate": List([0.1, 0.2])}, "loss", every=2),
        lambda: Pruner("loss"),
        lambda: StopRules("loss", patience=1, diverges=1.01, max_samples=60),
        lambda: Policies(
            [StopRules("loss", max_samples=90), MedianStop("loss", others=2), Halving("loss")]
        ),
    ]
)


@settings(max_examples=40, deadline=None)
@given(
    make=POLICIES,
    count=st.integers(1, 9),
    pinned=st.sets(st.integers(1, 9)),
    batch=st.integers(1, 4),
    kills=st.integers(0, 3),
)
def test_never_an_illegal_operation_never_a_pinned_run_and_always_an_end(
    make, count, pinned, batch, kills
):
    with tempfile.TemporaryDirectory() as folder:
        world = automated(Path(folder), make(), runs(count, batch))
        pinned &= set(world.state.runs)
        for run_id in pinned:
            world.engine.commit([RunPinned(run_id=run_id, pinned=True)])
        for _ in range(kills):
            world.turn(3)
            world.restart()
            world.engine.automate(Autopilot(make(), apply))
        turn_to_the_end(world)
        assert not [text for text in notes(world) if "refused" in text or "set aside" in text]
        events = [recorded.event for recorded in world.state.operations]
        assert all(
            isinstance(event, OperationObeyed) and event.operation.run_id not in pinned
            for event in events
        )
        assert all(
            record.state in (RunState.COMPLETED, RunState.STOPPED)
            for record in world.state.runs.values()
        )


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("execution", [Execution.EXACT, Execution.FUSED])
@pytest.mark.parametrize(
    "make",
    [
        lambda: Halving("loss"),
        lambda: AsyncHalving("loss"),
        lambda: MedianStop("loss"),
        lambda: Evolve({"learning_rate": Range(0.001, 0.5)}, "loss"),
        lambda: Pruner("loss"),
    ],
)
def test_a_killed_experiment_goes_on_with_the_same_decisions(
    tmp_path, make, execution, is_late, monkeypatch
):
    """Also where checkpoints are written behind turns, and a kill loses those that are not."""
    monkeypatch.setattr(World, "execution", execution)
    desk = Desk()
    whole = automated(tmp_path / "whole", make(), runs(8)[::-1])
    whole.finish()
    world = automated(tmp_path / "killed", make(), runs(8)[::-1], writer=desk if is_late else None)
    for _ in range(40):
        with written_late(desk):
            world.turn(2)
        desk.writes.clear()
        world.restart()
        world.engine.automate(Autopilot(make(), apply))
    with written_late(desk):
        world.finish()
    assert decisions_of(whole.state)
    assert decisions_of(world.state) == decisions_of(whole.state)
    assert states(world) == states(whole)
