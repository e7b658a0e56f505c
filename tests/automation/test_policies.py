"""Policies over the fake runner: what they decide, that it is legal, recorded, undone and ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rf_notebook.automation import (
    AsyncHalving,
    Clone,
    Evolve,
    Halving,
    KeepPareto,
    MedianStop,
    Policies,
    Resume,
    Stop,
    StopRules,
)
from rf_notebook.automation.policy import Boundary, Obeyed, RunView, View, sureness
from rf_notebook.automl import List, Range
from rf_notebook.core.errors import ConfigError
from rf_notebook.core.events import RunPinned
from rf_notebook.core.operations import ResumeRun
from rf_notebook.core.run import MetricPoint, Progress, RunState
from rf_notebook.core.state import ExperimentState, RunRecord
from rf_notebook.engine.autopilot import Autopilot
from rf_notebook.engine.turns import Idle
from rf_notebook.results.decisions import decisions_of
from rf_notebook.testing.fake_runner import fake_config
from tests.engine.world import World


def apply(config, edits):
    """Edits of the learning rate, as far as the fake's configs go."""
    if not edits:
        return config, {}
    assert set(edits) == {"learning_rate"}
    changed = {"training_args.learning_rate": edits["learning_rate"]}
    return replace(config, training={**config.training, **edits}), changed


def runs(count, batch_size=2):
    return [
        fake_config(learning_rate=0.02 * (i + 1), batch_size=batch_size, seed=i)
        for i in range(count)
    ]


def automated(folder, policy, configs, **runner):
    world = World(folder, configs, **runner)
    world.engine.automate(Autopilot(policy, apply))
    return world


def states(world):
    return {run_id: str(record.state) for run_id, record in world.state.runs.items()}


def notes(world):
    return [recorded.event.text for recorded in world.state.notes]


def turn_to_the_end(world):
    turns = 0
    while not isinstance(world.turn(), Idle):
        turns += 1
        assert turns < 2000


def final_order(world, metric="loss"):
    """Ids by their newest value, the best first."""
    return sorted(world.state.runs, key=lambda run_id: world.losses(run_id)[-1][1])


def test_halving_stops_the_worse_half_at_each_barrier(tmp_path):
    world = automated(tmp_path, Halving("loss"), runs(8), num_chunks=8)
    world.finish()
    stopped = decisions_of(world.state)
    chunks = [world.state.record(one.run_id).progress.chunks for one in stopped]
    assert chunks == [1, 1, 1, 1, 2, 2, 4]
    (winner,) = [run_id for run_id, state in states(world).items() if state == "completed"]
    at = {run_id: dict(world.losses(run_id)) for run_id in world.state.runs}
    first = [one.run_id for one in stopped[:4]]
    step = max(at[first[0]])
    assert all(at[run_id][step] >= at[winner][step] for run_id in first)
    assert all("loss" in one.reason and "continue." in one.reason for one in stopped)
    assert all(one.policy == "halving" for one in stopped)


def test_runs_of_other_methods_are_halved_apart(tmp_path):
    mixed = [*runs(4), *(replace(one, method="DPO") for one in runs(4))]
    world = automated(tmp_path, Halving("loss"), mixed)
    world.finish()
    done = [run_id for run_id, state in states(world).items() if state == "completed"]
    assert (
        len([run_id for run_id in done if run_id <= 4])
        == len([run_id for run_id in done if run_id > 4])
        == 1
    )


def test_a_pinned_run_and_one_that_was_given_back_go_to_their_end(tmp_path):
    world = automated(tmp_path, Halving("loss"), runs(8))
    world.engine.commit([RunPinned(run_id=8, pinned=True)])
    while not decisions_of(world.state):
        world.turn()
    back = decisions_of(world.state)[0].run_id
    world.ask(ResumeRun(run_id=back))
    world.finish()
    assert states(world)[8] == states(world)[back] == "completed"
    assert 8 not in {one.run_id for one in decisions_of(world.state)}


