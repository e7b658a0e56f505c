"""The chart and the table under a mouse.

Zoom, visibility, selection, sorting, filtering, thirty-two runs.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CELL = """
from rf_notebook.testing.fake_session import FakeSession, many_runs
from rf_notebook.widgets.display import ExperimentDisplay
host = FakeSession(many_runs({runs}, {points}, metrics=("loss", "eval_loss")))
shown = ExperimentDisplay(host, host)
shown
"""
DRAWN = "() => document.querySelector('.rf-chart').data.map((trace) => trace.meta?.run).filter((run) => run)"


def test_the_chart_and_the_table_under_a_mouse(notebook, page, screenshot):
    opened = notebook(CELL.format(runs=6, points=6000))
    opened.run_cell(1)
    page.wait_for_selector(".rf-panel .rf-chart .main-svg")
    opened.panel.scroll_into_view_if_needed()
    plot = page.locator(".rf-chart .nsewdrag").first
    box = plot.bounding_box()
    page.mouse.move(box["x"] + 0.40 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.45 * box["width"], box["y"] + 0.5 * box["height"], steps=5)
    page.mouse.up()
    low, high = opened.wait_python("shown.panel.curves.chart.zoom")
    assert 8000 < low < high < 13_000
    assert opened.python("shown.panel.curves.chart.frame['traces'][0]['n']") > 100, (
        "the part is fetched in detail"
    )
    page.wait_for_timeout(800)
    screenshot("18-zoomed")
    opened.button("Show all").click()
    opened.wait_python("shown.panel.curves.chart.zoom == []")

    opened.row(2).locator("button.rf-eye").click()
    opened.wait_python("shown.panel.table.hidden == [2]")
    page.wait_for_function(f"() => !({DRAWN})().includes(2)")
    opened.select(1)
    opened.row(4).locator("td").nth(1).click(modifiers=["Control"])
    opened.wait_python("shown.panel.table.selected == [1, 4]")
    opened.row(6).locator("td").nth(1).click(modifiers=["Shift"])
    assert (
        len(
            opened.wait_python("len(shown.panel.table.selected) > 2 and shown.panel.table.selected")
        )
        > 2
    )

    page.locator(".rf-panel .rf-sort", has_text="learning_rate").click()
    opened.wait_python("list(shown.panel.table.sort) == ['training_args.learning_rate', False]")
    page.locator(".rf-panel .rf-sort", has_text="learning_rate").click()
    opened.wait_python("list(shown.panel.table.sort) == ['training_args.learning_rate', True]")
    page.locator(".rf-panel input[placeholder^='lr >']").fill("run > 4")
    opened.wait_python("sorted(row['run'] for row in shown.panel.table.rows) == [5, 6]")
    page.wait_for_function(
        "() => document.querySelectorAll('.rf-panel .rf-table tbody tr').length === 2"
    )
    page.wait_for_function(f"() => String([...new Set(({DRAWN})())].sort()) === '5,6'")
    opened.wait_python("set(shown.panel.table.selected) <= {5, 6}")
    screenshot("19-filtered")
    page.locator(".rf-panel input[placeholder^='lr >']").fill("nothing > 4")
    page.locator(".rf-panel [role=alert]", has_text="is not a column").wait_for()
    opened.button("All runs").click()
    page.wait_for_function(f"() => new Set(({DRAWN})()).size === 6")
    opened.select(1)
    opened.button("Only these").click()
    page.wait_for_function(f"() => String([...new Set(({DRAWN})())]) === '1'")
    page.locator(".rf-panel", has_text="1 of 6 runs shown").wait_for()
    screenshot("20-only-one")


def test_charts_are_taken_away_as_pictures_and_figures_as_csv_and_nothing_of_it_leaves_the_machine(
    notebook, page
):
    opened = notebook(CELL.format(runs=3, points=50))
    opened.run_cell(1)
    page.wait_for_selector(".rf-panel .rf-chart .main-svg")
    opened.panel.scroll_into_view_if_needed()
    page.locator(".rf-chart").first.hover()
    titles = page.eval_on_selector_all(
        ".rf-panel .modebar-btn", "(all) => all.map((one) => one.dataset.title)"
    )
    assert {"Download plot as a PNG", "Download plot as an SVG"} <= set(titles)
    assert not [one for one in titles if "share" in one.lower() or "cloud" in one.lower()]
    leading_off = ".rf-panel a[href], .rf-panel form, .rf-panel iframe"
    assert page.locator(leading_off).count() == 0
    for title, begin in (("a PNG", b"\x89PNG"), ("an SVG", b"<svg")):
        with page.expect_download() as told:
            page.locator(
                f".rf-chart .modebar-btn[data-title='Download plot as {title}']"
            ).first.click()
        assert Path(told.value.path()).read_bytes().startswith(begin)
        assert told.value.suggested_filename.startswith("eval_loss-of-3-runs")
    for what, lines in (("table", 1 + 3), ("points", 1 + 3 * 50)):
        with page.expect_download() as told:
            page.locator(".rf-files button", has_text=what).click()
        assert told.value.suggested_filename == f"fake-{what}.csv"
        assert len(Path(told.value.path()).read_text().splitlines()) == lines


#: The fake experiment told to the sidebar, too, and a way to let one run lead and another be the
#: last.
OVERTAKING = """
from rf_notebook.jupyterlab.link import connect
from rf_notebook.testing.fake_session import FakeExperiments, FakeSession, many_runs, points
from rf_notebook.widgets.display import ExperimentDisplay
from dataclasses import replace
host = FakeSession(many_runs(4, 20))
connect(lambda: FakeExperiments(host))
shown = ExperimentDisplay(host, host)
step = 20
def overtake(order):
    global step
    step += 1
    for place, run_id in enumerate(order):
        (point,) = points(run_id, 1, first=step)
        host.add_live(run_id, [replace(point, metrics={"loss": 1.0 + place})])
    return order
