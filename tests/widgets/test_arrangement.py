"""How a person arranges the panel is remembered, and nothing that was written by others does harm."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rf_notebook.store import layout
from rf_notebook.store.panel_file import read_arrangement, write_arrangement
from rf_notebook.testing.fake_session import FakeSession, many_runs
from rf_notebook.views.arrangement import Arrangement, ChartArrangement
from rf_notebook.widgets.panel import Panel
from tests.widgets.hostile import TEXTS

METRICS = ("loss", "eval_loss", "reward", "kl")
LR = "training_args.learning_rate"


def keys(panel):
    return [column["key"] for column in panel.table.columns]


def test_the_next_panel_is_as_the_last_one_was():
    fake = FakeSession(many_runs(4, 10, metrics=METRICS))
    panel = Panel(fake, fake)
    assert fake.arranged is None, "nothing was arranged"
    panel.table.chosen = ["loss", LR, "kl", "seed"]
    panel.table.pinned = [LR]
    panel.table.widths = {"loss": 130}
    panel.table.hidden = [3]
    panel.table.sort = ["loss", True]
    panel.grid.do("baseline", 2)
    panel.curves.add.click()
    panel.curves.charts[1].metric.widget.value = "kl"
    panel.curves.charts[1].log_scale.value = True
    panel.curves.charts[0].y_range.value = "0.5 to 2.5"
    panel.curves.charts[0].smoothing.value = 0.5
    panel.curves.x_axis.widget.value = "step"
    panel.grid.group_by.value = LR
    assert keys(panel) == ["run", LR, "loss", "kl"]
    again = Panel(fake, fake)
    assert again.arrangement == panel.arrangement
    assert again.table.rows == panel.table.rows
    assert keys(again) == keys(panel)
    assert [one.metric.value for one in again.curves.charts] == ["eval_loss", "kl"]
    assert again.curves.charts[0].chart.frame == panel.curves.charts[0].chart.frame
    assert again.curves.charts[1].chart.frame["layout"]["yaxis"]["type"] == "log"
    assert again.arrangement.charts[0] == ChartArrangement(metric=None, smoothing=0.5, y=(0.5, 2.5))


def test_a_metric_that_is_not_logged_yet_is_waited_for():
    fake = FakeSession(many_runs(2, 5))
    fake.arranged = Arrangement(charts=(ChartArrangement(metric="reward"),)).as_json()
    panel = Panel(fake, fake)
    assert panel.curves.metric.value == "loss"
    fake.recent_state = many_runs(2, 5, metrics=METRICS)
    panel.series = type(panel.series)()
    panel.update()
    assert panel.curves.metric.value == "reward"


@pytest.mark.parametrize("words", ["", "all", "2 to 1", "1 to nan", "x to y", "1e31 to 1e32", "3"])
def test_what_is_no_range_shows_everything(words):
    fake = FakeSession(many_runs(2, 5))
    panel = Panel(fake, fake)
    panel.curves.charts[0].y_range.value = words
    assert "range" not in panel.curves.chart.frame["layout"]["yaxis"]


def test_a_range_on_a_logarithmic_axis():
    fake = FakeSession(many_runs(2, 5))
    panel = Panel(fake, fake)
    chart = panel.curves.charts[0]
    chart.log_scale.value = True
    chart.y_range.value = "0.1..10"
    assert chart.chart.frame["layout"]["yaxis"]["range"] == pytest.approx([-1, 1])
    chart.y_range.value = "0 to 10"
    assert "range" not in chart.chart.frame["layout"]["yaxis"], "zero lies nowhere on it"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(TEXTS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = list(Arrangement().as_json())
CHART = st.dictionaries(st.sampled_from(["metric", "smoothing", "log", "y"]), ANYTHING)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), ANYTHING | st.lists(CHART | ANYTHING)) | ANYTHING)
def test_whatever_was_written_gives_an_arrangement(written):
    read = Arrangement.from_json(written)
    assert Arrangement.from_json(json.loads(json.dumps(read.as_json()))) == read
    assert read.charts
    for chart in read.charts:
        assert 0 <= chart.smoothing < 1
        assert chart.y is None or (math.isfinite(chart.y[0]) and chart.y[0] < chart.y[1])


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), ANYTHING | st.lists(CHART | ANYTHING)))
def test_whatever_was_written_is_drawn(written):
    fake = FakeSession(many_runs(3, 5))
    fake.arranged = written
    panel = Panel(fake, fake)
    assert {row["run"] for row in panel.table.rows if "run" in row} <= {1, 2, 3}
    assert panel.curves.chart.frame["traces"]


def test_the_file_is_no_way_out_of_the_folder(tmp_path):
    assert read_arrangement(tmp_path) is None
    write_arrangement(tmp_path, {"x": "step"})
    assert read_arrangement(tmp_path) == {"x": "step"}
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_text('{"x": "epoch"}')
    layout.panel(tmp_path).unlink()
    layout.panel(tmp_path).symlink_to(elsewhere)
    assert read_arrangement(tmp_path) is None, "links are not followed"
    write_arrangement(tmp_path, {"x": "step"})
    assert elsewhere.read_text() == '{"x": "epoch"}'
    assert read_arrangement(tmp_path) == {"x": "step"}
    for wrong in (b"{", b"[" * 100_000, b"\xff", b'"x"'):
        layout.panel(tmp_path).write_bytes(wrong)
        assert Arrangement.from_json(read_arrangement(tmp_path)) == Arrangement()
    write_arrangement(tmp_path / "gone", {})