def test_a_policy_that_raises_is_set_aside_and_everything_trains_on(tmp_path):
    class Broken:
        name = "broken"

        def decide(self, view):
            raise ZeroDivisionError("no luck")

    world = automated(tmp_path, Broken(), runs(3))
    world.finish()
    assert set(states(world).values()) == {"completed"}
    assert notes(world) == ["the policy broken was set aside: it raised ZeroDivisionError: no luck"]
    assert world.state.policy is None


def test_what_is_no_decision_and_what_is_not_allowed_are_told(tmp_path):
    class Odd:
        name = "odd"

        def __init__(self, *decisions):
            self.decisions = decisions

        def decide(self, view):
            return self.decisions if max(run.chunks for run in view.runs.values()) == 1 else ()

    world = automated(tmp_path / "a", Odd(Resume(1, "because."), Stop(2, "because.")), runs(3))
    world.finish()
    assert notes(world)[0].startswith(
        "the policy odd was refused: cannot resume run 1: it is running"
    )
    assert states(world) == {1: "completed", 2: "stopped", 3: "completed"}
    world = automated(tmp_path / "b", Odd("stop"), runs(2))
    world.finish()
    assert "was set aside" in notes(world)[0]


def test_a_clone_by_a_policy_is_an_ordinary_clone(tmp_path):
    class Once:
        name = "once"

        def decide(self, view):
            first = view.runs[1]
            return (
                [Clone(1, "it leads.", warm_start=True)]
                if first.chunks == 1 and len(view.runs) == 2
                else []
            )

    world = automated(tmp_path, Once(), runs(2))
    world.finish()
    assert states(world) == {1: "completed", 2: "completed", 3: "completed"}
    assert world.state.record(3).parent_id == 1
    (made,) = decisions_of(world.state)
    assert (made.policy, made.what, made.run_id, made.made, made.reason) == (
        "once",
        "clone",
        1,
        3,
        "it leads.",
    )


def test_the_worst_give_way_to_changed_copies_of_the_best(tmp_path):
    world = automated(
        tmp_path,
        Evolve({"learning_rate": Range(0.001, 0.5)}, "loss", share=0.25),
        runs(8),
        num_chunks=8,
    )
    world.finish()
    decided = decisions_of(world.state)
    clones = [one for one in decided if one.what == "clone"]
    assert len(clones) >= 4
    assert clones[0].reason.startswith("generation 1: run ")
    first = world.state.record(clones[0].made)
    assert first.warm_start is not None
    ratio = (
        first.config.training["learning_rate"]
        / world.state.record(first.parent_id).config.training["learning_rate"]
    )
    assert ratio in (pytest.approx(1.25), pytest.approx(0.8))
    view = View(world.state)
    whole = max(run.total_samples for run in view.runs.values())
    assert (
        max(run.inherited + run.samples for run in view.runs.values())
        < whole + view.runs[1].chunk_samples
    )
    for one in decided:
        if one.what == "stop" and "among the worst" in one.reason:
            assert view.runs[one.run_id].state == "stopped"


def test_knobs_of_lists_go_to_neighbours():
    policy = Evolve({"peft_config.r": List([2, 4, 8])}, "loss")
    parent = RunView(record_of(1, [1.0], [1.0]), is_pinned=False)
    import random

    found = {policy._changed(parent, random.Random(i))["peft_config.r"] for i in range(20)}  # noqa: SLF001 - what was asked of it last
    assert found == {4, 8}, "r is 8, the last one"


def test_shares_of_plans_of_different_lengths_are_compared(tmp_path):
    short = [
        fake_config(learning_rate=rate, batch_size=2, epochs=1, seed=7) for rate in (0.02, 0.05)
    ]
    long = [
        fake_config(learning_rate=rate, batch_size=2, epochs=4, seed=7) for rate in (0.03, 0.04)
    ]
    world = automated(tmp_path, Halving("loss", compare="fraction", first=2), [*short, *long])
    world.finish()
    assert decisions_of(world.state)
    for one in decisions_of(world.state):
        run = View(world.state).runs[one.run_id]
        at = int(one.reason.split(" after ")[1].split(" samples")[0])
        assert at <= run.samples
        assert at / run.total_samples in (2 / 16, 4 / 16, 8 / 16)


