"""Saved notebooks with the extension.

Interactive without a kernel and without trust, and nothing in them acts.
"""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path

import nbformat
import pytest

from rf_notebook.record.record import RECORD_MIME
from tests.ui.test_panel import launch
from tests.widgets.hostile import TEXTS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: What the browser has loaded of the extension: addresses to bytes.
_LOADED = """() => Object.fromEntries(
    performance.getEntriesByType("resource")
        .filter(entry => entry.name.includes("extensions/rf-notebook/"))
        .map(entry => [entry.name, entry.decodedBodySize])
)"""
PANEL_MIME = "application/vnd.rf-notebook.panel+json"
FIXTURE = json.loads(
    (Path(__file__).parents[2] / "labextension" / "fixtures" / "panel.json").read_text()
)
IMPORTS = """
from rf_notebook import Experiment
from rf_notebook.automl import List, RFGridSearch, RFLoraConfig, RFModelConfig, RFSFTConfig
from rf_notebook.testing.tiny import create_tiny, prompt_rows
"""
RUN_SOON_OVER = """
config = RFModelConfig(
    model_name="tiny",
    peft_config=RFLoraConfig(r=4, target_modules=["q_proj"]),
    training_args=RFSFTConfig(
        learning_rate=List([1e-3, 3e-3]), per_device_train_batch_size=2, num_train_epochs=6, logging_steps=1,
        use_cpu=True, bf16=False, gradient_checkpointing=False,
    ),
)
experiment = Experiment("night")
experiment.run_fit(RFGridSearch(config, "SFT"), create_tiny, prompt_rows(24, 1), prompt_rows(4, 2), num_chunks=2)
"""
#: From what is loaded for the extension before its sidebar is opened.
MOST_BYTES = 60_000


def open_saved(page, lab, path, *, asks_for_kernel=False):
    page.goto(f"{lab.url}lab/tree/{path.relative_to(lab.root)}?reset&token={lab.token}")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    if asks_for_kernel:
        page.locator(".jp-Dialog button", has_text="No Kernel").first.click()
        page.locator(".jp-Dialog").wait_for(state="detached")


def write_saved(path, panels, metadata=None):
    cells = [
        nbformat.v4.new_code_cell(
            "1",
            outputs=[
                nbformat.v4.new_output(
                    "display_data", data={PANEL_MIME: panel, "text/plain": "plain"}
                )
            ],
        )
        for panel in panels
    ]
    path.parent.mkdir(exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata or {}), str(path))


def rows(page):
    return page.locator(".rfl-saved tbody tr td:first-child").all_inner_texts()


def test_a_saved_notebook_is_interactive_without_a_kernel_and_untrusted(
    notebook, page, lab, screenshot
):
    opened = launch(notebook)
    opened.wait_python("'eval_loss' in experiment.runs[0].metrics")
    opened.run_cell(4)
    opened.page.wait_for_timeout(1500)
    saved = opened.save()
    live, static = (output["data"] for output in saved["cells"][2]["outputs"])
    assert live[PANEL_MIME]["live"]
    assert "curves" not in live[PANEL_MIME]
    assert {curves["metric"] for curves in static[PANEL_MIME]["curves"]} >= {"loss", "eval_loss"}
    assert len(json.dumps(static)) < 300_000
    lab.stop_kernels()

    page.goto("about:blank")
    opened.open()  # trusted, with a kernel that does not have the panel
    page.locator(".rfl-saved canvas").first.wait_for()
    page.wait_for_timeout(3000)
    assert (
        page.locator(".jp-OutputArea-output:visible", has_text="Error displaying widget").count()
        == 0
    )
    assert page.locator(".jp-OutputArea-output:visible", has_text="Loading widget").count() == 0
    screenshot("50-reopened-with-a-new-kernel")
    lab.stop_kernels()

    stranger = opened.path.with_name("stranger.ipynb")
    saved["cells"][2]["source"] = "# changed, so that no signature holds\n"
    saved["metadata"].pop("kernelspec", None)
    stranger.write_text(json.dumps(saved))
    open_saved(page, lab, stranger)
    chart = page.locator(".rfl-saved .rfl-chart")
    chart.locator("canvas").wait_for()
    assert page.evaluate(
        """() => { const c = document.querySelector('.rfl-saved canvas');
            return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v > 0); }"""
    )
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    table = page.locator(".rfl-saved table")
    place = table.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.locator(".rfl-hover", has_text="sample").wait_for()
    assert "run 1" in page.locator(".rfl-hover").inner_text()
    assert table.bounding_box() == place, "the table moves away under a pointer on its way to it"
    before = rows(page)
    page.locator(".rfl-saved th button", has_text="run").first.click()
    page.locator(".rfl-saved th[aria-sort='descending']").wait_for()
    assert rows(page) == list(reversed(before))
    page.locator(".rfl-saved select").select_option(label="loss")
    page.locator(".rfl-chart[aria-label^='loss of']").wait_for()
    assert "Run the notebook's cells again" in page.locator(".rfl-saved").inner_text()
    screenshot("51-saved-with-the-extension")
    page.evaluate(
        "() => window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"
    )
    page.wait_for_timeout(1500)
    screenshot("52-saved-dark")
    page.set_viewport_size({"width": 480, "height": 900})
    page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
    page.wait_for_timeout(1500)
    screenshot("53-saved-480")
    box = page.locator(".rfl-saved").bounding_box()
    assert box["x"] + box["width"] <= 481


