"""When compiling is worth it."""

import logging

import pytest
import torch
from torch import nn

from rf_notebook.training.fused import compiled
from rf_notebook.training.fused.compiled import CompiledLayers


class Layer(nn.Linear):
    """A decoder layer, as far as compiling goes."""


class Tree(nn.Module):
    _no_split_modules = ("Layer",)


@pytest.fixture
def layers(monkeypatch):
    backbone = nn.Sequential(Layer(2, 2), Layer(2, 2))
    made = CompiledLayers(Tree(), backbone, logging.getLogger("test"))
    monkeypatch.setattr(made, "_is_possible", True)
    made.now = 0.0
    monkeypatch.setattr(compiled.time, "perf_counter", lambda: made.now)
    return made


def forwards(layers, seconds, shape="packed"):
    for gap in seconds:
        layers.now += gap
        layers.choose(shape, is_dynamic=True)


def test_many_slow_forwards_to_come_are_compiled_once_some_were_timed(layers):
    layers.forwards_left = 1000
    forwards(layers, [0.5] * 7)
    assert not layers.is_on
    forwards(layers, [0.5])
    assert layers.is_on


def sized(layers, sizes, count=1):
    """How the last of so many packed batches is computed: eagerly, for these sizes or for any."""
    for _ in range(count):
        layers.now += 0.5
        layers.choose("packed", is_dynamic=True, sizes=sizes)
    return None if not layers.is_on else "any" if layers.is_dynamic else "own"


def test_batches_of_equal_sizes_have_a_program_of_their_own(layers):
    layers.forwards_left = 1000
    assert sized(layers, 512, 7) is None
    assert sized(layers, 512) == "own"
    assert sized(layers, 96) is None, "an evaluation, or the last batch of a pass"
    assert sized(layers, 512) == "own"
    assert sized(layers, 96, 60) == "any", "once many of other sizes have come"
    assert sized(layers, 97) == "any"
    assert sized(layers, 512) == "own"


def test_batches_of_several_sizes_share_one(layers):
    layers.forwards_left = 1000
    for sizes in range(7):
        assert sized(layers, sizes) is None
    assert sized(layers, 0) == "any", "all count"
    assert sized(layers, 7) == "any"


def test_few_forwards_to_come_are_not(layers):
    layers.forwards_left = 100
    forwards(layers, [0.5] * 50)
    assert not layers.is_on


def test_an_evaluation_or_a_checkpoint_in_between_does_not_count(layers):
    layers.forwards_left = 500
    forwards(layers, [0.1] * 30 + [40.0] + [0.1] * 30)
    assert not layers.is_on


def test_each_shape_counts_by_its_share(layers):
    layers.forwards_left = 600
    for _ in range(20):
        forwards(layers, [0.2], "seldom")
        forwards(layers, [0.2] * 9, "often")
    assert layers.is_on
    forwards(layers, [0.2], "seldom")
    assert not layers.is_on


@pytest.mark.parametrize(
    ("is_on", "has_backward", "asks"),
    [(True, True, True), (True, False, False), (False, True, False)],
)
def test_one_program_serves_the_first_layer_and_the_others(is_on, has_backward, asks):
    class Model(Tree):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(3, 2).requires_grad_(False)

        def get_input_embeddings(self):
            return self.words

    model = Model()
    layers = CompiledLayers(model, nn.Sequential(Layer(2, 2)), logging.getLogger("test"))
    layers.is_on = is_on
    with torch.set_grad_enabled(has_backward):
        embedded = model.words(torch.tensor([0, 2]))
    assert embedded.requires_grad is asks
