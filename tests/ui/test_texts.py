"""Texts that try to be markup, in the live panel and in the static twin, in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from rf_notebook.views.saved import static_bundle
from rf_notebook.views.series import ExperimentSeries
from tests.widgets.hostile import TEXTS, hostile_state

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CELLS = (
    """
import sys; sys.path.insert(0, {root!r})
from tests.widgets.hostile import TEXTS, hostile_state
from rf_notebook.testing.fake_session import FakeSession
from rf_notebook.widgets.display import ExperimentDisplay
host = FakeSession(hostile_state(), name=TEXTS[1])
shown = ExperimentDisplay(host, host)
shown
""",
    "shown._bundle = shown._bundle; from IPython.display import display; display(shown._bundle(), raw=True)",
)


def test_no_text_acts_in_exported_html(page, tmp_path):
    import nbformat
    from nbconvert import HTMLExporter

    state = hostile_state()
    series = ExperimentSeries()
    series.update(state)
    bundle = static_bundle(TEXTS[1], state, series, TEXTS[0])
    cell = nbformat.v4.new_code_cell(
        "1", outputs=[nbformat.v4.new_output("display_data", data=bundle)]
    )
    body, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    file = tmp_path / "exported.html"
    file.write_text(body)
    page.goto(file.as_uri())
    page.wait_for_function("() => document.querySelector('.rf-static img').naturalWidth > 100")
    assert page.evaluate("() => window.pwned") is None
    assert (
        page.evaluate(
            "() => document.querySelectorAll('.rf-static script, .rf-static svg, .rf-static a').length"
        )
        == 0
    )
    assert "<script>window.pwned=1</script>" in page.locator(".rf-static").inner_text()


def test_no_text_acts_in_the_panel_nor_in_the_static_twin(notebook, screenshot):
    root = str(Path(__file__).parents[2])
    opened = notebook(CELLS[0].format(root=root), CELLS[1])
    requests = []
    opened.page.on("request", lambda request: requests.append(request.url))
    opened.run_cell(1)
    opened.page.wait_for_selector(".rf-panel .rf-chart .main-svg")
    panel = opened.panel
    for name in (
        "Compare",
        "Run",
        "Lineage",
        "Automation",
        "Schedule",
        "Samples",
        "Log",
        "Messages",
        "Curves",
    ):
        panel.locator(".rf-tabs button", has_text=name).click()
        opened.page.wait_for_timeout(700)
        screenshot(f"14-hostile-{name.lower()}")
    metric = panel.locator(".rf-curves select").first
    for index in range(2, 9):
        metric.select_option(index=index)
        opened.page.wait_for_timeout(250)
    opened.select(3)
    opened.button("Clone").click()
    opened.page.wait_for_timeout(500)
    opened.run_cell(2)
    opened.page.wait_for_timeout(800)
    screenshot("15-hostile-static")
    assert opened.page.evaluate("() => window.pwned") is None
    inside = "document.querySelectorAll('.rf-panel script, .rf-panel iframe, .rf-panel img, .rf-panel a[href^=javascript], .rf-panel [onerror], .rf-panel [onload]').length"
    assert opened.page.evaluate(f"() => {inside}") == 0
    assert (
        opened.page.evaluate(
            "() => [...document.querySelectorAll('.rf-static *')].filter((e) => ['SCRIPT', 'SVG', 'A'].includes(e.tagName)).length"
        )
        == 0
    )
    own = opened.lab.url
    assert [url for url in requests if not url.startswith((own, "blob:", "data:"))] == []
    assert (
        "<script>window.pwned=1</script>" in panel.locator(".rf-curves select").first.inner_text()
    )