def hostile_panels():
    """Panels that try to be something else than data."""

    def changed(**parts):
        panel = copy.deepcopy(FIXTURE)
        panel.update(parts)
        return panel

    panels = [
        changed(
            experiment=text, summary=text, identity=text, columns=[text] * len(FIXTURE["columns"])
        )
        for text in TEXTS
    ]
    for text in TEXTS:
        panel = changed(experiment="cells")
        for run in panel["runs"]:
            run.update(
                state=text,
                cells=[text] * len(FIXTURE["columns"]),
                values=[text] * len(FIXTURE["columns"]),
            )
        for curves in panel["curves"]:
            curves["metric"] = text
        panels.append(panel)
    many = [1.0] * 300_000
    huge = {"metric": "loss", "runs": [{"id": 1, "samples": many, "values": many}]}
    panels += [
        changed(version=99),
        changed(version="<script>window.pwned=1</script>"),
        changed(runs="<script>window.pwned=1</script>"),
        changed(runs=[{"id": {"toString": "x"}, "state": 1}]),
        changed(runs=FIXTURE["runs"] * 10_000),
        changed(curves=[huge]),
        changed(
            curves=[
                {
                    "metric": "loss",
                    "runs": [
                        {"id": 1, "samples": [1, 2], "values": ["<img src=x onerror=pwned=1>", 2]}
                    ],
                }
            ]
        ),
        changed(
            curves=[
                {
                    "metric": "loss",
                    "runs": [{"id": 1e308, "samples": [1e308, -1e308], "values": [1e308, -1e308]}],
                }
            ]
        ),
        changed(
            curves=[
                {
                    "metric": "loss",
                    "runs": [{"id": 1, "samples": [1e308, -1e308], "values": [1e308, -1e308]}],
                }
            ]
        ),
        {
            "version": 1,
            "live": True,
            "experiment": TEXTS[0],
            "model_id": "../../api/kernels?<script>",
        },
        {"version": 1, "live": True, "experiment": 1, "model_id": {}},
        [],
        {},
        {"__proto__": {"polluted": 1}, "version": 1},
    ]
    return panels


@pytest.mark.parametrize("trusted", [False, True])
def test_a_hostile_notebook_is_text_or_a_sentence(page, lab, screenshot, trusted):
    path = lab.root / "hostile" / f"hostile-{trusted}.ipynb"
    panels = hostile_panels()
    remembered = {
        "version": 1,
        "experiment": TEXTS[0],
        "identity": TEXTS[1],
        "spec": TEXTS[2],
        "launch": "x",
        "ran": [TEXTS[0]],
    }
    write_saved(path, panels, {"rf_notebook": remembered})
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    open_saved(page, lab, path, asks_for_kernel=True)
    if trusted:
        page.evaluate(
            "() => { for (const c of window.jupyterapp.shell.currentWidget.content.model.cells) { c.trusted = true; } }"
        )
    page.wait_for_selector(".rfl-unreadable")
    page.wait_for_timeout(3000)
    started = time.monotonic()
    assert page.evaluate("() => 1 + 1") == 2
    assert time.monotonic() - started < 1
    shown = page.locator(".rfl-saved").count()
    sentences = page.locator(".rfl-unreadable").all_inner_texts()
    assert shown + len(sentences) + 1 == len(panels), (
        "each is drawn or told, but for the live one of no kernel"
    )
    assert len(sentences) >= 10
    assert all(text.startswith("This saved panel is not shown: ") for text in sentences)
    inside = page.evaluate(
        """() => [...document.querySelectorAll('.rfl-output, .rfl-badge, .rfl-sidebar')].flatMap((e) => [...e.querySelectorAll(
            'script, iframe, img, object, embed, a, [onerror], [onload]')]).length"""
    )
    assert inside == 0
    badge = page.locator(".rfl-badge")
    badge.wait_for()
    assert TEXTS[0] in badge.get_attribute("title"), "as text"
    assert "<script>window.pwned=1</script>" in page.locator(".rfl-saved").first.inner_text()
    page.locator(".rfl-saved th button").first.click()
    assert page.evaluate("() => [window.pwned, {}.polluted]") == [None, None]
    assert [url for url in requests if not url.startswith((lab.url, "blob:", "data:"))] == []
    screenshot(f"54-hostile-{'trusted' if trusted else 'untrusted'}")


