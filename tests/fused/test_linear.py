"""Every way to add the members' updates gives what a loop over the members gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rf_notebook.training.fused import linear
from rf_notebook.training.fused.linear import (
    DropInputs,
    Part,
    Spread,
    StackedLinear,
    Way,
    narrowed_in_pieces,
    way_of,
)

CPU = torch.device("cpu")
ON_GPU = torch.cuda.is_available()
#: Ways, the device and the type each is for, and how near it comes to a loop there.
WAYS = [
    (Way.LOOP, "cpu", torch.float32, 1e-5),
    (Way.BLOCKS, "cpu", torch.float32, 1e-5),
    (Way.GROUPED, "cpu", torch.bfloat16, 0.1),
    *([(Way.LOOP, "cuda", torch.float32, 1e-5)] if ON_GPU else []),
    *([(Way.BLOCKS, "cuda", torch.bfloat16, 0.1)] if ON_GPU else []),
    *([(Way.GROUPED, "cuda", torch.bfloat16, 0.1)] if ON_GPU else []),
]


def made(
    tokens: tuple[int, ...],
    way: Way,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    drops: bool = False,
    start: int | None = None,
) -> Part:
    torch.manual_seed(3)
    options = {"dtype": dtype, "device": device}
    count, total = len(tokens), sum(tokens)
    spread = Spread.of(tokens, torch.device(device))
    scale = torch.rand(count, **options)
    return Part(
        down=torch.randn(count, 8, 32, **options).requires_grad_(),
        up=torch.randn(count, 8, 16, **options).requires_grad_(),
        scale=scale,
        factor=scale[spread.members].unsqueeze(1),
        way=Way.EQUAL if len(set(tokens)) == 1 else way,
        spread=spread,
        kept=torch.rand(total, 32, device=device) > 0.3 if drops else None,
        made_up=torch.rand(total, 1, device=device) + 1 if drops else 1.0,
        start=start,
    )


def reference(base: nn.Module, parts: list[Part], x: torch.Tensor) -> torch.Tensor:
    y = base(x).clone()[0]
    for part in parts:
        begin = token = part.start or 0
        for member, tokens in enumerate(part.spread.tokens):
            mine = slice(token, token + tokens)
            inputs = x[0, mine]
            if part.kept is not None:
                place = slice(token - begin, token - begin + tokens)
                inputs = (inputs * part.kept[place] * part.made_up[place]).to(x.dtype)
            y[mine] += inputs @ part.down[member].T @ part.up[member] * part.scale[member]
            token += tokens
    return y.unsqueeze(0)


@pytest.mark.parametrize(("way", "device", "dtype", "near"), WAYS)
@pytest.mark.parametrize("drops", [False, True])
@pytest.mark.parametrize("start", [None, 5])
@pytest.mark.parametrize("tokens", [(10, 10, 10), (5, 17, 8), (21,)])
def test_a_layer_gives_what_a_loop_gives_and_so_do_its_gradients(
    tokens: tuple[int, ...],
    start: int | None,
    drops: bool,
    way: Way,
    device: str,
    dtype: torch.dtype,
    near: float,
) -> None:
    part = made(tokens, way, device, dtype, drops=drops, start=start)
    more = 0 if start is None else start + 4
    x = torch.randn(1, sum(tokens) + more, 32, device=device, dtype=dtype).requires_grad_()
    base = nn.Linear(32, 16, device=device, dtype=dtype).requires_grad_(False)
    layer = StackedLinear(base)
    assert torch.equal(layer(x), base(x)), "without parts it is the base"
    layer.parts = (part,)
    found, expected = layer(x), reference(base, [part], x)
    size = float(expected.detach().abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=near * size)
    weight = torch.randn_like(expected)
    ours = torch.autograd.grad(found, [x, part.down, part.up], weight)
    theirs = torch.autograd.grad(expected, [x, part.down, part.up], weight)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(
            own, other, rtol=0, atol=near * float(other.detach().abs().max())
        )


def test_blocks_of_other_shapes_share_a_layer() -> None:
    parts = [
        made((5, 5), Way.LOOP, start=0),
        made((10, 6), Way.LOOP, drops=True, start=10),
    ]
    base = nn.Linear(32, 16).requires_grad_(False)
    layer = StackedLinear(base)
    layer.parts = tuple(parts)
    x = torch.randn(1, 30, 32)
    torch.testing.assert_close(layer(x), reference(base, parts, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", [Way.LOOP, Way.BLOCKS])
@pytest.mark.parametrize("tokens", [(10, 10), (4, 16), (16, 4)])
@pytest.mark.parametrize("where", ["weights", "inputs"])
def test_not_a_number_of_one_member_stays_its_own(
    tokens: tuple[int, int], way: Way, where: str
) -> None:
    part = made(tokens, way)
    x = torch.randn(1, 20, 32)
    with torch.no_grad():
        if where == "weights":
            part.down[1] = float("nan")
        else:
            x[0, tokens[0] :] = float("nan")
    layer = StackedLinear(nn.Linear(32, 16).requires_grad_(False))
    layer.parts = (part,)
    out = layer(x)[0]
    assert torch.isfinite(out[: tokens[0]]).all()
    assert torch.isnan(out[tokens[0] :]).all()
    out.nan_to_num(0.0).sum().backward()
    for given in (part.down.grad, part.up.grad):
        assert given is not None
        assert torch.isfinite(given[0]).all()


@pytest.mark.parametrize(("k", "m", "r", "width"), [(4, 8, 16, 2048), (1, 8, 8, 48), (3, 1, 5, 32)])
def test_few_rows_are_multiplied_in_pieces(k: int, m: int, r: int, width: int) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(k, m, width, generator=random, dtype=torch.float64)
    down = torch.randn(k, r, width, generator=random, dtype=torch.float64)
    torch.testing.assert_close(narrowed_in_pieces(x, down), torch.bmm(x, down.mT))
    x[0, 0, 0] = torch.nan
    was_nan = narrowed_in_pieces(x, down).isnan()
    assert was_nan[0, 0].all()
    assert was_nan.sum() == r, "another row got a number that is none"


def test_the_way_is_chosen_by_what_the_device_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, slow = torch.device("cuda", 0), torch.device("cuda", 1)
    monkeypatch.setattr(linear, "_groups_fast", lambda number: number == 0)
    widths = (64, 8, 128)

    def chosen(device: torch.device, *, dtype: torch.dtype = torch.bfloat16) -> Way:
        return way_of([3, 5], dtype, widths, device)

    assert chosen(fast) is Way.GROUPED
    assert chosen(fast, dtype=torch.float32) is Way.BLOCKS
    assert way_of([3, 5], torch.bfloat16, (64, 4, 128), fast) is Way.BLOCKS
    assert chosen(slow) is Way.BLOCKS
    assert chosen(CPU) is Way.LOOP
    assert way_of([4, 4], torch.bfloat16, widths, CPU) is Way.EQUAL
    monkeypatch.setattr(linear, "forced_way", Way.BLOCKS)
    assert chosen(CPU) is Way.BLOCKS


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_dropout_rounds_once_in_both_directions(dtype: torch.dtype) -> None:
    """As torch's own does; autograd's formula for the kernel would round what is raised first."""
    torch.manual_seed(5)
    x = torch.randn(40, 32, dtype=dtype, requires_grad=True)
    gradient, kept = torch.randn(40, 32, dtype=dtype), torch.rand(40, 32) > 0.1
    y: torch.Tensor = DropInputs.apply(x, kept, 1 / 0.95)  # type: ignore[no-untyped-call]
    y.backward(gradient)
    for given, found in ((x.detach(), y), (gradient, x.grad)):
        assert found is not None
        assert torch.equal(found, (given.float() * kept * (1 / 0.95)).to(dtype))
