"""The panel as a person arranges it: columns, groups, charts, keys, and what every size and theme shows."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CELL = """
from rf_notebook.testing.fake_session import FakeSession, many_runs, points
from rf_notebook.widgets.display import ExperimentDisplay
METRICS = ("loss", "eval_loss", "reward", "grad_norm", "num_tokens")
host = globals().get("host") or FakeSession(many_runs({runs}, {points}, metrics=METRICS))
shown = ExperimentDisplay(host, host)
panel = shown.panel
shown
"""
ROWS = "[row.get('run', row.get('title')) for row in panel.table.rows]"
PAGES = (
    "Run",
    "Compare",
    "Samples",
    "Log",
    "Messages",
    "Schedule",
    "Lineage",
    "Automation",
    "Curves",
)
#: The first columns of the table alone, as the kernel would send them.
SENT = """panel.table.comm.send({{"method": "update", "buffer_paths": [], "state": {{
    name: panel.table.columns[:{columns}] if name == "columns"
    else json.dumps([{{**row, "cells": row["cells"][:{columns}]}} for row in panel.table.rows])
    for name in {order}}}}})"""
OTHER = """host.beside.update(another=[
    __import__("rf_notebook.record.differences", fromlist=["Difference"]).Difference(
        "configs", "run 1: peft_config.r", "4", "8"
    )
])"""
LR = "training_args.learning_rate"
AXE = Path(__file__).parents[2] / "labextension" / "node_modules" / "axe-core" / "axe.min.js"


def opened_with(notebook, page, runs, points=60):
    opened = notebook(CELL.format(runs=runs, points=points))
    opened.run_cell(1)
    page.wait_for_selector(".rf-panel .rf-chart .main-svg")
    page.evaluate("() => document.querySelector('.rf-panel').scrollIntoView()")
    return opened


def test_keys_and_the_menu_act_on_the_run_with_the_focus(notebook, page, screenshot):
    opened = opened_with(notebook, page, 6)
    row = opened.row(3)
    row.focus()
    cells = page.evaluate("() => window.jupyterapp.shell.currentWidget.content.widgets.length")
    for key in ("s", "h", "b", "t"):
        page.keyboard.press(key)
    opened.wait_python("('stop', [3], 'button') in host.asked")
    opened.wait_python("panel.table.hidden == [3] and panel.grid.baseline == 3")
    opened.wait_python(f"{ROWS}[0] == 3")
    page.keyboard.press("h")
    opened.wait_python("panel.table.hidden == []")
    row.focus()
    page.keyboard.press("?")
    page.locator("dl[aria-label='Keys'] dd", has_text="Compare others to it").wait_for()
    screenshot("30-keys")
    page.keyboard.press("Escape")
    page.locator("dl[aria-label='Keys']").wait_for(state="detached")
    assert page.evaluate("() => document.activeElement.dataset.run") == "3"

    opened.row(5).click(button="right")
    menu = page.locator("[role=menu][aria-label='run 5']")
    menu.wait_for()
    screenshot("31-menu")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    opened.wait_python("panel.page == 'Run'")
    page.locator(".rf-run-page", has_text="run 5").wait_for()
    page.locator(".rf-run-page", has_text=LR).wait_for()
    assert page.locator(".rf-run-page svg").count() == 5
    screenshot("32-run")

    opened.select(4)
    opened.row(4).click(button="right")
    resume = page.locator("[role=menuitem]", has_text="Resume")
    resume.wait_for()
    assert resume.get_attribute("aria-disabled") == "true"
    assert "only a stopped run can be resumed" in resume.get_attribute("title")
    page.keyboard.press("Escape")
    opened.row(4).focus()
    page.keyboard.press("l")
    page.get_by_label("name", exact=True).fill("small rate")
    page.get_by_label("tags", exact=True).fill("keep, paper")
    opened.button("Save").click()
    opened.wait_python("host.recent_state.label(4).tags == ('keep', 'paper')")
    opened.row(4).locator("td", has_text="small rate").wait_for()
    opened.row(4).focus()
    page.keyboard.press("Delete")
    page.locator(".rf-panel", has_text="Delete run 4?").wait_for()
    assert not opened.python("[one for one in host.asked if one[0] == 'delete']")
    now = page.evaluate("() => window.jupyterapp.shell.currentWidget.content.widgets.length")
    assert now == cells, "no key reached the notebook's own commands"
    page.keyboard.press("Control+s")
    page.wait_for_function("() => !window.jupyterapp.shell.currentWidget.context.model.dirty")


def test_columns_are_chosen_ordered_pinned_and_resized_and_come_again(notebook, page, screenshot):
    opened = opened_with(notebook, page, 6)
    heads = "() => [...document.querySelectorAll('.rf-panel th .rf-sort')].map((one) => one.textContent.replace(/ [▲▼]/, ''))"
    assert "grad_norm" not in page.evaluate(heads)
    opened.button("columns").click()
    box = page.locator("[role=dialog][aria-label=Columns]")
    box.get_by_label("find a column").fill("grad")
    box.get_by_label("show grad_norm").check()
    box.get_by_label("find a column").fill("")
    box.get_by_label("show reward").uncheck()
    box.get_by_label("pin loss", exact=True).check()
    box.get_by_label("earlier: grad_norm").click()
    screenshot("33-columns")
    page.keyboard.press("Escape")
    chosen = opened.wait_python("'grad_norm' in panel.table.chosen and panel.table.chosen")
    assert "reward" not in chosen
    page.wait_for_function(f"() => ({heads})()[1] === 'loss'")
    names = page.evaluate(heads)
    assert names[-2] == "grad_norm"
    assert (
        page.evaluate(
            "() => getComputedStyle(document.querySelector('.rf-panel td.rf-pinned')).position"
        )
        == "sticky"
    )
    edge = page.locator(".rf-panel th", has_text="state").locator(".rf-resizer")
    at = edge.bounding_box()
    page.mouse.move(at["x"] + 3, at["y"] + 5)
    page.mouse.down()
    page.mouse.move(at["x"] + 83, at["y"] + 5, steps=4)
    page.mouse.up()
    width = opened.wait_python("panel.table.widths.get('state')")
    assert page.locator(".rf-panel th", has_text="state").bounding_box()["width"] == width

    # Fewer columns and their rows, in whichever order the message has them; the kernel sends them in one.
    for order in (("columns", "rows"), ("rows", "columns")):
        opened.python(SENT.format(order=order, columns=3))
        page.wait_for_function(f"() => ({heads})().length === 3")
        assert page.locator(".rf-panel tr[data-run='1'] td").count() == 3
        opened.python(SENT.format(order=order, columns=99))
        page.wait_for_function(f"(all) => ({heads})().length === all", arg=len(names))
        assert page.evaluate(heads) == names

    opened.start_cell(1)  # as after a restart: another panel of the same experiment
    opened.wait_over()
    page.wait_for_function(f"() => ({heads})()[1] === 'loss'")
    opened.button("columns").click()
    box.get_by_text("usual columns").click()
    opened.wait_python("panel.table.chosen == []")
    page.wait_for_function(f"() => ({heads})().includes('reward')")


def test_runs_are_grouped_and_their_means_are_drawn(notebook, page, screenshot):
    opened = opened_with(notebook, page, 8)
    page.get_by_label("group by").select_option(label="r")
    opened.wait_python("any('title' in row for row in panel.table.rows)")
    page.wait_for_function(
        "() => document.querySelector('.rf-chart').data.some((trace) => trace.fill === 'tonexty')"
    )
    screenshot("34-groups")
    rows = page.locator(".rf-panel .rf-table tbody tr")
    page.locator(".rf-panel .rf-fold").first.click()
    opened.wait_python("len(panel.table.folded) == 1")
    opened.button("Fold").click()
    page.wait_for_function(
        "() => document.querySelectorAll('.rf-panel .rf-table tr[data-run]').length === 0"
    )
    assert any("±" in text for text in rows.all_inner_texts())
    opened.button("Unfold").click()
    page.wait_for_function(
        "() => document.querySelectorAll('.rf-panel .rf-table tr[data-run]').length === 8"
    )
    opened.select(2)
    page.wait_for_function(
        "() => document.querySelector('.rf-chart').data.some((trace) => trace.meta?.run === 2)"
    )
    cells = opened.save()["cells"][1]["outputs"][-1]["data"]
    kept = cells["application/vnd.rf-notebook.panel+json"]
    opened.python("shown.refresh()")
    page.wait_for_timeout(300)
    kept = opened.save()["cells"][1]["outputs"][-1]["data"][
        "application/vnd.rf-notebook.panel+json"
    ]
    assert [group["title"] for group in kept["groups"]][:2] == ["r 2 (2)", "r 4 (2)"]


def test_charts_show_the_same_x_together(notebook, page, screenshot):
    opened = opened_with(notebook, page, 4)
    opened.button("+ Chart").click()
    opened.button("+ Chart").click()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.rf-chart')].filter((one) => one.offsetParent && one.data?.length).length === 3"
    )
    assert opened.python("[one.metric.value for one in panel.curves.charts]") == [
        "eval_loss",
        "loss",
        "reward",
    ]
    first = page.locator(".rf-chart .nsewdrag").first
    first.scroll_into_view_if_needed()
    box = first.bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.4 * box["height"])
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"], steps=4)
    page.wait_for_function(
        "() => [...document.querySelectorAll('.rf-chart')].filter((one) => one.querySelector('.hoverlayer')?.childElementCount).length === 3"
    )
    screenshot("35-charts")
    page.mouse.move(5, 5)
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.5 * box["height"], steps=5)
    page.mouse.up()
    opened.wait_python("all(len(one.chart.zoom) == 2 for one in panel.curves.charts)")
    opened.button("Show all").click()
    opened.wait_python("all(one.chart.zoom == [] for one in panel.curves.charts)")
    page.locator(".rf-curves", has=page.locator("option:checked", has_text="reward")).get_by_title(
        "remove this chart"
    ).click()
    opened.wait_python("len(panel.curves.charts) == 2")
    opened.python("host.add_live(2, points(2, 5, first=61, metrics=METRICS))")
    page.wait_for_function(
        "() => document.querySelector('.rf-chart').data.find((one) => one.meta?.run === 2).x.at(-1) === 260"
    )


@pytest.mark.parametrize("runs", [4, 24, 64])
def test_every_size_and_theme_fits_and_axe_finds_nothing_serious(notebook, page, screenshot, runs):
    opened = opened_with(notebook, page, runs)
    if runs == 24:
        opened.button("+ Chart").click()
    sizes = ((1280, 800), (1920, 1080), (480, 900))
    for width, height in sizes:
        page.set_viewport_size({"width": width, "height": height})
        if width == 480:
            page.evaluate("() => window.jupyterapp.shell.collapseLeft()")
        page.evaluate("() => document.querySelector('.rf-panel').scrollIntoView()")
        page.wait_for_timeout(700)
        screenshot(f"36-{runs}-runs-{width}")
        within = page.evaluate(
            """() => {
                const panel = document.querySelector('.rf-panel').getBoundingClientRect();
                const seen = (one) => one.offsetParent && !one.closest('.rf-table-scroller, .rf-samples, [popover]');
                return [...document.querySelectorAll('.rf-panel *')]
                    .filter((one) => one.offsetParent && seen(one))
                    .filter((one) => one.getBoundingClientRect().right > panel.right + 2)
                    .map((one) => `${one.tagName} ${one.className}`);
            }"""
        )
        assert within == [], f"beyond the panel at {width} pixels"
        if width == 1280:
            rows = page.evaluate(
                """() => {
                    const chart = document.querySelector('.rf-chart').getBoundingClientRect();
                    const bottom = document.querySelector('.jp-WindowedPanel-outer, .jp-Notebook').getBoundingClientRect().bottom;
                    const rows = [...document.querySelectorAll('.rf-table tbody tr')];
                    return [chart.top >= 0, rows.filter((one) => one.getBoundingClientRect().bottom <= bottom).length];
                }"""
            )
            assert rows[0], "the chart begins in the window"
            assert rows[1] >= 3, "and rows of the table are seen with it"
        chart, panel = (
            page.locator(one).first.bounding_box() for one in (".rf-chart", ".rf-panel")
        )
        assert chart["width"] > panel["width"] * (0.4 if runs == 24 and width > 480 else 0.85)
    page.set_viewport_size({"width": 1300, "height": 1500})
    page.evaluate(AXE.read_text())
    themes = ("JupyterLab Light", "JupyterLab Dark")
    for theme in themes if runs == 4 else themes[:1]:
        page.evaluate(
            "(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })",
            theme,
        )
        page.wait_for_timeout(1000)
        for name in PAGES:
            page.locator(".rf-tab", has_text=name).first.click()
            page.wait_for_timeout(250)
            found = page.evaluate("() => axe.run('.rf-panel', { resultTypes: ['violations'] })")[
                "violations"
            ]
            serious = [
                (one["id"], [node["html"][:200] for node in one["nodes"]])
                for one in found
                if one["impact"] in ("serious", "critical")
            ]
            assert serious == [], f"{theme}, {name}"
        screenshot(f"37-{runs}-runs-{theme[11:].lower()}")
    page.evaluate(
        "() => window.jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab Light' })"
    )


def test_a_brush_selects_the_runs_that_go_through_it(notebook, page, screenshot):
    opened = opened_with(notebook, page, 8)
    page.get_by_role("tab", name="Compare").click()
    parallel = page.locator(".rf-chart[aria-label='knobs of each run against the metric']")
    parallel.locator(".main-svg").first.wait_for()
    parallel.scroll_into_view_if_needed()
    lines = opened.python(
        "[[trace.props['meta']['run'], trace.y_N.tolist()] for trace in panel.compare.parallel._figure.traces]"
    )
    of = dict(map(tuple, lines))
    axes = len(of[1])

    def place_of(axis):
        """In the page: the axis, its bottom and its top, and how far the next one is away."""
        return page.evaluate(
            """async (axis) => {
                const chart = document.querySelector(".rf-chart[aria-label='knobs of each run against the metric']");
                const place = () => JSON.stringify(chart.getBoundingClientRect());
                for (let before = ''; before !== place() || chart._fullLayout.width !== chart.offsetWidth; ) {
                    before = place();
                    await new Promise((resolve) => setTimeout(resolve, 300));
                }
                const {xaxis, yaxis, _size} = chart._fullLayout;
                const box = chart.getBoundingClientRect();
                const left = box.x + _size.l;
                const top = box.y + _size.t;
                return [left + xaxis.l2p(axis), top + yaxis.l2p(0), top + yaxis.l2p(1), xaxis.l2p(1) - xaxis.l2p(0)];
            }""",
            axis,
        )

    def drag(axis, low, high, shift=False):
        """Over an axis, between two shares of its height."""
        x, bottom, top, gap = place_of(axis)
        if shift:
            page.keyboard.down("Shift")
        page.mouse.move(x - gap / 5, bottom + (top - bottom) * low)
        page.mouse.down()
        page.mouse.move(x + gap / 5, bottom + (top - bottom) * high, steps=6)
        page.mouse.up()
        if shift:
            page.keyboard.up("Shift")

    last = axes - 1
    best = sorted(run for run in of if -0.05 <= of[run][last] <= 0.55)
    assert 0 < len(best) < len(of)
    drag(last, -0.05, 0.55)
    opened.wait_python(f"panel.table.selected == {best}")
    both = [run for run in best if 0.3 <= of[run][0] <= 1.05]
    assert 0 < len(both) < len(best)
    drag(0, 0.3, 1.05, shift=True)
    opened.wait_python(f"panel.table.selected == {both}")
    screenshot("38-brushed")
    middle, bottom, _, gap = place_of(1)
    page.mouse.dblclick(middle - gap / 2, bottom + 4)
    opened.wait_python("panel.table.selected == []")

    opened.python(OTHER)
    beside = page.get_by_label("beside")
    page.wait_for_function("(menu) => menu.options.length === 2", arg=beside.element_handle())
    beside.select_option("another")
    page.locator(".rf-differences", has_text="run 1: peft_config.r").wait_for()
    screenshot("39-beside")