def test_a_page_that_was_closed_over_night_is_brought_up_to_date_in_the_morning(
    notebook, page, screenshot
):
    """Its kernel went on; the page knows no display ids of the evening any more."""
    opened = notebook(IMPORTS, RUN_SOON_OVER)
    opened.run_cell(1)
    opened.run_cell(2)
    page.wait_for_selector(".rf-panel .rf-chart .main-svg")
    opened.wait_python("experiment.run(1).steps > 2")
    shown = """([mime, word]) => {
        const outputs = window.jupyterapp.shell.currentWidget.content.widgets[2].model.toJSON().outputs;
        return outputs.length === 2 && outputs[1].data[mime].summary.includes(word);
    }"""
    page.wait_for_function(shown, arg=[PANEL_MIME, "when it was still training"])
    evening = opened.save()["cells"][2]["outputs"][1]["data"]
    for told in (evening[PANEL_MIME]["summary"], evening["text/plain"], evening["text/html"]):
        assert "when it was still training" in "".join(told)  # nbformat splits texts into lines
    page.goto("about:blank")
    opened.wait_python("all(run.state == 'completed' for run in experiment.runs)", timeout=240)
    opened.reopen(page)
    page.wait_for_function(shown, arg=[PANEL_MIME, "completed"])
    morning = opened.save()["cells"][2]["outputs"][1]["data"]
    assert "running" not in "".join(morning["text/plain"])
    assert "still training" not in "".join(morning["text/plain"])
    assert {run["state"] for run in morning[PANEL_MIME]["runs"]} == {"completed"}
    record = morning[RECORD_MIME]
    assert {result["state"] for result in record["results"]} == {"completed"}
    screenshot("55-the-morning-after")


def test_little_is_loaded_before_the_sidebar_is_opened(page, lab):
    page.goto(f"{lab.url}lab?reset&token={lab.token}")
    page.wait_for_selector(".jp-Launcher")
    page.wait_for_selector(
        "#rf-notebook-sidebar, [data-id='rf-notebook-sidebar']", state="attached", timeout=60_000
    )
    page.wait_for_timeout(1500)
    before = page.evaluate(_LOADED)
    assert 10_000 < sum(before.values()) < MOST_BYTES, before
    page.evaluate("async () => { await window.jupyterapp.commands.execute('rf-notebook:show'); }")
    page.wait_for_selector(".rfl-sidebar .rfl-view")
    after = page.evaluate(_LOADED)
    assert sum(after.values()) > sum(before.values()), "the rest comes when it is wanted"


def test_figures_that_are_rendered_twice_at_once_are_there_once(page, lab, tmp_path):
    """As JupyterLab does when a kernel is restarted; an output that is closed meanwhile raises nothing."""
    path = lab.root / tmp_path.name / "twice.ipynb"
    write_saved(path, [FIXTURE])
    open_saved(page, lab, path)
    page.wait_for_selector(".rfl-saved")
    shown = page.evaluate(
        """async ([mime, panel]) => {
            const { rendermime } = window.jupyterapp.shell.currentWidget.content;
            const model = () => rendermime.createModel({ data: { [mime]: panel }, trusted: true });
            const twice = rendermime.createRenderer(mime);
            await Promise.all([twice.renderModel(model()), twice.renderModel(model())]);
            const closed = rendermime.createRenderer(mime);
            const rendering = closed.renderModel(model());
            closed.dispose();
            await rendering;
            return twice.widgets.length;
        }""",
        [PANEL_MIME, FIXTURE],
    )
    assert shown == 1


def test_a_page_that_is_loaded_again_before_the_first_save_has_its_panel_back(
    notebook, page, screenshot
):
    opened = notebook(IMPORTS, RUN_SOON_OVER)
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    opened.run_cell(1)
    opened.run_cell(2)
    page.wait_for_selector(".rf-panel .rf-chart .main-svg")
    opened.wait_python("experiment.run(1).steps > 2")
    page.goto("about:blank")
    assert json.loads(opened.path.read_text())["cells"][2]["outputs"] == []
    opened.reopen(page)
    page.locator(".rf-panel tr[data-run='2']").wait_for()
    shown = """() => window.jupyterapp.shell.currentWidget.content.widgets.map(
        (cell) => (cell.model.toJSON().outputs ?? []).length)"""
    assert page.evaluate(shown) == [0, 0, 2]
    opened.select(2)
    opened.wait_python("experiment.panel().panel.table.selected == [2]")
    screenshot("56-loaded-again")
    # What the user clears stays away.
    page.evaluate("() => window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
    opened.wait_python("all(str(run.state) in ('stopped', 'completed') for run in experiment.runs)")
    page.wait_for_timeout(1500)
    assert page.evaluate(shown) == [0, 0, 0]


def test_the_sidebar_says_that_a_notebook_shows_an_experiment_that_its_kernel_does_not_have(
    page, lab, tmp_path
):
    path = lab.root / tmp_path.name / "shows.ipynb"
    write_saved(path, [FIXTURE])
    open_saved(page, lab, path)
    page.evaluate("async () => { await window.jupyterapp.commands.execute('rf-notebook:show'); }")
    hint = page.locator(".rfl-sidebar .rfl-hint")
    hint.filter(has_text=f"shows what was saved of “{FIXTURE['experiment']}”").wait_for()
    assert "no experiment yet" not in hint.inner_text()
