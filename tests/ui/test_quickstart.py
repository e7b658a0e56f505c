"""The quickstart of `make lab`: its first curve comes within a minute of running the cells.

In a kernel that starts as a person's does, importing the libraries itself.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ui.lab import Lab, Notebook

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]
QUICKSTART = Path(__file__).parents[2] / "notebooks" / "101_first_experiment.ipynb"


@pytest.fixture
def cold_lab(tmp_path: Path) -> Iterator[Lab]:
    """JupyterLab whose kernels have nothing imported."""
    (tmp_path / "notebooks").mkdir()
    running = Lab(tmp_path / "notebooks", tmp_path / "jupyter", is_warm=False)
    yield running
    running.stop()


def test_the_first_curve_is_on_the_screen_within_a_minute(cold_lab, page, screenshot):
    shutil.copy(QUICKSTART, cold_lab.root)
    opened = Notebook(cold_lab, page, QUICKSTART.name).open()
    started = time.monotonic()
    opened.start_all_cells()
    page.wait_for_selector(".rf-panel", timeout=60_000)
    page.locator(".rf-panel").last.scroll_into_view_if_needed()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.rf-chart')].some((c) => (c.data ?? []).some((t) => t.mode === 'lines' && t.x.length > 1))",
        timeout=60_000,
    )
    assert time.monotonic() - started < 60
    screenshot("16-quickstart")
    opened.wait_over(120_000)
    page.wait_for_timeout(500)
    outputs = [
        output
        for index in range(len(page.query_selector_all(".jp-Cell")))
        for output in _outputs(opened, index)
    ]
    assert not [o for o in outputs if o["output_type"] == "error"]
    assert not [o for o in outputs if o.get("name") == "stderr"], "the quickstart shows no warnings"
    screenshot("17-quickstart-done")


def _outputs(opened: Notebook, index: int) -> list[dict]:
    cell = opened.page.evaluate(
        "(i) => window.jupyterapp.shell.currentWidget.content.widgets[i].model.toJSON().outputs ?? []",
        index,
    )
    return cell
