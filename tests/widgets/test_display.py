"""What each front end gets.

A live panel with its static twin, or the twin alone, refreshed in place.
"""

from __future__ import annotations

import sys
import types

import pytest
from IPython.core.displaypub import CapturingDisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from rf_notebook.magic import doctor
from rf_notebook.testing.fake_session import FakeSession, many_runs
from rf_notebook.views.saved import PANEL_MIME
from rf_notebook.widgets import display as module
from rf_notebook.widgets.display import WIDGET_MIME, ExperimentDisplay
from rf_notebook.widgets.front_end import FrontEnd, front_end

pytestmark = pytest.mark.filterwarnings("ignore:.*comm.*")


@pytest.fixture
def outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    InteractiveShell.clear_instance()
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell.instance(config=config, display_pub_class=CapturingDisplayPublisher)
    yield shell.display_pub.outputs
    InteractiveShell.clear_instance()


def shown_in(where, monkeypatch):
    monkeypatch.setattr(module, "front_end", lambda: where)
    fake = FakeSession(many_runs(2, 20))
    shown = ExperimentDisplay(fake, fake)
    shown.show()
    return shown


@pytest.mark.parametrize("where", [FrontEnd.JUPYTER, FrontEnd.VSCODE])
def test_where_widgets_live_the_panel_comes_first_and_its_twin_after_it(
    outputs, monkeypatch, where
):
    shown = shown_in(where, monkeypatch)
    live, static = (output["data"] for output in outputs)
    assert live[WIDGET_MIME]["model_id"] == shown.panel.widget.model_id
    assert static[PANEL_MIME]["model_id"] == shown.panel.widget.model_id
    assert WIDGET_MIME not in static
    shown.close()


@pytest.mark.parametrize(
    "where", [FrontEnd.COLAB, FrontEnd.KAGGLE, FrontEnd.HEADLESS, FrontEnd.TERMINAL]
)
def test_elsewhere_there_is_the_twin_alone(outputs, monkeypatch, where):
    shown_in(where, monkeypatch)
    (static,) = (output["data"] for output in outputs)
    assert WIDGET_MIME not in static
    assert {"text/html", "text/plain", PANEL_MIME} <= set(static)


@pytest.mark.parametrize(
    ("where", "moves"),
    [
        (FrontEnd.COLAB, True),
        (FrontEnd.KAGGLE, True),
        (FrontEnd.VSCODE, True),
        (FrontEnd.JUPYTER, False),
        (FrontEnd.HEADLESS, False),
    ],
)
def test_a_waiting_cell_refreshes_the_twin_where_nothing_else_moves(
    outputs, monkeypatch, where, moves
):
    shown = shown_in(where, monkeypatch)
    shown.close()  # the live panel's own refreshes would be counted, too
    before = len(outputs)
    shown._refreshed_at = -100.0  # noqa: SLF001 - no clock is waited for
    shown.refresh_while_waiting()
    shown.refresh_while_waiting()
    assert len(outputs) - before == (1 if moves else 0)
    if moves:
        assert outputs[-1]["update"]
        assert outputs[-1]["transient"]["display_id"] == shown._static_id  # noqa: SLF001 - no clock is waited for


def test_a_kernel_without_a_page_says_what_ends_with_it_until_a_cell_waits(outputs, monkeypatch):
    words = "call experiment.wait()"
    shown = shown_in(FrontEnd.HEADLESS, monkeypatch)
    for kind in ("text/html", "text/plain"):
        assert words in outputs[-1]["data"][kind]
    shown.refresh_while_waiting()
    shown.refresh()
    assert words not in outputs[-1]["data"]["text/html"]
    for where in (FrontEnd.COLAB, FrontEnd.TERMINAL):
        shown_in(where, monkeypatch)
        assert words not in outputs[-1]["data"]["text/html"]


def test_a_value_at_the_end_of_the_cell_that_showed_it_is_not_shown_twice(outputs, monkeypatch):
    shown = shown_in(FrontEnd.HEADLESS, monkeypatch)
    shown._ipython_display_()
    assert len(outputs) == 1
    InteractiveShell.instance().execution_count += 1
    shown._ipython_display_()
    assert len(outputs) == 2


def test_marimo_gets_the_figures_and_is_told_how_to_get_newer_ones(monkeypatch):
    marimo = types.ModuleType("marimo")
    marimo.running_in_notebook = lambda: True
    monkeypatch.setitem(sys.modules, "marimo", marimo)
    assert front_end() is FrontEnd.MARIMO
    fake = FakeSession(many_runs(2, 20))
    kind, html = ExperimentDisplay(fake, fake)._mime_()
    assert kind == "text/html"
    assert "<img" in html
    assert "run it again for newer ones" in html
    marimo.running_in_notebook = lambda: False
    assert front_end() is FrontEnd.SCRIPT


def test_what_was_refused_is_taken_away(outputs, monkeypatch):
    shown = shown_in(FrontEnd.JUPYTER, monkeypatch)
    shown.withdraw()
    assert outputs[-1]["data"] == {"text/html": "", "text/plain": ""}
    assert shown.panel.widget.layout.display == "none"
    shown.show()
    assert shown.panel.widget.layout.display is None
    shown.close()


@pytest.mark.parametrize("where", FrontEnd)
def test_the_doctor_says_what_each_front_end_shows(monkeypatch, tmp_path, where):
    monkeypatch.setattr(doctor, "front_end", lambda: where)
    (found,) = doctor._front_end(tmp_path)  # noqa: SLF001 - the others load torch
    assert found.words.startswith(f"{where}: ")


@pytest.mark.parametrize(
    ("environment", "modules", "expected"),
    [
        ({"JPY_SESSION_NAME": "n.ipynb"}, [], FrontEnd.JUPYTER),
        ({}, [], FrontEnd.HEADLESS),
        ({"VSCODE_PID": "1", "JPY_SESSION_NAME": "n"}, [], FrontEnd.VSCODE),
        ({}, ["google.colab"], FrontEnd.COLAB),
        ({"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, [], FrontEnd.KAGGLE),
    ],
)
def test_the_front_end_is_recognised(outputs, monkeypatch, environment, modules, expected):
    shell = InteractiveShell.instance()
    monkeypatch.setattr(shell, "kernel", object(), raising=False)
    for name in modules:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    assert front_end(environment) is expected
    monkeypatch.delattr(shell, "kernel")
    assert front_end(environment) is FrontEnd.TERMINAL
