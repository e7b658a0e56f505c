"""Runs in joint steps give what they give alone, up to the rounding of another order of sums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch

from rf_notebook.core.events import ChunkTrained
from rf_notebook.core.objects import Objects
from rf_notebook.core.run import RunConfig, RunState
from rf_notebook.planning.fusion import Execution
from tests.exactness.harness import events_of, turn_all
from tests.fused.world import config, engine_over, figures, joint_forwards, mixed_group
from tests.thorough import few

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("layout")]


def trained(
    folder: Path, configs: list[RunConfig], objects: Objects, execution: Execution
) -> tuple[Any, Any]:
    engine = engine_over(folder, configs, objects, execution)
    turn_all(engine)
    for record in engine.state.runs.values():
        assert record.state is RunState.COMPLETED, record.failure and record.failure.traceback
    return engine, engine.fleet.runner.results  # type: ignore[attr-defined]


def micro_steps(engine: Any) -> list[int]:
    records = engine.state.runs.values()
    return [
        r.progress.steps * r.config.training.get("gradient_accumulation_steps", 1) for r in records
    ]


def company(engine: Any, run_id: int) -> list[tuple[int, ...]]:
    """With whom a run trained, turn by turn."""
    return [
        e.fused_with
        for e in events_of(engine)
        if isinstance(e, ChunkTrained) and e.run_id == run_id
    ]


def weights_apart(ours: dict[str, torch.Tensor], alone: dict[str, torch.Tensor]) -> float:
    assert ours.keys() == alone.keys()
    return max((ours[name] - alone[name]).abs().max().item() for name in alone)


def losses(engine: Any, run_id: int) -> list[float]:
    return [metrics["loss"] for _, metrics in figures(engine, run_id) if "loss" in metrics]


@pytest.mark.parametrize("seed", few(3, range(10)))
def test_mixed_groups_in_float32(seed: int, layout: str, tmp_path: Path) -> None:
    objects = Objects()
    configs = mixed_group(seed, objects, packs=layout == "packed")
    alone, alone_results = trained(tmp_path / "alone", configs, objects, Execution.EXACT)
    joint, joint_results = trained(tmp_path / "joint", configs, objects, Execution.FUSED)
    for run_id, record in joint.state.runs.items():
        assert tuple(other for other in joint.state.runs if other != run_id) in company(
            joint, run_id
        )
        assert record.alone_because == ""
        assert record.own_bytes == pytest.approx(alone.state.record(run_id).own_bytes, rel=0.1)
        before, now = losses(alone, run_id), losses(joint, run_id)
        assert len(now) == len(before)
        # GRPO's loss is a sum of advantages of about one that cancel; all others are of their own
        # size.
        scale = 1.0 if record.config.method == "GRPO" else 0.0
        assert all(
            abs(x - y) <= 1e-6 * max(abs(x), scale) for x, y in zip(before, now, strict=True)
        )
        assert (
            weights_apart(joint_results[run_id]["weights"], alone_results[run_id]["weights"])
            <= 5e-6
        )
    forwards, answered = joint_forwards(joint)
    assert answered > 1.5 * forwards, "groups were really joint"
    assert answered > 0.8 * sum(micro_steps(joint)), (
        "and nearly all that was trained, was trained so"
    )


def test_all_metrics_of_a_group_are_those_of_its_runs_alone(tmp_path: Path) -> None:
    objects = Objects()
    configs = [
        config(
            method,
            objects,
            adapter={"lora_dropout": 0.1},
            training={"seed": seed, "logging_steps": 3, "per_device_train_batch_size": 4},
        )
        for seed, method in enumerate(["SFT", "SFT", "DPO", "KTO", "GRPO", "RLOO"])
    ]
    alone, _ = trained(tmp_path / "alone", configs, objects, Execution.EXACT)
    joint, _ = trained(tmp_path / "joint", configs, objects, Execution.FUSED)
    for run_id in alone.state.runs:
        for (step, before), (at, now) in zip(
            figures(alone, run_id), figures(joint, run_id), strict=True
        ):
            assert (step, before.keys()) == (at, now.keys())
            assert now == pytest.approx(before, rel=2e-5, abs=2e-6)
            assert now.get("num_tokens") == before.get("num_tokens")


def test_runs_that_generate_share_a_forward_a_token_and_draw_from_their_own_streams(
    tmp_path: Path,
) -> None:
    objects = Objects()
    # With dropout a run keeps transformers' own decoding, whose backbone is joint, too.
    settings = [
        (0.0, 1.0, 0.0, 6),
        (0.1, 0.7, 0.05, 8),
        (0.0, 1.3, 0.1, 8),
        (0.1, 1.1, 0.0, 7),
    ]
    configs = [
        config(
            "GRPO",
            objects,
            adapter={"r": 4 + 2 * seed, "lora_dropout": drops},
            training={
                "seed": seed,
                "temperature": heat,
                "beta": beta,
                "max_completion_length": most,
                "max_steps": 12,
            },
        )
        for seed, (drops, heat, beta, most) in enumerate(settings)
    ]
    alone, alone_results = trained(tmp_path / "alone", configs, objects, Execution.EXACT)
    joint, joint_results = trained(tmp_path / "joint", configs, objects, Execution.FUSED)
    (model,) = joint.fleet.runner.joint_turns.models.values()
    assert model.counts.generated_for > 1.5 * model.counts.generated > 0
    for run_id in alone.state.runs:
        assert (
            weights_apart(joint_results[run_id]["weights"], alone_results[run_id]["weights"])
            <= 5e-6
        )
        for (step, before), (at, now) in zip(
            figures(alone, run_id), figures(joint, run_id), strict=True
        ):
            assert (step, now) == (at, pytest.approx(before, rel=1e-5, abs=1e-6))


#: Other shapes of a run's batches, which round otherwise. Padded joint batches take the kernels that
#: a run takes alone; packed ones take others, as smaller batches do.
_SHAPES: dict[str, list[dict[str, Any]]] = {
    "padded": [{"pad_to_multiple_of": 128}],
    "packed": [
        {"pad_to_multiple_of": 128},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2},
    ],
}


def no_further_than_another_shape(
    tmp_path: Path, layout: str, methods: list[str], training: dict[str, Any]
) -> Any:
    """Compare a group with its runs alone, and those with other batch shapes.

    Returns the joint engine.

    The furthest weight is often one whose first gradient is nothing but rounding: Adam's first
    steps are as large as the learning rate whatever the gradient, and any other order of sums may
    take such a weight the other way. So the weights are no further than twice what another shape
    takes them, not within an absolute bound.
    """
    objects = Objects()

    def configs(**more: Any) -> list[RunConfig]:
        given = (
            {"per_device_train_batch_size": 2, "num_train_epochs": 2, "max_length": 64}
            | training
            | more
        )
        adapters = [{"r": r, "target_modules": "all-linear"} for r in (4, 8, 8, 16)]
        return [
            config(method, objects, adapter=adapter, training=given | {"seed": seed})
            for seed, (method, adapter) in enumerate(zip(methods, adapters, strict=True))
        ]

    alone, alone_results = trained(tmp_path / "alone", configs(), objects, Execution.EXACT)
    joint, joint_results = trained(tmp_path / "joint", configs(), objects, Execution.FUSED)
    others = [
        trained(tmp_path / str(number), configs(**shape), objects, Execution.EXACT)
        for number, shape in enumerate(_SHAPES[layout])
    ]
    for run_id in alone.state.runs:
        assert joint.state.record(run_id).fused_with
        before, weights = losses(alone, run_id), alone_results[run_id]["weights"]

        def off(engine: Any) -> float:
            return max(abs(x - y) for x, y in zip(before, losses(engine, run_id), strict=True))  # noqa: B023

        def apart(results: Any) -> float:
            return weights_apart(results[run_id]["weights"], weights)  # noqa: B023

        by_shape = max(off(engine) for engine, _ in others)
        assert off(joint) <= 2 * by_shape, (off(joint), by_shape)
        by_shape = max(apart(results) for _, results in others)
        assert apart(joint_results) <= 2 * by_shape, (apart(joint_results), by_shape)
    return joint


def test_groups_in_bfloat16_are_no_further_from_alone_than_another_shape(
    layout: str, tmp_path: Path
) -> None:
    no_further_than_another_shape(tmp_path, layout, ["SFT"] * 4, {"bf16": True})


def test_groups_in_float16_are_no_further_from_alone_than_another_shape(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accelerate casts to float16 on GPUs alone.

    Here its accelerators are made to on the CPU, with torch's scaler.
    """
    made, updates = accelerate.Accelerator.__init__, []

    def make(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        assert self.state.mixed_precision == "fp16"
        self.native_amp, self.scaler = True, torch.amp.GradScaler("cpu")
        update = self.scaler.update
        self.scaler.update = lambda: (updates.append(self.scaler.get_scale()), update())

    monkeypatch.setattr(accelerate.Accelerator, "__init__", make)
    methods = ["SFT", "SFT", "SFT", "DPO"]
    joint = no_further_than_another_shape(tmp_path, layout, methods, {"fp16": True})
    steps = sum(record.progress.steps for record in joint.state.runs.values())
    assert len(updates) == (2 + len(_SHAPES[layout])) * steps
    assert min(updates) > 1, "gradients were scaled"
    forwards, answered = joint_forwards(joint)
    assert answered > 2 * forwards > 0, "four train together; only the DPO run has a reference"


@pytest.mark.filterwarnings("ignore:`label_smoothing_factor` is deprecated:FutureWarning")
def test_a_plain_loss_function_s_logits_come_from_a_joint_backbone(tmp_path: Path) -> None:
    objects = Objects()
    configs = [
        config("SFT", objects, adapter={}, training={"seed": seed, "label_smoothing_factor": 0.1})
        for seed in range(3)
    ]
    alone, alone_results = trained(tmp_path / "alone", configs, objects, Execution.EXACT)
    joint, joint_results = trained(tmp_path / "joint", configs, objects, Execution.FUSED)
    forwards, answered = joint_forwards(joint)
    assert answered == 3 * forwards > 0
    for run_id in alone.state.runs:
        assert losses(joint, run_id) == pytest.approx(losses(alone, run_id), rel=1e-6)
        assert (
            weights_apart(joint_results[run_id]["weights"], alone_results[run_id]["weights"])
            <= 5e-6
        )


def test_a_lone_run_trains_in_joint_steps_too_unless_it_generates(tmp_path: Path) -> None:
    for method, is_joint in (("SFT", True), ("DPO", True), ("GRPO", False)):
        objects = Objects()
        configs = [config(method, objects, adapter={"lora_dropout": 0.1}, training={"seed": 3})]
        alone, alone_results = trained(
            tmp_path / method / "alone", configs, objects, Execution.EXACT
        )
        joint, joint_results = trained(
            tmp_path / method / "joint", configs, objects, Execution.FUSED
        )
        record = joint.state.record(1)
        assert (record.is_joint, record.fused_with, record.alone_because) == (is_joint, (), "")
        assert losses(joint, 1) == pytest.approx(losses(alone, 1), rel=1e-6)
        weights = alone_results[1]["weights"]
        assert weights_apart(joint_results[1]["weights"], weights) <= 5e-6


def test_packed_rows_train_jointly_where_batches_are_packed(layout: str, tmp_path: Path) -> None:
    objects = Objects()
    training = {"packing": True, "max_length": 32, "per_device_train_batch_size": 1}
    configs = [
        config("SFT", objects, adapter={"r": r}, training=training | {"seed": r}) for r in (4, 8)
    ]
    joint, _ = trained(tmp_path, configs, objects, Execution.FUSED)
    for record in joint.state.runs.values():
        if layout == "packed":
            assert record.fused_with
        else:
            assert record.alone_because == (
                "packing puts several rows into one, and the base model's rows cannot be packed "
                "jointly: the test says so"
            )


def test_those_that_cannot_train_alone_beside_a_group_exactly(tmp_path: Path) -> None:
    objects = Objects()
    configs = [
        config("SFT", objects, adapter={"lora_dropout": 0.1}, training={"seed": 1}),
        config("SFT", objects, adapter={"use_dora": True}, training={"seed": 2}),
        config("SFT", objects, adapter={"r": 4}, training={"seed": 3}),
        config("SFT", objects, adapter={"init_lora_weights": "pissa"}, training={"seed": 4}),
        config("SFT", objects, adapter={"modules_to_save": ["lm_head"]}, training={"seed": 5}),
    ]
    alone, alone_results = trained(tmp_path / "alone", configs, objects, Execution.EXACT)
    joint, joint_results = trained(tmp_path / "joint", configs, objects, Execution.FUSED)
    records = joint.state.runs
    assert (records[1].fused_with, records[3].fused_with) == ((3,), (1,))
    assert records[2].alone_because == "DoRA scales the base weights by its own"
    assert records[4].alone_because == "init_lora_weights='pissa' gives it base weights of its own"
    assert records[5].alone_because == "modules_to_save trains copies of whole modules"
    for run_id in (2, 4, 5):
        assert figures(joint, run_id) == figures(alone, run_id)
        assert (
            weights_apart(joint_results[run_id]["weights"], alone_results[run_id]["weights"]) == 0.0
        )
