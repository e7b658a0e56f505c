"""A person at the panel's automation page.

A policy stops runs, one click takes a decision back, another pins, a third ends it.
"""

from __future__ import annotations

import pytest

from tests.ui.test_panel import IMPORTS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: Stops the two worst after the first chunk, and would stop everything that is neither given back
#: nor pinned later.
POLICY = """
from rf_notebook.automation import Stop
class Strict:
    name = "strict"
    def decide(self, view):
        judged = [run for run in view.live if run.id not in view.given_back and run.chunks >= 1]
        if len(view.live) < 4 or len(judged) < 4:
            return []
        worst = sorted(judged, key=lambda run: run.value("eval_loss"))[2:]
        return [Stop(run.id, f"eval_loss {run.value('eval_loss'):.3f} <i>is among the worst</i>") for run in worst]
    def waits_for(self, view):
        return "the first chunk of every run"
experiment = Experiment("automated")
experiment.run_fit(grid, load, train, test, num_chunks=16, policy=Strict())
"""


def test_decisions_are_read_taken_back_and_prevented_by_click(notebook, screenshot):
    opened = notebook(IMPORTS, POLICY, "experiment.end(cancel=True)")
    opened.run_cell(1)
    opened.run_cell(2)
    opened.page.wait_for_selector(".rf-panel .rf-tabs")
    opened.panel.locator(".rf-tabs button", has_text="Automation").click()
    page = opened.panel.locator(".rf-automation")
    page.locator("text=/waits for the first chunk of every run/").wait_for()
    opened.wait_python("len(experiment.decisions) == 2", timeout=120)
    page.locator("tr", has_text="stop run").nth(1).wait_for()
    assert "<i>is among the worst</i>" in page.inner_text(), "text stays text"
    assert "device-minutes" in page.inner_text()
    screenshot("70-automation")

    stopped = opened.python("sorted(int(i) for i in experiment.decisions.run_id)")
    page.locator("tr", has_text=f"stop run {stopped[0]}").locator("button", has_text="Undo").click()
    opened.wait_python(f"experiment.run({stopped[0]}).state == 'running'")
    alive = opened.python("[r.id for r in experiment.runs if r.state == 'running'][0]")
    page.locator("button", has_text=f"pin run {alive}").first.click()
    opened.wait_python(f"experiment.session.state.pinned == {{{alive}}}")
    page.locator("button", has_text=f"unpin run {alive}").wait_for()
    page.locator("button", has_text="Take the wheel").click()
    opened.wait_python("experiment.session.state.policy is None")
    page.locator("text=/No policy decides/").wait_for()
    assert (
        page.locator("tr", has_text=f"stop run {stopped[1]}")
        .locator("button", has_text="Undo")
        .count()
        == 1
    )
    screenshot("71-wheel-taken")
    opened.run_cell(3)
