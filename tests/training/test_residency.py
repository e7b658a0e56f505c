"""Weights that go and come back.

The objects stay, storage that was shared is shared again, values are the same.
"""

from __future__ import annotations

import torch

from rf_notebook.testing.tiny import tiny_model
from rf_notebook.training.base_models import tree_clone
from rf_notebook.training.residency import Mover, storage_of, tensors_of

CPU = torch.device("cpu")


def test_a_base_and_its_clones_move_together_and_share_again():
    base = tiny_model()
    clones = [tree_clone(base), tree_clone(base)]
    ids = torch.arange(5, 20)[None]
    expected = base(ids).logits
    tensors = [tensor for model in (base, *clones) for tensor in tensors_of(model)]
    before = {storage_of(tensor) for tensor in tensors}
    objects = [id(p) for p in clones[0].parameters()]
    mover = Mover()
    assert mover.out(tensors, CPU, CPU) == sum(
        p.numel() * 4 for p in (*base.parameters(), *base.buffers())
    )
    away = {storage_of(tensor) for tensor in tensors}
    assert mover.is_away
    assert len(away) == len(before)
    assert mover.back(CPU) > 0
    assert not mover.is_away
    for clone in clones:
        assert {storage_of(t) for t in tensors_of(clone)} == {
            storage_of(t) for t in tensors_of(base)
        }
        assert torch.equal(clone(ids).logits, expected)
    assert [id(p) for p in clones[0].parameters()] == objects


def test_an_optimizer_goes_on_with_tensors_that_were_away():
    def train(moves):
        torch.manual_seed(0)
        layer = torch.nn.Linear(4, 4)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
        mover = Mover()
        for step in range(6):
            if moves and step % 2:
                state = [
                    v
                    for values in optimizer.state.values()
                    for v in values.values()
                    if torch.is_tensor(v)
                ]
                mover.out([*layer.parameters(), *state], CPU, CPU)
                mover.back(CPU)
            layer(torch.ones(2, 4)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return layer.weight.detach().clone()

    assert torch.equal(train(moves=True), train(moves=False))


def test_views_of_one_storage_keep_their_offsets_and_strides():
    whole = torch.arange(12.0)
    row, column = whole[4:8], whole.view(3, 4)[:, 1]
    mover = Mover()
    mover.out([whole, row, column], CPU, CPU)
    whole[5] = 100.0
    assert row.tolist() == [4.0, 100.0, 6.0, 7.0]
    assert column.tolist() == [1.0, 100.0, 9.0]
    mover.back(CPU)
    whole[5] = 7.0
    assert row[1] == column[1] == 7.0
