"""A person at the sidebar: real JupyterLab, real Chromium, real trainers.

What is asserted is the state in Python.
"""

from __future__ import annotations

import pytest

from tests.thorough import few
from tests.ui.lab import ANSWERING, Notebook, write_notebook
from tests.ui.test_panel import IMPORTS, OBEYED, RUN, launch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: A trainer to which a batch of four is too much.
HUNGRY = """
import torch
from rf_notebook.training.methods.sft import RunSFTTrainer
step = RunSFTTrainer.training_step
def hungry(self, *given, **named):
    if self.args.per_device_train_batch_size > 2:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
    return step(self, *given, **named)
RunSFTTrainer.training_step = hungry
experiment = Experiment("retries")
experiment.run_fit(search(rates=(5e-4,)), load, demo.train_dataset(64), test, num_chunks=2)
"""
OPEN = "async (path) => { await window.jupyterapp.commands.execute('docmanager:open', {path}); }"
EXECUTE = "([id, args]) => window.jupyterapp.commands.execute(id, args)"


def command(page, name, **args):
    """Execute a command as the palette would, and do not wait for its dialogs."""
    page.evaluate(f"(given) => {{ void ({EXECUTE})(given); }}", [f"rf-notebook:{name}", args])


def open_sidebar(page):
    command(page, "show")
    page.wait_for_selector(".rfl-sidebar .rfl-view")
    return page.locator(".rfl-sidebar")


def row(page, run_id):
    return page.locator(f".rfl-run[data-run='{run_id}']")


def click(page, run_id, verb):
    row(page, run_id).locator(f"button[data-verb='{verb}']:enabled").click()


def accept(page, label):
    page.locator(".jp-Dialog button", has_text=label).last.click()


def block(opened):
    """Let a cell run until the test is over."""
    opened.start_cell(3)
    opened.wait_python("globals().get('blocks', False)")


def every_button(opened, page):
    """Click all that acts on runs and on the experiment; each changes the state in Python."""
    click(page, 2, "stop")
    opened.wait_python("experiment.run(2).state == 'stopped'")
    click(page, 2, "resume")
    opened.wait_python("experiment.run(2).state in ('queued', 'running')")
    click(page, 1, "clone")
    form = page.locator(".rfl-hosted .rf-form")
    form.locator(".rf-field", has_text="learning_rate").locator("input").fill("1e-3")
    form.locator("button:enabled", has_text="Start clone").click()
    opened.wait_python("len(experiment.runs) == 5")
    assert opened.python("experiment.run(5).config['training_args']['learning_rate']") == 0.001
    click(page, 1, "warm start")
    page.wait_for_function(
        "() => document.querySelector('.rfl-hosted .rf-form input[type=checkbox]')?.checked"
    )
    page.locator(".rfl-hosted .rf-form button:enabled", has_text="Start clone").click()
    opened.wait_python("len(experiment.runs) == 6")
    assert opened.python("experiment.session.state.record(6).warm_start is not None")
    click(page, 3, "delete")
    accept(page, "Delete")
    opened.wait_python("experiment.run(3).state == 'deleted'")
    row(page, 3).wait_for(state="detached")
    page.locator(".rfl-sidebar [data-action='pause']").click()
    opened.wait_python("experiment.session.thread.engine.paused")
    page.locator(".rfl-sidebar [data-action='pause']", has_text="Resume all").click()
    opened.wait_python("not experiment.session.thread.engine.paused")
    assert opened.python(OBEYED) == [
        ["StopRun", 2, "button"],
        ["ResumeRun", 2, "button"],
        ["CloneRun", 1, "button"],
        ["CloneRun", 1, "button"],
        ["DeleteRun", 3, "button"],
    ]


