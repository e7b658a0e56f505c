"""A member that fails, leaves or runs out of memory changes nobody else's figures."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rf_notebook.core.events import Noted
from rf_notebook.core.objects import Objects
from rf_notebook.core.operations import CloneRun, StopRun
from rf_notebook.core.run import RunConfig, RunState
from rf_notebook.planning.fusion import Execution
from rf_notebook.training.fused.adapters import AdapterBlock
from rf_notebook.training.fused.joint_model import JointModel
from rf_notebook.training.fused.layout import tokens_of
from rf_notebook.training.fused.member import Member
from rf_notebook.training.fused.memory_limits import _PASS_COST, Kept, token_bytes_of
from rf_notebook.training.fused.passes import Graph
from tests.exactness.harness import WatchedRunner, events_of, turn_all
from tests.fused.world import config, engine_over, figures
from tests.thorough import few

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("layout")]
METHODS = ["SFT", "DPO", "GRPO", "SFT"]
#: In tokens: for most of a round, for any one of its runs, and for none that keeps its activations.
_ROOM = {
    "padded": {"much": 192, "some": 96, "little": 36},  # a round has some 240, a run 30 to 84
    "packed": {"much": 120, "some": 76, "little": 20},  # some 170, 23 to 69
}


def configs(objects: Objects, **training: Any) -> list[RunConfig]:
    made = []
    for seed, method in enumerate(METHODS):
        batch = 4 if method == "GRPO" else 2
        given = {"seed": seed, "per_device_train_batch_size": batch, **training}
        made.append(config(method, objects, adapter={"lora_dropout": 0.1}, training=given))
    return made


@pytest.fixture(scope="module")
def undisturbed(layout: str, tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Any]]:
    objects = Objects()
    engine = engine_over(
        tmp_path_factory.mktemp("undisturbed"), configs(objects), objects, Execution.FUSED
    )
    turn_all(engine)
    return {run_id: figures(engine, run_id) for run_id in engine.state.runs}


def assert_as_before(found: list[Any], expected: list[Any]) -> None:
    assert [step for step, _ in found] == [step for step, _ in expected]
    for (step, now), (_, before) in zip(found, expected, strict=True):
        assert now.keys() == before.keys()
        # A DPO run's rewards are a tenth of sums of up to four log-probabilities, each off by half
        # a bit of its last.
        logps = max(
            (abs(value) for name, value in before.items() if name.startswith("logps/")), default=0.0
        )
        rounding = 0.1 * 4 * float(np.spacing(np.float32(logps))) / 2
        for name, value in before.items():
            off = max(1e-6, rounding) if name.startswith("rewards/") else 1e-6
            assert now[name] == pytest.approx(value, rel=1e-5, abs=off), (step, name)


class Failing(WatchedRunner):
    """Lets one run's loss raise at its n-th micro-step, or be no number from then on."""

    victim, at, is_nan = 0, 0, False

    def build(self, request: Any) -> Any:
        built = super().build(request)
        held = self.runs.get(request.run_id)
        if held is not None and request.run_id == self.victim:
            trainer, left = held.trainer, [self.at]
            own = trainer.compute_loss

            def compute_loss(*args: Any, **kwargs: Any) -> Any:
                loss = own(*args, **kwargs)
                left[0] -= 1
                if left[0] <= 0 and self.is_nan:
                    return loss * float("nan")
                if left[0] == 0:
                    raise ValueError("a loss of the test's")
                return loss

            trainer.compute_loss = compute_loss
        return built


# A GRPO run whose weights are no numbers cannot generate: it fails in plain TRL, too.
@pytest.mark.parametrize(
    "failing", few(3, [(1, False), (3, False), (2, True), (2, False), (1, True)])
)
def test_a_failing_loss_is_its_run_s_alone(
    failing: tuple[int, bool], tmp_path: Path, undisturbed: dict[int, list[Any]]
) -> None:
    class Runner(Failing):
        pass

    victim, is_nan = failing

    Runner.victim, Runner.at, Runner.is_nan = victim, 5, is_nan
    objects = Objects()
    engine = engine_over(tmp_path, configs(objects), objects, Execution.FUSED, runner=Runner)
    turn_all(engine)
    failed = engine.state.record(victim)
    if is_nan:
        assert failed.state is RunState.DIVERGED, failed.failure
        assert failed.progress.diverged_at == 5
    else:
        assert failed.state is RunState.FAILED
        assert failed.failure is not None
        assert failed.failure.message.startswith("ValueError: a loss of the test's")
        assert_as_before(
            figures(engine, victim), undisturbed[victim][: len(figures(engine, victim))]
        )
    for run_id in undisturbed.keys() - {victim}:
        assert engine.state.record(run_id).state is RunState.COMPLETED
        assert_as_before(figures(engine, run_id), undisturbed[run_id])


