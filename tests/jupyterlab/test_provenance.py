"""Digests of what an experiment was made from."""

from __future__ import annotations

from dataclasses import replace

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from rf_notebook.core.events import RunAdded
from rf_notebook.session.cells import source_digest, sources_now, spec_digest
from rf_notebook.testing.fake_session import config, recorded_state, started


def state(*, more=(), **changes):
    added = [
        RunAdded(run_id=1, config=config()),
        RunAdded(run_id=2, config=config(learning_rate=1e-4)),
    ]
    return recorded_state([replace(started(), **changes), *added, *more])


def test_the_same_request_has_the_same_digest_whatever_its_name():
    assert spec_digest(state()) == spec_digest(state(name="other", identity="f" * 32))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2},
        {"num_chunks": 5},
        {"data_seed": 1},
        {"versions": {"trl": "2"}},
        {"data": {"train": 1}},
    ],
)
def test_another_request_has_another(changes):
    assert spec_digest(state(**changes)) != spec_digest(state())


def test_clones_are_no_part_of_it_and_further_configs_are():
    clone = RunAdded(run_id=3, config=config(r=4), parent_id=1, edits={"peft_config.r": 4})
    further = RunAdded(run_id=3, config=config(r=4))
    assert spec_digest(state(more=[clone])) == spec_digest(state())
    assert spec_digest(state(more=[further])) != spec_digest(state())


def test_nothing_recorded_has_none():
    assert spec_digest(recorded_state([])) is None


def test_the_cells_that_were_run_are_those_before_and_the_running_one(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    InteractiveShell.clear_instance()
    settings = Config()
    settings.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=settings)
    try:
        assert sources_now() is None
        cells = [
            "a = 1\n",
            "a = 2",
            "from rf_notebook.session.cells import sources_now\nfound = sources_now()\n\n",
        ]
        for cell in cells:
            shell.run_cell(cell, store_history=True)
        found = shell.user_ns["found"]
        assert found.ran == tuple(source_digest(cell) for cell in cells)
        assert found.launch == source_digest(cells[-1])
    finally:
        InteractiveShell.clear_instance()