@pytest.mark.parametrize("blocked", few(1, [True, False]))
def test_every_button_changes_the_experiment(notebook, page, screenshot, blocked):
    opened = launch(notebook)
    open_sidebar(page)
    row(page, 4).wait_for()
    if blocked:
        block(opened)
    every_button(opened, page)
    screenshot(f"30-sidebar{'-while-a-cell-blocks' if blocked else ''}")
    page.locator(".rfl-sidebar select").select_option("metric")
    page.wait_for_function(
        """() => {
            const values = [...document.querySelectorAll('.rfl-run .rfl-value')].map((e) => parseFloat(e.textContent.replace('★', '')));
            const known = values.filter((v) => !Number.isNaN(v));
            return known.length > 1 && known.every((v, i) => i === 0 || known[i - 1] <= v);
        }"""
    )
    opened.wait_python("experiment.run(1).checkpoint is not None")
    click(page, 1, "export")
    page.locator(".jp-Dialog input").fill("exported")
    accept(page, "Export")
    opened.wait_python("pathlib.Path('exported/adapter_model.safetensors').exists()")
    page.locator(".rfl-sidebar [data-action='log']").click()
    page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget?.context?.path?.endsWith('experiment.log')"
    )
    page.locator(".rfl-sidebar [data-action='panel']").click()
    page.wait_for_selector(".rfl-tab .rf-chart .main-svg")
    screenshot("31-panel-in-a-tab")
    page.locator(".rfl-sidebar [data-action='end']").click()
    accept(page, "End")
    opened.wait_python("experiment.session.thread is None")
    page.locator(
        ".rfl-standing[data-standing='interrupted'], .rfl-standing[data-standing='ended']"
    ).wait_for()
    assert page.locator(".rfl-sidebar [data-action='pause']").is_disabled()
    screenshot("32-ended")
    assert not blocked or opened.python("blocks")


@pytest.mark.parametrize("blocked", few(1, [True, False]))
def test_every_command_changes_the_experiment(notebook, page, blocked):
    opened = launch(notebook)
    open_sidebar(page)
    if blocked:
        block(opened)
    row(page, 2).click()
    page.wait_for_selector(".rfl-run[data-run='2'][aria-selected='true']")
    command(page, "stop")
    opened.wait_python("experiment.run(2).state == 'stopped'")
    page.wait_for_selector(".rfl-run[data-run='2'][data-state='stopped']")
    command(page, "resume")
    opened.wait_python("experiment.run(2).state in ('queued', 'running')")
    page.wait_for_selector(".rfl-run[data-run='2'] button[data-verb='stop']:enabled")
    page.locator(".jp-Notebook .jp-Cell").first.click()
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Alt+s")
    opened.wait_python("experiment.run(2).state == 'stopped'")
    page.wait_for_selector(".rfl-run[data-run='2'][data-state='stopped']")
    command(page, "stop-or-resume")
    opened.wait_python("experiment.run(2).state in ('queued', 'running')")
    page.keyboard.press("Control+Alt+p")
    opened.wait_python("experiment.session.thread.engine.paused")
    page.wait_for_selector(".rfl-sidebar [data-action='pause']:has-text('Resume all')")
    command(page, "pause-all")
    opened.wait_python("not experiment.session.thread.engine.paused")
    page.wait_for_selector(".rfl-run[data-run='2'] button[data-verb='warm start']:enabled")
    for name in ("clone", "warm-start"):
        command(page, name)
        wanted = str(name == "warm-start").lower()
        page.wait_for_function(
            f"() => document.querySelector('.rfl-hosted .rf-form input[type=checkbox]')?.checked === {wanted}"
        )
        before = opened.python("len(experiment.runs)")
        page.locator(".rfl-hosted .rf-form button:enabled", has_text="Start clone").click()
        opened.wait_python(f"len(experiment.runs) == {before + 1}")
    command(page, "delete")
    accept(page, "Delete")
    opened.wait_python("experiment.run(2).state == 'deleted'")
    page.wait_for_selector(".rfl-message:has-text('delete: run 2')")
    command(page, "stop")
    page.wait_for_selector(".rfl-message:has-text('select runs that can stop')")
    command(page, "export-run", runs=[1])
    page.locator(".jp-Dialog input").fill("exported")
    accept(page, "Export")
    opened.wait_python("pathlib.Path('exported/adapter_model.safetensors').exists()", timeout=90)
    page.locator(".jp-Notebook .jp-Cell").last.click()
    cells = page.evaluate("() => window.jupyterapp.shell.currentWidget.content.widgets.length")
    command(page, "insert-starter")
    page.wait_for_function(
        f"() => window.jupyterapp.shell.currentWidget.content.widgets.length === {cells + 1}"
    )
    source = page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel.getSource()"
    )
    assert "experiment.run_fit(search" in source
    command(page, "end")
    accept(page, "End")
    opened.wait_python("experiment.session.thread is None")
    command(page, "export-experiment")
    page.locator(".jp-Dialog input").fill("exported.ipynb")
    accept(page, "Export")
    opened.wait_python("pathlib.Path('exported.ipynb').exists()")
    command(page, "replay")
    accept(page, "Replay")
    latest = "__import__('rf_notebook.experiment').experiment.latest_experiment()"
    opened.wait_python(f"{latest}.experiment_name == 'clicks-replay'")
    page.wait_for_selector(".rfl-header .rfl-name:has-text('clicks-replay')")
    opened.wait_python(f"any('the replay of' in one for one in {latest}.messages)", timeout=120)
    assert "is equal" in opened.python(f"{latest}.messages[-1]")
    listed = page.evaluate(
        "() => window.jupyterapp.commands.listCommands().filter((c) => c.startsWith('rf-notebook:'))"
    )
    assert len(listed) >= 18
    assert not blocked or opened.python("blocks")