@contextmanager
def memory_for(rows: int) -> Iterator[None]:
    """Joint passes of more rows run out of memory, in the forward.

    Of exactly so many, in the backward sometimes.
    """
    own = JointModel.pass_together

    def forward(self: JointModel, requests: Any, *more: Any) -> Any:
        if sum(request.rows for request in requests) > rows:
            raise torch.OutOfMemoryError("out of memory (injected)")
        return own(self, requests, *more)

    JointModel.pass_together = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        JointModel.pass_together = own  # type: ignore[method-assign]


@contextmanager
def memory_that_graphs_fill(tokens: int) -> Iterator[Counter[str]]:
    """Joint passes run out of memory beside graphs that wait for their backward.

    So many tokens fit in all.

    When activations are computed again, four times as many. Counts passes by what they keep, and
    failures.
    """
    forward = JointModel.pass_together
    alive: list[Graph] = []
    seen: Counter[str] = Counter()

    def used() -> float:
        alive[:] = [graph for graph in alive if graph.outputs]
        return sum(tokens_of(g.requests) / (4 if g.kept is Kept.LAYER_INPUTS else 1) for g in alive)

    def forwarded(self: JointModel, requests: Any, stacked: Any, kept: Kept) -> list[Graph]:
        needed = (
            tokens_of(requests) / (4 if kept is Kept.LAYER_INPUTS else 1)
            if kept is not Kept.NOTHING
            else 0
        )
        if used() + needed > tokens:
            seen["failed"] += 1
            raise torch.OutOfMemoryError("out of memory (injected)")
        made = forward(self, requests, stacked, kept)
        alive.extend(made)
        seen[kept.name] += 1
        return made

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(JointModel, "pass_together", forwarded)
        yield seen
    assert not used(), "every graph had its backward or was let go"


