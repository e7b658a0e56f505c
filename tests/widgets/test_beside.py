"""Two experiments side by side, on the page that compares."""

from __future__ import annotations

import threading

import pytest

from rf_notebook.core.errors import ConfigError
from rf_notebook.record.differences import Difference
from rf_notebook.testing.fake_session import FakeSession, many_runs
from rf_notebook.views.differences import differences_table
from rf_notebook.views.document import text_of, to_html
from rf_notebook.widgets.beside import BesideAnother
from rf_notebook.widgets.panel import Panel
from tests.widgets.hostile import TEXTS

pytestmark = pytest.mark.filterwarnings("ignore:.*comm.*")


@pytest.fixture
def fake():
    return FakeSession(many_runs(2, 5))


def chosen(page, name):
    """What is said once another experiment was read."""
    page.other.widget.value = name
    for thread in threading.enumerate():
        if thread.name == "rf-beside":
            thread.join(10)
    return text_of(page.table.root)


def found(*values):
    return [Difference("configs", f"run {n}: r", one, "8") for n, one in enumerate(values, 1)]


def test_another_experiment_is_chosen_and_what_differs_is_shown(fake):
    fake.beside = {"other": found("4", "16"), "same": [], "odd": ConfigError("it has no runs yet.")}
    panel = Panel(fake, fake)
    panel.show_page("Compare")
    panel.update()
    choice = panel.beside.other.widget
    assert choice.options == ("no other experiment", "odd", "other", "same")
    told = chosen(panel.beside, "other")
    assert "run 2: r" in told
    assert "16" in told
    assert told.count("configs") == 1, "said once for its lines"
    assert "do not differ" in chosen(panel.beside, "same")
    assert chosen(panel.beside, "odd") == "odd cannot be compared: it has no runs yet."
    fake.beside["odd"] = KeyError("damaged")
    panel.beside.other.widget.value = "no other experiment"
    assert "odd cannot be compared" in chosen(panel.beside, "odd"), "whatever is raised"
    assert chosen(panel.beside, "no other experiment") == ""
    panel.close()


def test_of_two_choices_the_last_one_is_shown_whichever_is_read_first(fake, monkeypatch):
    fake.beside = {"slow": found("4"), "quick": []}
    page, go_on = BesideAnother("mine", fake), threading.Event()
    page.look()

    def differences_from(name):
        if name == "slow":
            go_on.wait(10)
        return fake.beside[name]

    monkeypatch.setattr(fake, "differences_from", differences_from)
    page.other.widget.value = "slow"
    assert text_of(page.table.root) == "reading slow …"
    page.other.widget.value = "quick"
    go_on.set()
    assert "do not differ" in chosen(page, "quick")


def test_a_table_is_text_and_has_an_end():
    made = [Difference(text, text, text, text) for text in TEXTS]
    assert "<script" not in to_html(differences_table(made, TEXTS[0], TEXTS[1]))
    many = to_html(differences_table(found(*["4"] * 5000), "a", "b"))
    assert "and 4800 more" in many
    assert len(many) < 60_000
