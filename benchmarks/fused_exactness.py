"""How far from turns do joint steps end, next to what other paddings and batches do?"""

from __future__ import annotations

import os
import statistics
from typing import Any
from unittest import mock

import datasets
import torch

from benchmarks.common import ON_GPU, llama
from benchmarks.fused import Shape, engine_of, rows_of
from benchmarks.report import Report
from rf_notebook.engine.turns import Idle
from rf_notebook.planning.fusion import Execution
from rf_notebook.training.fused import linear


def measure_exactness(report: Report) -> None:
    """How far do runs end from plain TRL in joint steps, and after a changed batch shape alone?

    A joint step changes the shape of every matrix product, and with it the kernels and the order of
    their sums. So do four changes in plain TRL that leave the mathematics alone: rows padded until
    a step has as many tokens as a joint step has, a batch that is done in micro-steps of one row, a
    batch that is laid out as one long row, and a batch as large as the joint step's, in which each
    row is repeated. Rows come in their order. Weights whose first gradients are rounding alone are
    taken up or down by chance by Adam's first steps: they are what maximum and root mean square
    tell of, the median tells of the others. RF_BENCH_ONLY measures cases that begin so.
    """
    base = llama().float() if ON_GPU else llama()
    length = 256 if ON_GPU else 64
    small, large = Shape(4, 2, length), Shape(4, 8, length)
    cases = [("float32", small), ("bfloat16", small), *([("bfloat16", large)] if ON_GPU else [])]
    only = os.environ.get("RF_BENCH_ONLY", "")
    in_float32: list[list[float]] = []
    for dtype, shape in cases:
        case = f"{dtype}, {shape}"
        if not case.startswith(only):
            continue
        base = base.to(getattr(torch, dtype))
        plain, ends = _ends(base, shape, dtype)
        if dtype == "float32":
            in_float32 = plain[0]  # of the same weights, which are numbers of bfloat16
        elif shape == small and in_float32:
            for way, found in (("in turns", plain), ("in joint steps", ends["in joint steps"])):
                off = statistics.mean(_apart(in_float32, found[0]))
                report.row(
                    f"{case}, {way}: losses off those in float32 by, mean", off, "of themselves"
                )
        for way, found in ends.items():
            losses = _apart(plain[0], found[0])
            apart = [(a - b).abs() for a, b in zip(plain[1], found[1], strict=True)]
            moved = [
                (a.square().mean().sqrt(), b.square().mean().sqrt())
                for a, b in zip(apart, plain[1], strict=True)
            ]
            report.row(f"{case}, {way}: losses off by at most", max(losses), "of themselves")
            report.row(
                f"{case}, {way}: losses off by, mean", statistics.mean(losses), "of themselves"
            )
            report.row(
                f"{case}, {way}: final weights off by at most",
                max(one.max().item() for one in apart),
                "",
            )
            halves = max(
                (off.median() / b.square().mean().sqrt()).item()
                for off, b in zip(apart, plain[1], strict=True)
            )
            report.row(
                f"{case}, {way}: half of the final weights off by at most",
                halves,
                "of their root mean square",
            )
            report.row(
                f"{case}, {way}: final weights off by, root mean square",
                max((off / size).item() for off, size in moved),
                "of theirs",
            )
    report.conditions = {"steps": _STEPS, "learning rates": "1e-4 to 4e-4", "reference": "in turns"}


#: Losses of each run, step by step, and its final weights.
_End = tuple[list[list[float]], list[torch.Tensor]]
_STEPS = 12


def _ends(base: Any, shape: Shape, dtype: str) -> tuple[_End, dict[str, _End]]:
    """What runs in turns give, and what changed steps give.

    The first equals plain TRL bit for bit (tests/exactness).
    """
    rows = rows_of(shape.length, 64)
    changed: dict[str, dict[str, Any]] = {
        "rows padded to as many tokens as a joint step has": {
            "pad_to_multiple_of": shape.length * shape.configs
        },
        "its batch in micro-steps of one row": {
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": shape.batch,
        },
        "the rows of its batch in one row": {"padding_free": True, "max_length": None},
    }
    mixed = {"bf16": dtype == "bfloat16", "train_sampling_strategy": "sequential"}
    plain = _end(base, rows, shape, Execution.EXACT, **mixed)
    ends = {"in joint steps": _end(base, rows, shape, Execution.FUSED, **mixed)}
    with mock.patch.object(linear, "_batched", _one_by_one):
        ends["in joint steps, one product a run"] = _end(
            base, rows, shape, Execution.FUSED, **mixed
        )
    for what, more in changed.items():
        ends[f"in turns, {what}"] = _end(base, rows, shape, Execution.EXACT, **mixed, **more)
    as_large = {"per_device_train_batch_size": shape.batch * shape.configs}
    repeated = _end(base, _repeated(rows, shape), shape, Execution.EXACT, **mixed, **as_large)
    ends["in turns, each row repeated in a batch as large as a joint step"] = repeated
    return plain, ends


def _one_by_one(x: Any, y: Any, down: Any, up: Any, scale: Any) -> Any:
    """In place of one batched product over all runs."""
    return linear._one_by_one(x, y, down, up, scale, [x.shape[0] // down.shape[0]] * down.shape[0])  # noqa: SLF001 - what is measured


def _repeated(rows: datasets.Dataset, shape: Shape) -> datasets.Dataset:
    """Each batch so many times in succession that it has as many rows as a joint step has.

    The mean is the same.
    """
    batches = [
        range(start, min(start + shape.batch, len(rows)))
        for start in range(0, len(rows), shape.batch)
    ]
    return rows.select(
        [place for batch in batches for _ in range(shape.configs) for place in batch]
    )


def _apart(reference: list[list[float]], found: list[list[float]]) -> list[float]:
    """How far losses are off, of themselves."""
    pairs = [pair for a, b in zip(reference, found, strict=True) for pair in zip(a, b, strict=True)]
    return [abs(x - y) / abs(x) for x, y in pairs]


def _end(base: Any, rows: Any, shape: Shape, execution: Execution, **more: Any) -> _End:
    """The losses and the final weights of each run."""
    weights: dict[int, torch.Tensor] = {}
    with engine_of(
        base, rows, shape, steps=_STEPS, execution=execution, logging_steps=1, **more
    ) as (engine, runner):
        release = runner.release

        def released(run_id: int) -> None:
            held = runner.runs.get(run_id)
            if held is not None:
                trained = [
                    p.detach().float().cpu().flatten()
                    for p in held.trainer.model.parameters()
                    if p.requires_grad
                ]
                weights[run_id] = torch.cat(trained)
            release(run_id)

        runner.release = released  # type: ignore[method-assign]
        while not isinstance(engine.turn(), Idle):
            pass
        points = [list(record.all_points()) for record in engine.state.runs.values()]
        assert all(
            bool(r.fused_with) == (execution is Execution.FUSED) for r in engine.state.runs.values()
        )
    losses = [
        [point.metrics["loss"] for point in of_run if "loss" in point.metrics] for of_run in points
    ]
    return losses, [weights[run_id] for run_id in sorted(weights)]
