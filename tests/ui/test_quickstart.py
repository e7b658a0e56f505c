"""The quickstart of `make lab`: its first curve comes within a minute of running the cells."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from tests.ui.lab import Notebook

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]
QUICKSTART = Path(__file__).parents[2] / "notebooks" / "101_first_experiment.ipynb"


def test_the_first_curve_is_on_the_screen_within_a_minute(lab, page, screenshot):
    folder = lab.root / "quickstart"
    folder.mkdir()
    shutil.copy(QUICKSTART, folder / QUICKSTART.name)
    opened = Notebook(lab, page, f"quickstart/{QUICKSTART.name}").open()
    started = time.monotonic()
    page.evaluate("() => { void window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
    page.wait_for_selector(".rf-panel", timeout=60_000)
    page.locator(".rf-panel").last.scroll_into_view_if_needed()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.rf-chart')].some((c) => (c.data ?? []).some((t) => t.mode === 'lines' && t.x.length > 1))",
        timeout=60_000,
    )
    assert time.monotonic() - started < 60
    screenshot("16-quickstart")
    opened.wait_idle(120_000)
    page.wait_for_timeout(500)
    outputs = [
        output
        for index in range(len(page.query_selector_all(".jp-Cell")))
        for output in _outputs(opened, index)
    ]
    assert not [o for o in outputs if o["output_type"] == "error"]
    assert not [o for o in outputs if o.get("name") == "stderr"], "the quickstart shows no warnings"
    screenshot("17-quickstart-done")
    lab.stop_kernels()


def _outputs(opened: Notebook, index: int) -> list[dict]:
    cell = opened.page.evaluate(
        "(i) => window.jupyterapp.shell.currentWidget.content.widgets[i].model.toJSON().outputs ?? []",
        index,
    )
    return cell