def test_runs_of_each_schedule_are_halved_by_themselves(tmp_path):
    def scheduled(name):
        return [
            replace(one, training={**one.training, "lr_scheduler_type": name}) for one in runs(4)
        ]

    world = automated(
        tmp_path,
        Halving("loss", compare="schedule"),
        [*scheduled("cosine"), *scheduled("constant")],
    )
    world.finish()
    done = [run_id for run_id, state in states(world).items() if state == "completed"]
    assert (
        len([run_id for run_id in done if run_id <= 4])
        == len([run_id for run_id in done if run_id > 4])
        == 1
    )


def test_halving_says_what_it_waits_for(tmp_path):
    pilot = Autopilot(Halving("loss"), apply)
    world = World(tmp_path, runs(4), num_chunks=8)
    world.engine.automate(pilot)
    world.turn(3)
    assert (
        pilot.waits_for == "chunk 1, after which 2 of 4 continue; still to come there: run 3, run 4"
    )
    world.turn(3)
    assert pilot.waits_for.startswith("chunk 2, after which 1 of 2 continue")
    view = View(world.state)
    assert Policies([StopRules(), Halving("loss")]).waits_for(view) == Halving("loss").waits_for(
        view
    )


def test_the_history_is_in_its_order(tmp_path):
    world = automated(tmp_path, Halving("loss"), runs(2))
    world.finish()
    history = View(world.state).history
    assert history[:3] == [
        Boundary(1, 1, 16),
        Boundary(2, 1, 16),
        Obeyed("stop", history[2].run, None, 16, True),
    ]
    assert history[-1].chunks == 4


def test_the_median_rule_leaves_the_better_half_alone(tmp_path):
    world = automated(tmp_path, MedianStop("loss"), runs(6))
    world.finish()
    order = final_order(world)
    assert states(world)[order[0]] == "completed"
    assert "stopped" in states(world).values()
    assert all("the median of what" in one.reason for one in decisions_of(world.state))


def test_a_budget_of_samples_is_never_exceeded(tmp_path):
    free = World(tmp_path / "free", runs(4))
    free.finish()
    whole = sum(record.progress.samples for record in free.state.runs.values())
    for share in (0.3, 0.5, 0.9):
        budget = int(whole * share)
        world = automated(tmp_path / str(share), StopRules("loss", max_samples=budget), runs(4))
        world.finish()
        used = sum(record.progress.samples for record in world.state.runs.values())
        assert used <= budget
        assert used > budget / 2
        assert any("budget" in one.reason for one in decisions_of(world.state))


def test_when_a_budget_is_spent_no_other_policy_starts_anything(tmp_path):
    both = Policies(
        [
            StopRules("loss", max_samples=150),
            Evolve({"learning_rate": Range(0.001, 0.5)}, "loss", share=0.5),
        ]
    )
    world = automated(tmp_path, both, runs(4))
    world.finish()
    assert 75 < sum(record.progress.samples for record in world.state.runs.values()) <= 150


def test_asynchronous_halving_keeps_the_best(tmp_path):
    world = automated(tmp_path, AsyncHalving("loss"), runs(8), num_chunks=8)
    world.finish()
    done = [run_id for run_id, state in states(world).items() if state == "completed"]
    assert 1 <= len(done) <= 2
    view = View(world.state)
    first_rung = round(view.runs[1].chunk_samples)
    after_one = {run_id: run.value("loss", first_rung) for run_id, run in view.runs.items()}
    assert all(
        sum(value < after_one[run_id] for value in after_one.values()) < 4 for run_id in done
    )
    chunks = [world.state.record(one.run_id).progress.chunks for one in decisions_of(world.state)]
    assert set(chunks) <= {1, 2, 4}
    assert chunks.count(1) >= 3
    assert all(
        "of the" in one.reason and "runs that came so far." in one.reason
        for one in decisions_of(world.state)
    )


