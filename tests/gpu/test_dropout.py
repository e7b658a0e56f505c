"""On a GPU: masks of dropout that are computed from counters are those that torch draws."""

from __future__ import annotations

import pytest
import torch

from rf_notebook.training.fused import dropout
from rf_notebook.training.fused.dropout import Counted, Dropouts, Layer, masks_at

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU; nothing of it can happen on a CPU"
)
LAYERS = [("q", 64, 0.05), ("k", 64, 0.1), ("down", 4096, 0.3), ("v", 2048, 0.0001)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (4, 417), (8, 1024)])
def test_counted_masks_are_those_of_torch(
    shape: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = torch.device("cuda", 0)
    layers = [Layer(name, width, dtype, dropped) for name, width, dropped in LAYERS]
    torch.manual_seed(2**63 + 11)
    torch.rand(5, device=device)
    begin = torch.cuda.get_rng_state()
    counted = Dropouts(layers, device).draw(shape)
    after = torch.rand(3, device=device)
    assert isinstance(counted, Counted)
    torch.cuda.set_rng_state(begin)
    with monkeypatch.context() as patched:
        patched.setattr(dropout, "_wide", lambda *_: None)
        plain = Dropouts(layers, device).draw(shape)
    assert torch.equal(after, torch.rand(3, device=device)), "the stream ends where it would"
    assert counted.keys() == plain.keys()
    for name, mask in plain.items():
        assert torch.equal(counted[name], mask)


def test_masks_of_several_runs_at_once() -> None:
    device = torch.device("cuda", 0)
    torch.manual_seed(3)
    some = [Layer(name, width, torch.float32, share) for name, width, share in LAYERS]
    first = Dropouts(some, device).draw((3, 50))
    third = Dropouts(some[1:], device).draw((2, 9))
    assert isinstance(first, Counted)
    assert isinstance(third, Counted)
    places = torch.tensor([140, 3, 0, 1, 2, 17, 0], device=device)
    owners = torch.tensor([0, 0, 1, 1, 2, 2, 2], device=device)
    masks = masks_at([first, None, third], [name for name, *_ in LAYERS], places, owners)
    for name, width, _ in LAYERS:
        assert torch.equal(masks[name][:2], first[name].view(-1, width)[places[:2]])
        assert masks[name][2:4].all()
        own = third[name].view(-1, width)[places[4:]] if name in third else masks[name][4:] | True
        assert torch.equal(masks[name][4:], own)
