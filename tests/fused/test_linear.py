"""Every way to add the members' updates gives what a loop over the members gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rf_notebook.training.fused import linear
from rf_notebook.training.fused.linear import Part, StackedLinear

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def made(
    rows: tuple[int, ...], device: str, dtype: torch.dtype, *, drops: bool = False, start: int = 0
) -> Part:
    torch.manual_seed(3)
    options = {"dtype": dtype, "device": device}
    count, total = len(rows), sum(rows)
    return Part(
        start=start,
        stop=start + total,
        rows=rows,
        down=torch.randn(count, 8, 32, **options).requires_grad_(),
        up=torch.randn(count, 16, 8, **options).requires_grad_(),
        scale=torch.rand(count, 1, 1, **options),
        kept=torch.rand(total, 5, 32, device=device) > 0.3 if drops else None,
        made_up=torch.rand(total, 1, 1, device=device) + 1 if drops else None,
    )


def reference(base: nn.Module, parts: list[Part], x: torch.Tensor) -> torch.Tensor:
    y = base(x).clone()
    for part in parts:
        row = part.start
        for member, rows in enumerate(part.rows):
            mine = slice(row, row + rows)
            inputs = x[mine]
            if part.kept is not None:
                place = slice(row - part.start, row - part.start + rows)
                inputs = inputs * part.kept[place] * part.made_up[place]
            y[mine] += inputs @ part.down[member].T * part.scale[member] @ part.up[member].T
            row += rows
    return y


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("rows", [(2, 2, 2), (1, 3, 2), (4,)])
def test_a_layer_gives_what_a_loop_gives_and_so_do_its_gradients(
    rows: tuple[int, ...], drops: bool, device: str
) -> None:
    part = made(rows, device, torch.float32, drops=drops, start=1)
    x = torch.randn(sum(rows) + 2, 5, 32, device=device).requires_grad_()
    base = nn.Linear(32, 16, device=device).requires_grad_(False)
    layer = StackedLinear(base)
    assert torch.equal(layer(x), base(x)), "without parts it is the base"
    layer.parts = (part,)
    found, expected = layer(x), reference(base, [part], x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn_like(expected)
    ours = torch.autograd.grad(found, [x, part.down, part.up], weight)
    theirs = torch.autograd.grad(expected, [x, part.down, part.up], weight)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_blocks_of_other_shapes_share_a_layer() -> None:
    parts = [
        made((1, 1), "cpu", torch.float32),
        made((2, 1), "cpu", torch.float32, drops=True, start=2),
    ]
    base = nn.Linear(32, 16).requires_grad_(False)
    layer = StackedLinear(base)
    layer.parts = tuple(parts)
    x = torch.randn(6, 5, 32)
    torch.testing.assert_close(layer(x), reference(base, parts, x), rtol=1e-5, atol=1e-5)


def test_not_a_number_of_one_member_stays_its_own() -> None:
    part = made((2, 2), "cpu", torch.float32)
    with torch.no_grad():
        part.down[1] = float("nan")
    layer = StackedLinear(nn.Linear(32, 16).requires_grad_(False))
    layer.parts = (part,)
    out = layer(torch.randn(4, 5, 32))
    assert torch.isfinite(out[:2]).all()
    assert torch.isnan(out[2:]).all()
    out[:2].sum().backward()
    assert part.down.grad is not None
    assert torch.isfinite(part.down.grad[0]).all()


@pytest.mark.skipif("cuda" not in DEVICES, reason="grouped_mm in bfloat16 is for GPUs")
def test_grouped_products_are_chosen_for_ragged_rows_on_a_gpu_and_give_the_same() -> None:
    part = made((1, 3, 2), "cuda", torch.bfloat16)
    x, y = (
        torch.randn(6, 5, 32, device="cuda").bfloat16(),
        torch.zeros(6, 5, 16, device="cuda").bfloat16(),
    )
    assert linear.can_group(x, part.down, part.up)
    tokens = [rows * 5 for rows in part.rows]
    grouped = linear.grouped(x, y, part.down, part.up, part.scale, tokens)
    single = linear.one_by_one(x, y, part.down, part.up, part.scale, part.rows)
    torch.testing.assert_close(grouped, single, rtol=2e-2, atol=2e-1)