def record_of(run_id, losses, rates):
    points = [
        MetricPoint(step=i, samples=2 * i, epoch=0.0, chunk=i, metrics={"loss": loss, "rate": rate})
        for i, (loss, rate) in enumerate(zip(losses, rates, strict=True), start=1)
    ]
    progress = Progress(
        steps=len(points),
        samples=2 * len(points),
        chunks=len(points),
        total_chunks=8,
        total_samples=16,
    )
    config = fake_config(learning_rate=0.1, batch_size=2, seed=0)
    return RunRecord(
        run_id=run_id, config=config, parent_id=None, edits={}, warm_start=None,
        state=RunState.RUNNING, progress=progress, points=(tuple(points),),
    )  # fmt: skip


def test_only_who_is_beaten_in_every_metric_is_off_the_front():
    state = ExperimentState()
    for run_id, loss, rate in [(1, 1.0, 5.0), (2, 2.0, 9.0), (3, 1.5, 4.0), (4, 2.5, 8.0)]:
        state.runs[run_id] = record_of(run_id, [loss], [rate])
    (third, fourth) = KeepPareto({"loss": "min", "rate": "max"}).decide(View(state))
    assert (third.run, fourth.run) == (3, 4)
    assert third.reason == "run 1 beats it in all metrics after 2 samples: loss 1, rate 5."


def test_sureness_is_that_of_paired_differences():
    def view(losses):
        return RunView(record_of(1, losses, losses), is_pinned=False)

    steady = view([3.0, 2.9, 2.8, 2.7, 2.6])
    a_bit_worse = view(
        [3.1, 3.0, 2.9, 2.8, 2.7]
    )  # by the same each time, which is sure however much both move
    now_and_then = view([3.2, 2.7, 2.9, 2.5, 2.7])
    assert sureness(steady, a_bit_worse, "loss", None, 100) == 1.0
    assert sureness(a_bit_worse, steady, "loss", None, 100) == 0.0
    assert 0.2 < sureness(steady, now_and_then, "loss", None, 100) < 0.8
    assert sureness(steady, view([]), "loss", None, 100) == 0.0
    assert sureness(steady, a_bit_worse, "loss", "max", 100) == 0.0


def test_halving_that_wants_to_be_sure_waits(tmp_path):
    world = automated(tmp_path, Halving("loss", sure=1.0), runs(8), num_chunks=8)
    world.finish()
    assert all("(100% sure)" in one.reason for one in decisions_of(world.state))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Halving(eta=1), "eta must be a whole number of at least 2"),
        (lambda: Halving(mode="least"), "mode is 'min' or 'max'"),
        (lambda: Halving(sure=0.2), "sure must be between 0.5 and 1"),
        (
            lambda: Halving(compare="steps"),
            "there is no such way; use 'samples', 'fraction', 'schedule'",
        ),
        (lambda: Evolve({}), "give a Range or a List by the name of a knob"),
        (lambda: Evolve({"r": [1, 2]}), "give a Range or a List by the name of a knob"),
        (lambda: Evolve({"r": List([1])}, share=0.9), "share must be above 0 and at most 0.5"),
        (lambda: Evolve({"r": List([1])}, every=0), "every must be a whole number of at least 1"),
        (lambda: AsyncHalving(first=0), "first must be a whole number of at least 1"),
        (lambda: KeepPareto({"loss": "min"}), "give 'min' or 'max' for two metrics or more"),
        (lambda: MedianStop(after=0), "after must be a whole number of at least 1"),
        (lambda: StopRules(patience=-1), "patience must be a number above 0"),
        (lambda: StopRules(max_cost=3), "max_cost and cost_per_hour together"),
        (lambda: StopRules(diverges=0.5), "diverges must be above 1"),
        (
            lambda: Autopilot(object(), apply),
            "object is not a policy; give an object with a name and decide",
        ),
        (
            lambda: Autopilot(
                type("P", (), {"name": "python", "decide": lambda self, view: []})(), apply
            ),
            "cannot be named",
        ),
    ],
)
def test_bad_settings_are_one_sentence(make, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make()
