"""What needs the process for itself for a moment waits for nobody, and cells that begin wait for it."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from rf_notebook.core import foreground
from rf_notebook.core.foreground import only_waiting, undisturbed, watch_cells


@pytest.fixture
def cell(monkeypatch):
    """Begins a cell in a kernel's shell; the other one ends it."""
    hooks = {}
    shell = SimpleNamespace(events=SimpleNamespace(register=hooks.__setitem__))
    monkeypatch.setattr(foreground, "_watched", set())
    monkeypatch.setattr(foreground, "_counts", {"cells": 0, "waiting": 0})
    ipython = SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(foreground.sys.modules, "IPython", ipython)
    watch_cells()
    hooks["post_run_cell"]()
    return SimpleNamespace(begin=hooks["pre_run_cell"], end=hooks["post_run_cell"])


def test_a_cell_that_begins_meanwhile_starts_afterwards(cell):
    began = threading.Event()
    other = threading.Thread(target=lambda: (cell.begin(), began.set()), daemon=True)
    with undisturbed() as is_quiet:
        assert is_quiet
        other.start()
        assert not began.wait(0.05)
    assert began.wait(10)


def test_so_does_one_that_waited_for_an_experiment(cell):
    cell.begin()
    waits, go, done = threading.Event(), threading.Event(), threading.Event()

    def waiting():
        with only_waiting():
            waits.set()
            go.wait(10)
        done.set()

    threading.Thread(target=waiting, daemon=True).start()
    assert waits.wait(10)
    with undisturbed() as is_quiet:
        assert is_quiet
        go.set()
        assert not done.wait(0.05)
    assert done.wait(10)


def test_nothing_is_held_up_while_a_cell_is_at_work(cell):
    cell.begin()
    with undisturbed() as is_quiet:
        assert not is_quiet
        cell.end()
        cell.begin()


@pytest.mark.parametrize(
    ("name", "daemon", "counts"),
    [("work", False, True), ("rf-engine-1", False, False), ("tqdm", True, False)],
)
@pytest.mark.usefixtures("cell")
def test_a_thread_of_the_user_s_counts_as_a_cell(name, daemon, counts):
    go = threading.Event()
    thread = threading.Thread(target=go.wait, args=(10,), name=name, daemon=daemon)
    thread.start()
    try:
        with undisturbed() as is_quiet:
            assert is_quiet is not counts
    finally:
        go.set()
        thread.join()