def test_a_run_out_of_memory_is_tried_again_by_a_click(notebook, page, screenshot):
    opened = notebook(
        IMPORTS,
        HUNGRY,
    )
    open_sidebar(page)
    opened.run_cell(1)
    opened.run_cell(2)
    page.wait_for_selector(".rfl-run[data-run='1'][data-state='failed']", timeout=120_000)
    click(page, 1, "retry")
    opened.wait_python("len(experiment.runs) == 3")
    assert (
        opened.python("experiment.run(3).config['training_args']['per_device_train_batch_size']")
        == 2
    )
    screenshot("33-tried-again")


def test_a_restarted_kernel_clears_the_sidebar_and_is_linked_again(notebook, page, screenshot):
    opened = launch(notebook)
    bar = open_sidebar(page)
    row(page, 4).wait_for()
    page.wait_for_selector(".rfl-status-button:has-text('clicks')")
    page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()"
    )
    bar.locator(".rfl-hint").wait_for()
    assert page.locator(".rfl-run").count() == 0
    assert page.locator(".rfl-status-button").count() == 0
    page.locator(
        ".jp-OutputArea .rfl-saved"
    ).wait_for()  # the dead panel gives way to the figures as they were
    assert page.locator(".jp-OutputArea .rf-panel").count() == 0
    recorded = bar.locator(".rfl-recorded[data-name='clicks']")
    recorded.wait_for()
    screenshot("34-after-a-restart")
    opened.run_cell(0)
    recorded.get_by_role("button", name="Reopen clicks").click()
    page.wait_for_selector(".rfl-standing[data-standing='interrupted']")
    row(page, 4).wait_for()
    assert opened.python("[name for name in list(globals()) if name == 'experiment']") == []
    opened.run_cell(2)  # Reopen put a cell below the first
    opened.wait_python("'test' in globals()")
    opened.run_cell(3)
    page.wait_for_selector(".rfl-standing[data-standing='training']")
    click(page, 1, "stop")
    opened.wait_python("experiment.run(1).state == 'stopped'")


ON_DISK = """
from rf_notebook.jupyterlab.link import connect
from rf_notebook.testing.fake_session import FakeExperiments, FakeSession, many_runs
told = FakeExperiments(FakeSession(many_runs(2, 5)))
told.on_disk = {
    "old": {"standing": "finished", "runs": 4, "words": "28 Nov 2026, 22:10 · 34 MB · best eval_loss 1.2, run 3"},
    "<b>odd</b>": {"standing": "interrupted", "runs": 1, "words": "<img src=x onerror=alert(1)>"},
}
connect(lambda: told)
"""


