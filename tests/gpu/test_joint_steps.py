"""On a GPU: joint steps in every precision, against the same runs alone."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from rf_notebook.core import foreground
from rf_notebook.core.events import SamplesWritten
from rf_notebook.core.objects import Objects
from rf_notebook.core.run import RunConfig
from rf_notebook.planning.fusion import Execution
from rf_notebook.training.fused import attention, joint_model, linear
from rf_notebook.training.fused.attention import AttentionWay
from rf_notebook.training.fused.joint_model import JointModel
from rf_notebook.training.fused.linear import Way
from rf_notebook.training.fused.recorded import RecordedPasses
from tests.exactness.harness import events_of
from tests.fused.test_equals_alone import losses, trained
from tests.fused.world import config, joint_forwards

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU; nothing of it can happen on a CPU"
)


#: The run of the group that has it.
WITH_DROPOUT = 2


def group(objects: Objects, **more: Any) -> list[RunConfig]:
    training = {
        "use_cpu": False,
        "per_device_train_batch_size": 2,
        "num_train_epochs": 2,
        "max_length": 64,
    } | more
    adapters = [
        {"r": r, "target_modules": "all-linear", "lora_dropout": drop}
        for r, drop in ((4, 0.0), (8, 0.1), (8, 0.0))
    ]
    methods = ["SFT", "SFT", "DPO"]
    return [
        config(method, objects, adapter=adapter, training=training | {"seed": seed})
        for seed, (method, adapter) in enumerate(zip(methods, adapters, strict=True))
    ]


def half_of_weights_apart(ours: dict[str, torch.Tensor], alone: dict[str, torch.Tensor]) -> float:
    """How far half of the weights are apart at most.

    The furthest says nothing here: it is one whose first gradient is rounding alone, which Adam's
    first step takes up or down by the whole learning rate. Which of such weights another shape
    turns, and whether one, is chance.
    """
    assert ours.keys() == alone.keys()
    return torch.cat([(ours[name] - alone[name]).abs().flatten() for name in alone]).median().item()


#: What lies and is multiplied how; None for what the device does by itself.
WAYS: dict[str, tuple[str, AttentionWay | None, Way | None]] = {
    "packed": ("packed", None, None),
    "packed, as on a T4": ("packed", AttentionWay.ROWS, Way.BLOCKS),
    "padded": ("padded", None, None),
}


@pytest.fixture(params=WAYS)
def ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    layout, attention_way, way = WAYS[request.param]
    if layout == "padded":
        monkeypatch.setattr(joint_model, "why_not_packed", lambda *_: "the test says so")
    monkeypatch.setattr(attention, "forced_way", attention_way)
    monkeypatch.setattr(linear, "forced_way", way)
    return layout


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_a_group_is_no_further_from_its_runs_alone_than_another_batch_shape(
    tmp_path: Path, precision: str
) -> None:
    """Dropout in another shape draws other masks, so only runs without it are compared with that."""
    objects = Objects()
    mixed = {} if precision == "float32" else {precision: True}
    alone, alone_results = trained(
        tmp_path / "alone", group(objects, **mixed), objects, Execution.EXACT
    )
    joint, joint_results = trained(
        tmp_path / "joint", group(objects, **mixed), objects, Execution.FUSED
    )
    shapes = [
        {"pad_to_multiple_of": 128},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2},
    ]
    others = [
        trained(tmp_path / str(number), group(objects, **(mixed | shape)), objects, Execution.EXACT)
        for number, shape in enumerate(shapes)
    ]
    forwards, answered = joint_forwards(joint)
    assert answered >= 2 * forwards > 0, "three train together; only the DPO run has a reference"
    for run_id in alone.state.runs:
        assert len(joint.state.record(run_id).fused_with) == 2
        before = losses(alone, run_id)

        def off(engine: Any) -> float:
            return max(abs(x - y) for x, y in zip(before, losses(engine, run_id), strict=True))  # noqa: B023

        def apart(results: Any) -> float:
            mine, alone = results[run_id], alone_results[run_id]  # noqa: B023
            return half_of_weights_apart(mine["weights"], alone["weights"])

        print(
            precision,
            run_id,
            off(joint),
            [off(e) for e, _ in others],
            apart(joint_results),
            [apart(r) for _, r in others],
        )
        if run_id != WITH_DROPOUT:
            assert off(joint) <= 2 * max(off(engine) for engine, _ in others) + 1e-6
            assert apart(joint_results) <= 2 * max(apart(results) for _, results in others) + 1e-7


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("packs", [False, True])
def test_nothing_waits_for_the_device_inside_a_joint_pass(
    packs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in the forward nor in the backward, of uneven rows with dropout and labels."""
    passes = []

    def watched(name: str) -> None:
        own = getattr(JointModel, name)

        def inside(self: JointModel, *args: Any) -> Any:
            passes.append(name)
            torch.cuda.set_sync_debug_mode("error")
            try:
                return own(self, *args)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        monkeypatch.setattr(JointModel, name, inside)

    watched("pass_together")
    watched("_backward")
    monkeypatch.setattr(foreground, "is_cell_at_work", lambda: False)
    find = RecordedPasses.find

    def found(*args: Any) -> Any:
        torch.cuda.set_sync_debug_mode("default")  # recording waits, once
        try:
            return find(*args)
        finally:
            torch.cuda.set_sync_debug_mode("error")

    monkeypatch.setattr(RecordedPasses, "find", found)
    objects = Objects()
    training = {"bf16": True, "packing": packs, "max_length": 64, "use_cpu": False}
    adapters = [{"r": r, "target_modules": "all-linear", "lora_dropout": 0.1} for r in (8, 16)]
    configs = [
        config("SFT", objects, adapter=adapter, training=training | {"seed": seed})
        for seed, adapter in enumerate(adapters)
    ]
    engine, _ = trained(tmp_path, configs, objects, Execution.FUSED)
    assert {"pass_together", "_backward"} == set(passes)
    forwards, answered = joint_forwards(engine)
    assert answered > forwards > 0
    (model,) = engine.fleet.runner.joint_turns.models.values()  # type: ignore[attr-defined]
    assert forwards > model.counts.replayed > 0


