"""Notebooks of others, changed at random: what the campaign does for longer."""

from __future__ import annotations

import random

import pytest

from tests.campaign.notebooks import Notebooks


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory):
    return Notebooks(tmp_path_factory.mktemp("notebooks"))


@pytest.mark.parametrize("seed", range(3))
def test_they_are_refused_or_read_and_nothing_hides_or_is_written(notebooks, seed):
    for number in range(20):
        assert not notebooks.attempt(random.Random(f"{seed}/{number}"))
