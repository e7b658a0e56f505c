"""The quickstart of `make lab`: its first curve comes while the cells run.

In a kernel that starts as a person's does, importing the libraries itself. What follows the first
curve is in ``tests/notebooks``, where the whole notebook runs.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ui.lab import Lab, Notebook

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
QUICKSTART = Path(__file__).parents[2] / "notebooks" / "101_first_experiment.ipynb"


@pytest.fixture
def cold_lab(tmp_path: Path) -> Iterator[Lab]:
    """JupyterLab whose kernels have nothing imported."""
    (tmp_path / "notebooks").mkdir()
    running = Lab(tmp_path / "notebooks", tmp_path / "jupyter", is_warm=False)
    yield running
    running.stop()


def test_the_first_curve_is_on_the_screen_while_the_notebook_runs(cold_lab, page, screenshot):
    shutil.copy(QUICKSTART, cold_lab.root)
    opened = Notebook(cold_lab, page, QUICKSTART.name).open()
    opened.start_all_cells()
    page.wait_for_selector(".rf-panel", timeout=120_000)
    page.locator(".rf-panel").last.scroll_into_view_if_needed()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.rf-chart')].some((c) => (c.data ?? []).some((t) => t.mode === 'lines' && t.x.length > 1))",
        timeout=120_000,
    )
    screenshot("16-quickstart")
    outputs = [
        output
        for index in range(len(page.query_selector_all(".jp-Cell")))
        for output in _outputs(opened, index)
    ]
    assert not [o for o in outputs if o["output_type"] == "error"]


def _outputs(opened: Notebook, index: int) -> list[dict]:
    cell = opened.page.evaluate(
        "(i) => window.jupyterapp.shell.currentWidget.content.widgets[i].model.toJSON().outputs ?? []",
        index,
    )
    return cell