def test_an_experiment_on_disk_is_removed_after_a_question(notebook, page, screenshot):
    opened = notebook(ON_DISK)
    opened.run_cell(1)
    bar = open_sidebar(page)
    old = bar.locator(".rfl-recorded[data-name='old']")
    old.locator(".rfl-about", has_text="34 MB · best eval_loss 1.2, run 3").wait_for()
    bar.locator(".rfl-about", has_text="<img src=x onerror=alert(1)>").wait_for()
    assert bar.locator("img").count() == 0
    screenshot("36-on-disk")
    remove = old.get_by_role("button", name="Remove old from the disk")
    remove.click()
    question = page.locator(".jp-Dialog", has_text="Remove old from the disk?")
    question.locator("button", has_text="Cancel").click()
    assert opened.python("list(told.on_disk)") == ["old", "<b>odd</b>"]
    remove.click()
    question.locator("button.jp-mod-warn").click()
    opened.wait_python("list(told.on_disk) == ['<b>odd</b>']")


def test_two_notebooks_with_two_experiments_do_not_mix(notebook, page, lab, screenshot):
    opened = launch(notebook)
    open_sidebar(page)
    row(page, 4).wait_for()
    other = opened.path.parent / "second" / "notebook.ipynb"
    other.parent.mkdir()
    write_notebook(other, [ANSWERING, IMPORTS, RUN.replace("run clicks", "run second")])
    name = str(other.relative_to(lab.root))
    page.evaluate(OPEN, name)
    second = Notebook(lab, page, name)
    page.wait_for_function(
        "(path) => window.jupyterapp.shell.currentWidget?.context?.path === path && "
        "window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'",
        arg=name,
    )
    page.wait_for_selector(".rfl-sidebar .rfl-hint")
    for index in range(3):
        second.run_cell(index)
    page.wait_for_selector(".rfl-header .rfl-name:has-text('second')", timeout=90_000)
    page.wait_for_selector(".rfl-others:has-text('clicks')")
    click(page, 2, "stop")
    second.wait_python("experiment.run(2).state == 'stopped'")
    assert opened.python("experiment.run(2).state") != "stopped"
    screenshot("35-two-notebooks")
    page.evaluate(OPEN, str(opened.path.relative_to(lab.root)))
    page.wait_for_selector(".rfl-header .rfl-name:has-text('clicks')")
    click(page, 1, "stop")
    opened.wait_python("experiment.run(1).state == 'stopped'")
    assert second.python("experiment.run(1).state") != "stopped"
    page.locator(".rfl-other", has_text="second").click()
    page.wait_for_selector(".rfl-header .rfl-name:has-text('second')")
    click(page, 3, "stop")
    second.wait_python("experiment.run(3).state == 'stopped'")
    assert opened.python("experiment.run(3).state") != "stopped"


def test_two_notebooks_on_one_kernel_share_it_also_when_the_first_is_closed(notebook, page, lab):
    opened = launch(notebook)
    open_sidebar(page)
    row(page, 4).wait_for()
    other = opened.path.with_name("second.ipynb")
    write_notebook(other, ["1 + 1"])
    page.evaluate(
        """async ([first, second]) => {
            const app = window.jupyterapp;
            const kernel = app.shell.currentWidget.sessionContext.session.kernel.model;
            await app.commands.execute('docmanager:open', {path: second, kernel: {id: kernel.id}});
        }""",
        [str(opened.path.relative_to(lab.root)), str(other.relative_to(lab.root))],
    )
    page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget.context.path.endsWith('second.ipynb')"
    )
    page.wait_for_selector(".rfl-header .rfl-name:has-text('clicks')")
    click(page, 2, "stop")
    opened.wait_python("experiment.run(2).state == 'stopped'")
    assert page.locator(".rfl-badge:visible").count() == 0, "the second notebook did not launch it"
    page.evaluate(
        """(path) => {
            for (const widget of [...window.jupyterapp.shell.widgets('main')]) {
                if (widget.context?.path === path) { widget.dispose(); }
            }
        }""",
        str(opened.path.relative_to(lab.root)),
    )
    page.wait_for_selector(".rfl-header .rfl-name:has-text('clicks')")
    click(page, 3, "stop")
    opened.wait_python("experiment.run(3).state == 'stopped'")


