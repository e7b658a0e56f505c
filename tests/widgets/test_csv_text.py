"""What is taken away as CSV is what is shown, in full, and computes nothing."""

from __future__ import annotations

import csv
import io

from rf_notebook.results.frames import results_frame
from rf_notebook.testing.fake_session import FakeSession, many_runs
from rf_notebook.views.csv_text import points_csv, table_csv
from rf_notebook.views.runs_table import runs_view
from rf_notebook.views.series import ExperimentSeries
from rf_notebook.widgets.panel import Panel
from tests.widgets.hostile import hostile_state


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


def view_of(state):
    series = ExperimentSeries()
    series.update(state)
    return runs_view(state, series, "loss")


def test_points_are_all_that_was_logged():
    state = many_runs(3, 20, metrics=("loss", "eval_loss"))
    rows = read(points_csv(state, [1, 3]))
    frame = results_frame(state)
    expected = frame[frame.run_id != 2]
    assert [int(row["run"]) for row in rows] == list(expected.run_id)
    assert [float(row["loss"]) for row in rows] == list(expected.loss), "no digit is lost"


def test_a_table_has_its_columns_and_numbers_in_full():
    view = view_of(many_runs(3, 20))
    rows = read(table_csv(view))
    assert list(rows[0]) == [column.key for column in view.columns]
    assert [float(row["loss"]) for row in rows] == [row.latest["loss"] for row in view.rows]


def test_a_text_of_others_is_no_formula():
    for text in (table_csv(view_of(hostile_state())), points_csv(hostile_state(), range(1, 9))):
        cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
        starts = [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
        assert all(_is_number(cell) for cell in starts), starts


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_a_page_gets_the_runs_that_are_shown():
    fake = FakeSession(many_runs(4, 5))
    panel = Panel(fake, fake)
    sent = []
    panel.table.send = lambda content: sent.append(content)
    panel.table.hidden = [2]
    for what in ("table", "points", "../x"):
        panel.table._received(None, {"kind": "csv", "what": what, "id": "7"}, [])  # noqa: SLF001 - as a page asks
    assert [(one["what"], one["id"]) for one in sent] == [("table", "7"), ("points", "7")]
    assert {row["run"] for row in read(sent[0]["text"])} == {"1", "3", "4"}
    assert {row["run"] for row in read(sent[1]["text"])} == {"1", "3", "4"}
