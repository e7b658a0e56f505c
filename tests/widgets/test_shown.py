"""One notion of shown runs: table, charts, pages, selection and buttons agree on it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from rf_notebook.core.run import RunState
from rf_notebook.testing.fake_session import FakeSession, many_runs
from rf_notebook.views.document import text_of
from rf_notebook.widgets.panel import Panel
from tests.thorough import few


@pytest.fixture
def panel():
    fake = FakeSession(many_runs(6, 30, metrics=("loss", "eval_loss")))
    runs = fake.recent_state.runs
    for run_id, state in ((2, RunState.STOPPED), (5, RunState.DIVERGED)):
        runs[run_id] = replace(runs[run_id], state=state)
    return Panel(fake, fake)


def drawn(panel):
    """Runs that have a curve, and runs that are compared."""
    panel.show_page("Curves")
    curves = {
        t["meta"]["run"] for t in panel.curves.chart.frame["traces"] if "run" in t.get("meta", {})
    }
    panel.show_page("Compare")
    compared = [t["meta"]["runs"] for t in panel.compare.scatter.frame["traces"] if "meta" in t]
    return curves, set().union(*compared)


def listed(panel):
    return {row["run"] for row in panel.table.rows}


def test_what_the_filter_leaves_out_is_nowhere(panel):
    panel.table.selected = [1, 6]
    panel.shown.filter.value = "run > 2"
    assert listed(panel) == {3, 4, 5, 6}
    assert drawn(panel) == ({3, 4, 5, 6}, {3, 4, 5, 6})
    assert panel.table.selected == [6], "nothing is done to a run that is not seen"
    panel.shown.filter.value = "run > 6"
    assert panel.table.selected == []
    assert all(control.disabled for control in panel.buttons.values())
    assert panel.table.empty == "no run meets the filter"
    panel.show_page("Lineage")
    assert "run 1" not in text_of(panel.documents["Lineage"].root)


def test_a_closed_eye_leaves_its_row_and_nothing_else(panel):
    panel.table.selected = [3, 4]
    panel.table.hidden = [3]
    assert listed(panel) == {1, 2, 3, 4, 5, 6}, "or it could not be opened again"
    assert drawn(panel) == ({1, 2, 4, 5, 6}, {1, 2, 4, 5, 6})
    assert panel.table.selected == [4]
    panel.table.selected = [3]
    assert panel.table.selected == [], "a hidden run cannot be selected"
    panel.show_page("Log")
    words = text_of(panel.documents["Log"].root)
    assert "run 4" in words
    assert "run 3" not in words


def test_buttons_hide_and_show_many(panel):
    assert panel.shown.only_these.disabled
    assert panel.shown.show_all.disabled
    panel.table.selected = [1, 5]
    panel.shown.only_these.click()
    assert panel.table.hidden == [2, 3, 4, 6]
    assert text_of(panel.shown.words.root) == "2 of 6 runs shown"
    assert panel.table.selected == [1, 5]
    assert panel.shown.only_these.disabled
    panel.shown.hide_over.click()
    assert panel.table.hidden == [2, 3, 4, 5, 6]
    assert panel.shown.hide_over.disabled
    panel.shown.filter.value = "run < 5"
    panel.shown.show_all.click()
    assert (panel.table.hidden, panel.shown.filter.value) == ([], "")
    assert text_of(panel.shown.words.root) == ""


def test_a_run_that_a_page_leads_to_is_shown(panel):
    panel.table.hidden = [3]
    panel.shown.filter.value = "run = 1"
    panel.act("select 3")
    assert panel.table.selected == [3]
    assert 3 in drawn(panel)[0]


@pytest.mark.parametrize("seed", few(4, range(10)))
def test_whatever_is_done_the_selection_is_among_the_shown(panel, seed):
    rng = random.Random(seed)
    for _ in range(40):
        some = sorted(rng.sample(range(1, 7), rng.randint(0, 4)))
        match rng.choice(["select", "hide", "filter", "button"]):
            case "select":
                panel.table.selected = some
            case "hide":
                panel.table.hidden = some
            case "filter":
                panel.shown.filter.value = rng.choice(["", "run > 3", "run <", "nothing = 1", "x"])
            case "button":
                rng.choice(
                    [panel.shown.only_these, panel.shown.hide_over, panel.shown.show_all]
                ).click()
        shown = listed(panel).difference(panel.table.hidden)
        assert shown.issuperset(panel.table.selected)
        assert drawn(panel) == (shown, shown)
