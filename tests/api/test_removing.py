"""A recorded experiment is removed from the disk."""

from __future__ import annotations

import pytest

from rf_notebook import ConfigError, Experiment, IllegalOperation
from tests.api.world import fit, two


def test_a_recorded_experiment_is_removed_and_another_of_its_name_begins_anew(new):
    experiment = fit(new(), two(num_train_epochs=30))
    parent = experiment.folder.parent
    with pytest.raises(IllegalOperation, match="is open for training here; end it first"):
        Experiment.remove("test", parent)
    experiment.end(cancel=True)
    with pytest.raises(ConfigError, match="no experiment 'tset' is recorded here; there are: test"):
        Experiment.remove("tset", parent)
    Experiment.remove("test", parent)
    assert not experiment.folder.exists()
    again = new()
    assert again.runs == []
    fit(again, two()).end()
    assert len(again.runs) == 2
