"""Somebody's exported notebook in JupyterLab.

Its curves are there, the plan comes first, and a button replays it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from rf_notebook import SharedExperiment
from tests import warm
from tests.ui.lab import Notebook
from tests.ui.test_panel import launch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]


def test_a_received_notebook_shows_its_curves_then_its_plan_and_replays_after_a_click(
    lab, page, screenshot, tmp_path
):
    command = [
        *warm.python(),
        "-W",
        "ignore",
        "-m",
        "tests.replay.recorder",
        str(tmp_path),
        "stops",
    ]
    subprocess.run(
        command,
        check=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    folder = lab.root / "received"
    folder.mkdir()
    shutil.copy(tmp_path / "stops.ipynb", folder)
    opened = Notebook(lab, page, "received/stops.ipynb").open()
    page.locator(".rfl-saved canvas").first.wait_for()
    page.locator("text=/reproducible/").first.wait_for()
    screenshot("60-received")
    last = page.evaluate("() => window.jupyterapp.shell.currentWidget.content.widgets.length") - 1
    opened.start_cell(last)
    agree = page.locator("button", has_text="Run this code and replay")
    agree.wait_for()
    page.locator("pre", has_text="Code that would be run").scroll_into_view_if_needed()
    assert not (folder / "rf_experiments").exists(), "nothing was written before the click"
    screenshot("61-plan-of-a-replay")
    agree.scroll_into_view_if_needed()
    agree.click()
    page.locator(".rf-panel").last.wait_for(timeout=90_000)
    page.locator(".rf-panel").last.scroll_into_view_if_needed()
    told = page.locator("[role=alert]", has_text="the replay of 'stops' is equal: 2 runs")
    told.wait_for(timeout=120_000)
    assert "3 operations, bit for bit." in told.inner_text()
    screenshot("62-replayed")
    lab.stop_kernels()


def test_a_notebook_that_was_saved_in_jupyterlab_holds_a_record_that_fits(notebook, lab):
    opened = launch(notebook)
    opened.wait_python("len(experiment.stop(2).result().name)")
    opened.run_cell(4)
    opened.page.wait_for_timeout(1500)
    opened.save()
    shared = SharedExperiment(opened.path)
    findings = shared.verify()
    assert findings, str(findings)
    assert [one.what for one in shared.record.operations] == ["stop"]
    assert len(shared.record.results) == 4
    assert "run clicks grid load" in shared.record.spec.cells[-1]
    opened.path.write_text(opened.path.read_text().replace('"what": "stop"', '"what": "delete"'))
    assert [one.text for one in SharedExperiment(opened.path).verify() if not one.is_right] == [
        "operation 1 was changed after it was recorded"
    ]


def test_an_exported_notebook_shows_its_curves_without_the_extension(
    plain_lab, page, screenshot, tmp_path
):
    command = [
        *warm.python(),
        "-W",
        "ignore",
        "-m",
        "tests.replay.recorder",
        str(tmp_path),
        "plain",
    ]
    subprocess.run(
        command,
        check=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    folder = plain_lab.root / "without"
    folder.mkdir()
    shutil.copy(tmp_path / "plain.ipynb", folder)
    Notebook(plain_lab, page, "without/plain.ipynb").open(kernel=False)
    picture = page.locator(".jp-OutputArea-output img").first
    picture.wait_for()
    picture.scroll_into_view_if_needed()
    assert picture.evaluate("(image) => image.complete && image.naturalWidth > 300")
    assert page.locator(".jp-OutputArea-output", has_text="application/vnd").count() == 0
    screenshot("63-received-without-the-extension")
