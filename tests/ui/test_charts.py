"""The chart and the table under a mouse: zoom, visibility, selection, sorting, filtering, thirty-two runs."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

CELL = """
from rf_notebook.testing.fake_host import FakeHost, many_runs
from rf_notebook.widgets.display import ExperimentDisplay
host = FakeHost(many_runs({runs}, {points}, metrics=("loss", "eval_loss")))
shown = ExperimentDisplay(host)
shown
"""
DRAWN = "() => document.querySelector('.rf-chart').data.map((trace) => trace.meta?.run).filter((run) => run)"


def test_the_chart_and_the_table_under_a_mouse(notebook, page, screenshot):
    opened = notebook(CELL.format(runs=6, points=6000))
    opened.run_cell(1)
    page.wait_for_selector(".rf-panel .rf-chart .main-svg", timeout=60_000)
    opened.panel.scroll_into_view_if_needed()
    plot = page.locator(".rf-chart .nsewdrag").first
    box = plot.bounding_box()
    page.mouse.move(box["x"] + 0.40 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.45 * box["width"], box["y"] + 0.5 * box["height"], steps=5)
    page.mouse.up()
    low, high = opened.wait_python("shown.panel.curves.chart.zoom")
    assert 8000 < low < high < 13_000
    assert opened.python("shown.panel.curves.chart.frame['traces'][0]['n']") > 100, "the part is fetched in detail"
    page.wait_for_timeout(800)
    screenshot("18-zoomed")
    opened.button("Show all").click()
    opened.wait_python("shown.panel.curves.chart.zoom == []")

    opened.row(2).locator("button.rf-dot").click()
    opened.wait_python("shown.panel.table.hidden == [2]")
    page.wait_for_function(f"() => !({DRAWN})().includes(2)")
    opened.select(1)
    opened.row(4).locator("td").nth(1).click(modifiers=["Control"])
    opened.wait_python("shown.panel.table.selected == [1, 4]")
    opened.row(6).locator("td").nth(1).click(modifiers=["Shift"])
    assert len(opened.wait_python("len(shown.panel.table.selected) > 2 and shown.panel.table.selected")) > 2

    page.locator(".rf-panel .rf-sort", has_text="learning_rate").click()
    opened.wait_python("list(shown.panel.table.sort) == ['training_args.learning_rate', False]")
    page.locator(".rf-panel .rf-sort", has_text="learning_rate").click()
    opened.wait_python("list(shown.panel.table.sort) == ['training_args.learning_rate', True]")
    page.locator(".rf-panel input[placeholder^=filter]").fill("run > 4")
    opened.wait_python("sorted(row['run'] for row in shown.panel.table.rows) == [5, 6]")
    page.wait_for_function("() => document.querySelectorAll('.rf-panel .rf-table tbody tr').length === 2")


def test_thirty_two_runs_can_be_read(notebook, page, screenshot):
    opened = notebook(CELL.format(runs=32, points=2000))
    opened.run_cell(1)
    page.wait_for_selector(".rf-panel .rf-chart .main-svg", timeout=60_000)
    page.wait_for_function(f"() => ({DRAWN})().length === 32")
    assert page.locator(".rf-panel .rf-table tbody tr").count() == 32
    height = page.locator(".rf-panel .rf-table-scroller").bounding_box()["height"]
    assert height <= 430, "the table scrolls within the panel"
    opened.select(7)
    page.wait_for_timeout(900)
    screenshot("19-thirty-two-runs")
