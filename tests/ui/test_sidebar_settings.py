"""The launcher, the settings and the theme, as the sidebar and the panel have them."""

from __future__ import annotations

import json

from tests.ui.lab import Notebook
from tests.ui.test_panel import launch
from tests.ui.test_sidebar import open_sidebar, row


def test_a_launcher_card_makes_a_notebook_that_runs(lab, page, screenshot):
    page.goto(f"{lab.url}lab?reset&token={lab.token}")
    page.wait_for_selector(".jp-Launcher")
    page.locator(".jp-LauncherCard", has_text="RapidFire experiment").first.click()
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
    made = Notebook(
        lab, page, page.evaluate("() => window.jupyterapp.shell.currentWidget.context.path")
    )
    made.wait_idle()
    made.start_all_cells()
    page.wait_for_selector(".rf-panel .rf-chart .main-svg", timeout=90_000)
    page.wait_for_function(
        "() => JSON.stringify(window.jupyterapp.shell.currentWidget.content.widgets[3].model.toJSON().outputs).includes('Run ')",
        timeout=150_000,
    )
    screenshot("38-starter-notebook")
    outputs = json.dumps(made.outputs(1) + made.outputs(3))
    assert '"output_type": "error"' not in outputs
    assert '"name": "stderr"' not in outputs
    lab.stop_kernels()


def test_settings_reach_the_kernel_and_say_where_the_panel_opens(notebook, page, screenshot):
    opened = launch(notebook)
    open_sidebar(page)
    page.evaluate(
        """async (raw) => { await window.jupyterapp.serviceManager.settings.save('rf-notebook:plugin', JSON.stringify(raw)); }""",
        {"colours": ["#aa0000", "#00aa00"], "panelOpens": "sidebar", "updateSeconds": 0.5},
    )
    opened.save()
    opened.reopen(page)
    open_sidebar(page)
    row(page, 1).wait_for()
    assert (
        row(page, 1).locator(".rfl-dot").evaluate("(e) => getComputedStyle(e).backgroundColor")
        == "rgb(170, 0, 0)"
    )
    opened.wait_python(
        "__import__('rf_notebook.views.palette').views.palette.colour(2) == '#00aa00'"
    )
    page.locator(".rfl-sidebar [data-action='panel']").click()
    page.wait_for_selector(".rfl-sidebar .rfl-hosted .rf-chart .main-svg")
    screenshot("39-panel-in-the-sidebar")
    page.goto("about:blank")
    (opened.lab.settings / "rf-notebook" / "plugin.jupyterlab-settings").unlink()


def test_dark_and_narrow(notebook, page, screenshot):
    launch(notebook)
    bar = open_sidebar(page)
    row(page, 4).wait_for()
    page.evaluate(
        "() => window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"
    )
    page.wait_for_function("() => document.body.dataset.jpThemeName === 'JupyterLab Dark'")
    page.wait_for_timeout(1500)
    screenshot("40-sidebar-dark")
    ground = bar.evaluate("(e) => getComputedStyle(e).backgroundColor")
    assert sum(int(part) for part in ground.strip("rgb()").split(",")[:3]) < 200
    nameless = "b => b.offsetParent && !(b.textContent.trim() || b.title || b.getAttribute('aria-label') || b.labels?.length)"
    assert (
        page.evaluate(
            f"() => [...document.querySelectorAll('.rfl-sidebar button, .rfl-sidebar select')].filter({nameless}).length"
        )
        == 0
    )
    page.set_viewport_size({"width": 480, "height": 900})
    page.wait_for_timeout(1200)
    screenshot("41-sidebar-480")
    outside = page.evaluate(
        """() => { const right = document.querySelector('.rfl-sidebar').getBoundingClientRect().right;
            return [...document.querySelectorAll('.rfl-sidebar button')].filter((b) => b.offsetParent && b.getBoundingClientRect().right > right + 1).length; }"""
    )
    assert outside == 0