shown
"""
ROWS = "(rows) => rows.map((row) => Number(row.dataset.run))"


def test_runs_keep_their_places_while_the_pointer_is_among_them(notebook, page):
    """A click must reach the run that it was meant for, however the others overtake it meanwhile."""
    opened = notebook(OVERTAKING)
    opened.run_cell(1)
    page.wait_for_selector(".rf-panel .rf-chart .main-svg")
    page.evaluate("() => window.jupyterapp.commands.execute('rf-notebook:show')")
    page.locator(".rfl-toolbar select").select_option("metric")

    def order_is(in_panel, in_sidebar, *, leader):
        page.locator(f".rf-panel tr[data-run='{leader}']", has_text="★").wait_for()
        page.locator(f".rfl-run[data-run='{leader}']", has_text="★").wait_for()
        found, until = None, time.monotonic() + 20
        while found != (in_panel, in_sidebar) and time.monotonic() < until:
            page.wait_for_timeout(100)
            found = tuple(
                page.locator(rows).evaluate_all(ROWS) for rows in (".rf-panel tbody tr", ".rfl-run")
            )
        assert found == (in_panel, in_sidebar)

    opened.python("overtake([1, 2, 3, 4])")
    order_is([1, 2, 3, 4], [1, 2, 3, 4], leader=1)
    opened.row(3).hover()
    opened.python("overtake([4, 3, 2, 1])")
    order_is([1, 2, 3, 4], [4, 3, 2, 1], leader=4)
    page.locator(".rfl-run[data-run='3']").hover()
    order_is([4, 3, 2, 1], [4, 3, 2, 1], leader=4)
    opened.python("overtake([2, 1, 4, 3])")
    order_is([2, 1, 4, 3], [4, 3, 2, 1], leader=2)
    page.mouse.down()
    opened.python("overtake([3, 1, 4, 2])")
    order_is([3, 1, 4, 2], [4, 3, 2, 1], leader=3)
    page.mouse.up()
    page.wait_for_selector(".rfl-run[data-run='3'][aria-selected='true']")
    page.locator(".rfl-toolbar").hover()
    order_is([3, 1, 4, 2], [3, 1, 4, 2], leader=3)


def test_thirty_two_runs_can_be_read(notebook, page, screenshot):
    opened = notebook(CELL.format(runs=32, points=2000))
    opened.run_cell(1)
    page.wait_for_selector(".rf-panel .rf-chart .main-svg")
    page.wait_for_function(f"() => ({DRAWN})().length === 32")
    assert page.locator(".rf-panel .rf-table tbody tr").count() == 32
    height = page.locator(".rf-panel .rf-table-scroller").bounding_box()["height"]
    assert height <= 430, "the table scrolls within the panel"
    opened.select(7)
    page.wait_for_timeout(900)
    screenshot("19-thirty-two-runs")