@pytest.mark.parametrize(
    ("room", "worth", "is_recomputed"),
    [("much", 2, False), ("some", 2, False), ("little", 2, True), ("much", 160, True)],
)
def test_parts_are_done_one_after_another(
    room: str,
    worth: int,
    is_recomputed: bool,
    layout: str,
    tmp_path: Path,
    undisturbed: dict[int, list[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is room for some of a round's tokens.

    Where a pass costs little, activations are kept in parts.
    """
    tokens = _ROOM[layout][room]

    def nobody(*_: Any) -> None:
        raise AssertionError("a run was left alone")

    monkeypatch.setitem(_PASS_COST, "cpu", worth)
    monkeypatch.setattr(Member, "_alone", nobody)
    objects = Objects()
    with memory_that_graphs_fill(tokens) as seen:
        engine = engine_over(tmp_path, configs(objects), objects, Execution.FUSED)
        turn_all(engine)
    assert 0 < seen["failed"] < (10 if room == "little" else 6), (
        "limits are learned, not tried again"
    )
    assert bool(seen["LAYER_INPUTS"]) == is_recomputed
    assert told_of_recomputing(engine) == is_recomputed
    for run_id, expected in undisturbed.items():
        record = engine.state.record(run_id)
        assert record.state is RunState.COMPLETED, record.failure
        assert_as_before(figures(engine, run_id), expected)


def told_of_recomputing(engine: Any) -> int:
    """How many notes of it the user sees."""
    notes = [event.text for event in events_of(engine) if isinstance(event, Noted)]
    return sum("are computed again in the backward pass" in text for text in notes)


def test_what_is_expected_not_to_fit_is_computed_again_and_never_tried(
    tmp_path: Path, undisturbed: dict[int, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the model's shape: nothing was measured yet."""

    def free(model: JointModel) -> float:
        needed = token_bytes_of(model.backbone)
        return 60 * needed[Kept.ACTIVATIONS]

    monkeypatch.setattr(JointModel, "_free_bytes", free)
    objects = Objects()
    engine = engine_over(tmp_path, configs(objects), objects, Execution.FUSED)
    turn_all(engine)
    (model,) = engine.fleet.runner.joint_turns.models.values()  # type: ignore[attr-defined]
    assert model.counts.too_large == 0
    assert told_of_recomputing(engine) == 1
    for run_id, expected in undisturbed.items():
        assert engine.state.record(run_id).state is RunState.COMPLETED
        assert_as_before(figures(engine, run_id), expected)


@pytest.mark.parametrize("rows", [8, 5])
def test_what_does_not_fit_together_is_done_in_parts(
    rows: int, tmp_path: Path, undisturbed: dict[int, list[Any]]
) -> None:
    objects = Objects()
    with memory_for(rows):
        engine = engine_over(tmp_path, configs(objects), objects, Execution.FUSED)
        turn_all(engine)
    (model,) = engine.fleet.runner.joint_turns.models.values()  # type: ignore[attr-defined]
    assert model.counts.too_large > 0
    for run_id, expected in undisturbed.items():
        assert engine.state.record(run_id).state is RunState.COMPLETED
        assert_as_before(figures(engine, run_id), expected)


def test_a_run_that_does_not_fit_by_itself_is_left_to_its_own_model(tmp_path: Path) -> None:
    objects = Objects()
    listed = [
        config(
            "SFT",
            objects,
            adapter={"lora_dropout": 0.1},
            training={"seed": seed, "per_device_train_batch_size": b},
        )
        for seed, b in enumerate([2, 8, 2])
    ]
    alone = engine_over(tmp_path / "alone", listed, objects, Execution.EXACT)
    turn_all(alone)
    with memory_for(4):
        engine = engine_over(tmp_path / "joint", listed, objects, Execution.FUSED)
        turn_all(engine)
    for run_id in (1, 2, 3):
        assert engine.state.record(run_id).state is RunState.COMPLETED
        assert_as_before(figures(engine, run_id), figures(alone, run_id))


@pytest.mark.parametrize("seed", few(2, range(6)))
def test_out_of_memory_anywhere_in_a_joint_pass(
    seed: int, tmp_path: Path, undisturbed: dict[int, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    left = [rng.randint(1, 60)]
    own = JointModel.__init__

    def fail(*_: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise torch.OutOfMemoryError("out of memory (injected)")

    def watched(self: JointModel, *args: Any) -> None:
        own(self, *args)

        def watch(_layer: Any, _given: Any, made: Any) -> None:
            fail()
            output = made[0] if isinstance(made, tuple) else made
            if output.requires_grad:
                output.register_hook(fail)

        for name, layer in self.backbone.named_modules():
            if name.endswith(("self_attn", "mlp")):
                layer.register_forward_hook(watch)

    monkeypatch.setattr(JointModel, "__init__", watched)
    objects = Objects()
    engine = engine_over(tmp_path, configs(objects), objects, Execution.FUSED)
    turn_all(engine)
    assert left[0] <= 0
    for run_id, expected in undisturbed.items():
        assert engine.state.record(run_id).state is RunState.COMPLETED, engine.state.record(
            run_id
        ).failure
        assert_as_before(figures(engine, run_id), expected)


def test_groups_are_formed_anew_as_runs_stop_and_join(
    tmp_path: Path, undisturbed: dict[int, list[Any]]
) -> None:
    objects = Objects()
    listed = configs(objects)
    engine = engine_over(tmp_path, listed, objects, Execution.FUSED)

    def listen(run_id: int, progress: Any, point: Any) -> None:
        engine.on_live(run_id, progress, point)
        if run_id == 1 and point is None and progress.steps == 3:
            engine.mailbox.submit(StopRun(run_id=4))
            engine.mailbox.submit(CloneRun(run_id=1, config=listed[0], edits={}, warm_start=True))

    engine.fleet.listener = listen  # type: ignore[attr-defined]
    turn_all(engine)
    assert engine.state.record(4).state is RunState.STOPPED
    assert engine.state.record(5).state is RunState.COMPLETED
    assert engine.state.record(1).fused_with == (2, 3, 5), (
        "the clone is in the group at its end, the stopped run is not"
    )
    for run_id in (1, 2, 3):
        assert_as_before(figures(engine, run_id), undisturbed[run_id])
    stopped = figures(engine, 4)
    assert_as_before(stopped, undisturbed[4][: len(stopped)])


def test_a_joint_pass_that_fails_leaves_the_runs_to_train_in_turns(
    tmp_path: Path, undisturbed: dict[int, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    left, own = [4], JointModel.pass_together

    def forward(self: JointModel, requests: Any, *more: Any) -> Any:
        left[0] -= 1
        if left[0] <= 0:
            raise RuntimeError("no kernel for this (injected)")
        return own(self, requests, *more)

    monkeypatch.setattr(JointModel, "pass_together", forward)
    objects = Objects()
    engine = engine_over(tmp_path, configs(objects), objects, Execution.FUSED)
    turn_all(engine)
    assert left[0] == 0, "it was tried once"
    for run_id, expected in undisturbed.items():
        record = engine.state.record(run_id)
        assert record.state is RunState.COMPLETED, record.failure
        assert (
            record.alone_because
            == "a joint step failed: RuntimeError: no kernel for this (injected)"
        )
        assert_as_before(figures(engine, run_id), expected)


@pytest.mark.parametrize("is_first", [True, False])
def test_no_room_for_the_adapters_side_by_side(
    is_first: bool,
    tmp_path: Path,
    undisturbed: dict[int, list[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left, own = [1 if is_first else 2], AdapterBlock.__init__

    def stacked(self: AdapterBlock, adapters: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise torch.OutOfMemoryError("out of memory (injected)")
        own(self, adapters)

    monkeypatch.setattr(AdapterBlock, "__init__", stacked)
    objects = Objects()
    listed = configs(objects)
    engine = engine_over(tmp_path, listed, objects, Execution.FUSED)
    turn_all(engine)
    for run_id, expected in undisturbed.items():
        record = engine.state.record(run_id)
        if record.state is RunState.FAILED:
            assert not is_first, "nobody was inside a step"
            assert_as_before(figures(engine, run_id), expected[: len(figures(engine, run_id))])
        else:
            assert record.state is RunState.COMPLETED
            assert record.alone_because.startswith("a joint step failed: OutOfMemoryError")
            assert_as_before(figures(engine, run_id), expected)
