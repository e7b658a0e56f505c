"""The form for names, tags and notes, and where they appear."""

from __future__ import annotations

import pytest

from rf_notebook.testing.fake_session import FakeSession, many_runs
from rf_notebook.views.document import text_of
from rf_notebook.widgets.panel import Panel


@pytest.fixture
def fake():
    return FakeSession(many_runs(3, 5))


@pytest.fixture
def panel(fake):
    return Panel(fake, fake)


def typed(panel, runs, **given):
    panel.table.selected = runs
    if runs:
        panel.clicked("label")
    else:
        panel.label.click()
    form = panel.label_form
    assert form.box.layout.display is None
    for name, value in given.items():
        getattr(form, name).value = value
    form.save.click()
    assert form.box.layout.display == "none"


def cells(panel, key):
    keys = [column["key"] for column in panel.table.columns]
    if key not in keys:
        return None
    return {row["run"]: row["cells"][keys.index(key)] for row in panel.table.rows}


def test_a_label_is_in_the_table_the_curves_and_the_filter(panel, fake):
    assert cells(panel, "name") is None
    assert cells(panel, "tags") is None
    typed(panel, [2], name="small rate", tags="keep,  paper ,", note="long story")
    assert fake.asked == [("label", [2], "button", "small rate", ("keep", "paper"), "long story")]
    assert cells(panel, "name") == {1: "", 2: "small rate …", 3: ""}
    assert cells(panel, "tags")[2] == "keep, paper"
    (row,) = [row for row in panel.table.rows if row["run"] == 2]
    assert "long story" in row["hints"].values()
    names = {trace["meta"]["run"]: trace["name"] for trace in panel.curves.chart.frame["traces"]}
    assert names == {1: "run 1", 2: "run 2 · small rate", 3: "run 3"}
    for words in ("story", "name ~ small", "tags ~ keep", "paper"):
        panel.shown.filter.value = words
        assert [row["run"] for row in panel.table.rows] == [2], words


def test_what_is_not_changed_is_not_asked_for(panel, fake):
    typed(panel, [2], name="small rate")
    typed(panel, [2])
    typed(panel, [2], note="more")
    assert [one[3:] for one in fake.asked] == [
        ("small rate", None, None),
        (None, None, "more"),
    ]
    panel.table.selected = [2]
    panel.clicked("label")
    panel.label_form.name.value = "other"
    panel.label_form.cancel.click()
    assert len(fake.asked) == 2


def test_of_several_runs_what_each_has_besides_stays(panel, fake):
    typed(panel, [1], tags="keep, one")
    typed(panel, [2], tags="keep, two", note="of two")
    panel.table.selected = [1, 2]
    panel.clicked("label")
    assert panel.label_form.tags.value == "keep"
    assert panel.label_form.note.value == ""
    assert panel.label_form.name.layout.display == "none"
    panel.label_form.tags.value = "new"
    panel.label_form.save.click()
    label = fake.recent_state.label
    assert label(1).tags == ("one", "new")
    assert (label(2).tags, label(2).note) == (("two", "new"), "of two")


def test_the_experiment_is_labelled_above_everything(panel):
    typed(panel, [], tags="first", note="which rate?")
    assert "which rate?" in text_of(panel.header.root)
    assert "first" in text_of(panel.header.root)


def test_a_wrong_label_is_refused_where_it_was_typed(panel, fake):
    typed(panel, [1], name="x" * 61)
    assert "one line of up to 60 characters" in text_of(panel.toast.root)
    assert not fake.recent_state.labels