def test_a_reload_while_a_cell_blocks_and_a_lost_connection_are_survived(notebook, page):
    opened = launch(notebook)
    open_sidebar(page)
    opened.save()
    block(opened)
    page.goto(f"{opened.lab.url}lab/tree/{opened.name}?token={opened.lab.token}")
    page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
    open_sidebar(page)
    row(page, 4).wait_for()
    assert opened.python("blocks"), "what is trained is seen while the cell still blocks"
    click(
        page, 2, "stop"
    )  # JupyterLab itself sends nothing to a kernel that has not told its info: after the cell
    (opened.path.parent / "unblock").touch()
    opened.wait_python("experiment.run(2).state == 'stopped'")
    page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.reconnect()"
    )
    page.wait_for_selector(".rfl-run[data-run='2'][data-state='stopped']")
    click(page, 2, "resume")
    opened.wait_python("experiment.run(2).state != 'stopped'")


def test_failures_and_ends_are_notified_and_the_status_bar_tells(notebook, page, screenshot):
    opened = notebook(
        IMPORTS,
        "grid = search(rates=(5e-4, 1e30)); experiment = Experiment('fails');"
        "experiment.run_fit(grid, load, demo.train_dataset(64), None, num_chunks=2, fail_on_nan=True)",
    )
    open_sidebar(page)
    opened.run_cell(1)
    opened.run_cell(2)
    page.wait_for_selector(".rfl-run[data-state='failed']", timeout=120_000)
    page.wait_for_selector(".rfl-status-button .rfl-failed")
    page.locator(".Toastify__toast", has_text="failed").first.wait_for()
    screenshot("36-a-failed-run")
    opened.wait_python("experiment.wait(0.01)", timeout=120)
    page.locator(".Toastify__toast", has_text="all runs are over").first.wait_for()
    page.locator(".rfl-status-button").click()
    assert page.locator(".rfl-sidebar").is_visible()


def test_the_badge_and_the_metadata(notebook, page, screenshot):
    opened = launch(notebook)
    badge = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .rfl-badge")
    badge.wait_for()
    assert badge.get_attribute("data-kind") == "reproducible"
    saved = opened.save()["metadata"]
    assert set(saved["rf_notebook"]) == {
        "version",
        "experiment",
        "identity",
        "spec",
        "launch",
        "ran",
    }
    assert saved["rf_notebook"]["experiment"] == "clicks"
    assert saved["rf_notebook"]["identity"] == opened.python(
        "experiment.session.state.started.identity"
    )
    assert "widgets" not in saved
    set_source = "([i, text]) => window.jupyterapp.shell.currentWidget.content.widgets[i].model.sharedModel.setSource(text)"
    page.evaluate(set_source, [4, "experiment.best()"])
    page.wait_for_timeout(900)
    assert badge.get_attribute("data-kind") == "reproducible", (
        "a cell after the launch changes nothing"
    )
    page.evaluate(set_source, [1, IMPORTS + "\ngrid = search(rates=(1e-3,))"])
    page.wait_for_selector(".rfl-badge[data-kind='changed']")
    assert "code cell 2 is not as it was run" in badge.get_attribute("title")
    screenshot("37-changed-since-run")
    opened.save()
    opened.python("experiment.cancel_current()")
    opened.lab.stop_kernels()
    page.goto("about:blank")
    reopened = Notebook(opened.lab, page, opened.name).open(kernel=False)
    page.wait_for_selector(".rfl-badge[data-kind='changed']")
    page.evaluate(set_source, [1, IMPORTS])
    page.wait_for_selector(".rfl-badge[data-kind='reproducible']")
    assert reopened.save()["metadata"]["rf_notebook"] == saved["rf_notebook"]