@pytest.mark.parametrize("dtype", ["float32", "bf16"])
def test_replayed_steps_of_a_token_write_what_steps_write(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreground, "is_cell_at_work", lambda: False)
    monkeypatch.setattr(foreground, "_has_thread_at_work", lambda: False)
    monkeypatch.setattr("rf_notebook.training.fused.table._COLUMNS", 64)  # so that they run out
    own, objects = RecordedPasses.repeatable, Objects()
    mixed = {} if dtype == "float32" else {dtype: True}
    configs = [
        config(
            "GRPO",
            objects,
            adapter={"r": 4 * (seed + 1), "target_modules": "all-linear"},
            training={"use_cpu": False, "seed": seed, "max_completion_length": 80, "max_steps": 2}
            | mixed,
        )
        for seed in range(3)
    ]
    written: dict[str, list[tuple[str, ...]]] = {}
    for name, repeatable in {"replayed": own, "usual": lambda *_: None}.items():
        monkeypatch.setattr(RecordedPasses, "repeatable", repeatable)
        engine, _ = trained(tmp_path / name, configs, objects, Execution.FUSED)
        (model,) = engine.fleet.runner.joint_turns.models.values()
        print(name, model.counts)
        assert model.counts.generated > 10
        assert (model.counts.replayed > model.counts.generated / 2) is (name == "replayed")
        written[name] = [
            tuple(one.text for one in event.generations)
            for event in events_of(engine)
            if isinstance(event, SamplesWritten)
        ]
    assert written["replayed"] == written["usual"]
    assert any(any(texts) for texts in written["usual"])


@pytest.mark.parametrize("is_disturbed", [False, True])
@pytest.mark.parametrize(("number", "dropout"), [(1, 0.1), (3, 0.0)])
def test_replayed_passes_are_as_near_as_another_batch_shape(
    number: int,
    dropout: float,
    is_disturbed: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where recording fails, because a thread that nobody knew of waits for the GPU just then."""
    monkeypatch.setattr(foreground, "is_cell_at_work", lambda: False)
    monkeypatch.setattr(foreground, "_has_thread_at_work", lambda: False)
    objects, is_over = Objects(), threading.Event()

    def other_cell() -> None:
        numbers = torch.ones(512, 512, device="cuda")
        while is_disturbed and not is_over.is_set():
            with suppress(RuntimeError):  # what the thread does fails, too
                (numbers @ numbers.clone()).sum().item()
                torch.cuda.synchronize()

    configs = [
        config(
            "SFT",
            objects,
            adapter={"r": 8, "target_modules": "all-linear", "lora_dropout": dropout},
            training={"use_cpu": False, "bf16": True, "num_train_epochs": 4, "seed": seed},
        )
        for seed in range(number)
    ]
    other = threading.Thread(target=other_cell)
    other.start()
    try:
        replayed, replayed_results = trained(
            tmp_path / "replayed", configs, objects, Execution.FUSED
        )
    finally:
        is_over.set()
        other.join()
    monkeypatch.setattr(RecordedPasses, "is_possible", False)
    _, usual_results = trained(tmp_path / "usual", configs, objects, Execution.FUSED)
    _, alone_results = trained(tmp_path / "alone", configs, objects, Execution.EXACT)
    (model,) = replayed.fleet.runner.joint_turns.models.values()
    print(model.counts)
    assert is_disturbed or model.counts.replayed > model.counts.forwards / 2
    for run_id, own in alone_results.items():
        apart, usually = (
            half_of_weights_apart(results[run_id]["weights"], own["weights"])
            for results in (replayed_results, usual_results)
        )
        print(number, dropout, run_id, apart, usually)
        assert apart <= 2 * usually + 1e-7
