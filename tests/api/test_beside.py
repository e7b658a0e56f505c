"""What is said of two experiments in one folder."""

from __future__ import annotations

import pytest

from rf_notebook import ConfigError
from tests.api.world import fit, two


def test_an_experiment_is_told_in_what_it_differs_from_one_beside_it(new):
    fit(new("first"), two(weight_decay=0.1)).end()
    second = fit(new("second"), two(weight_decay=0.2), num_chunks=2)
    second.end()
    commands = second._commands  # noqa: SLF001 - as its panel has them
    assert commands.names_beside() == ["first"]
    found = {
        (one.part, one.what): (one.first, one.second) for one in commands.differences_from("first")
    }
    assert found["configs", "run 1: training_args.weight_decay"] == ("0.2", "0.1")
    assert found["configs", "num_chunks"][0] == "2"
    with pytest.raises(ConfigError, match="no experiment 'third' is recorded in"):
        commands.differences_from("third")
    with pytest.raises(ConfigError, match=r"no experiment '\.\./first' is recorded in"):
        commands.differences_from("../first")
