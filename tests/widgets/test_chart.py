"""What a chart sends: whole figures to pages that ask, then only what changed."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from rf_notebook.testing.fake_session import FakeSession, many_runs, points
from rf_notebook.views.curves import Figure, Trace
from rf_notebook.widgets.chart import Chart, changes
from rf_notebook.widgets.panel import Panel


class Page:
    """What static/chart.js does with messages."""

    def __init__(self, chart):
        self.layout, self.keys, self.traces, self.seq = {}, [], {}, -1
        self.received, self.asked = [], 0
        self._chart = chart
        send = chart.send

        def hear(message, buffers=None):
            send(message, buffers)
            if message["kind"] == "figure":
                self.take(message, buffers)

        chart.send = hear

    def ask(self):
        self.asked += 1
        self._chart._received(self._chart, {"kind": "whole"}, [])  # noqa: SLF001 - as a page's message arrives

    def take(self, message, buffers):
        if not message.get("whole") and message["seq"] != self.seq + 1:
            return
        self.received.append(message)
        self.seq = message["seq"]
        if message.get("whole"):
            self.layout, self.keys, self.traces = {}, [], {}
        self.layout = message.get("layout", self.layout)
        x, y = (np.frombuffer(one, np.float32) for one in buffers)
        start = 0
        for given in message.get("traces", []):
            props = {name: value for name, value in given.items() if name not in ("key", "n")}
            part = slice(start, start + given["n"])
            self.traces[given["key"]] = (props, x[part].tolist(), y[part].tolist())
            start += given["n"]
        self.keys = message.get("keys", self.keys)
        self.traces = {key: self.traces[key] for key in self.keys}

    @property
    def drawn(self):
        return self.layout, [self.traces[key] for key in self.keys]


def whole(figure):
    return figure.layout, [
        (t.props, t.x_N.astype(np.float32).tolist(), t.y_N.astype(np.float32).tolist())
        for t in figure.traces
    ]


def a_figure(dice):
    """Some of a few traces, in any order, with changing points."""
    keys = dice.sample(range(6), dice.randint(0, 6))
    traces = [
        Trace(
            {"name": f"run {key}", "width": dice.choice([1, 3])},
            np.arange(dice.randint(0, 3), dtype=float),
            np.array([]),
            key=dice.choice([f"run {key}"]),
        )
        for key in keys
    ]
    for trace in traces:
        trace.y_N = trace.x_N * dice.choice([1.0, 2.0])
    return Figure(traces=traces, layout={"title": dice.choice("ab")})


@pytest.mark.parametrize("seed", range(20))
def test_a_page_draws_the_figure_that_was_shown_last(seed):
    dice = random.Random(seed)
    chart = Chart()
    chart.show(a_figure(dice))
    page = Page(chart)
    page.ask()
    for _ in range(30):
        figure = a_figure(dice)
        chart.show(figure)
        assert page.drawn == whole(figure)
        chart.show(figure)
        assert page.drawn == whole(figure)


def test_nothing_is_sent_before_a_page_asks_and_nothing_that_it_has():
    dice = random.Random(3)
    chart = Chart()
    page = Page(chart)
    chart.show(a_figure(dice))
    assert not page.received
    figure = Figure(
        traces=[Trace({"name": str(i)}, np.arange(9.0), np.arange(9.0)) for i in range(3)]
    )
    chart.show(figure)
    page.ask()
    assert len(page.received) == 1
    chart.show(Figure(traces=list(figure.traces)))
    assert len(page.received) == 1
    other = Trace({"name": "1"}, np.arange(9.0), np.zeros(9))
    chart.show(Figure(traces=[figure.traces[0], other, figure.traces[2]]))
    assert [one["key"] for one in page.received[-1]["traces"]] == ["#1"]
    assert "keys" not in page.received[-1]
    assert "layout" not in page.received[-1]


def test_a_page_that_missed_an_update_does_not_draw_the_next_one():
    dice = random.Random(5)
    chart = Chart()
    page = Page(chart)
    page.ask()
    page.seq -= 1
    before = page.drawn
    chart.show(Figure(layout={"title": "new"}))
    assert page.drawn == before
    page.ask()
    assert page.drawn == ({"title": "new"}, [])
    chart.show(a_figure(dice))
    assert len(page.received) == 3


def test_only_the_curve_of_the_run_that_trained_is_sent():
    fake = FakeSession(many_runs(16, 200))
    panel = Panel(fake, fake)
    page = Page(panel.curves.chart)
    page.ask()
    fake.add_live(5, points(5, 20, first=201))
    panel.update()
    assert [one["key"] for one in page.received[-1]["traces"]] == ["run 5"]
    panel.table.selected = [3]
    assert len(page.received[-1]["traces"]) == 16, "the others step back"
    frame = panel.curves.chart.frame
    assert page.drawn[0] == frame["layout"]
    assert page.keys == frame["keys"]


def test_a_hostile_key_is_a_key():
    figure = Figure(traces=[Trace({}, np.zeros(1), np.zeros(1), key="__proto__")])
    message, _ = changes(Figure(), figure)
    assert message["keys"] == ["__proto__"]


def test_a_last_point_that_changes_is_sent():
    fake = FakeSession(many_runs(2, 20))
    panel = Panel(fake, fake)
    page = Page(panel.curves.chart)
    (point,) = points(1, 1, first=21)
    fake.add_live(1, [point])
    panel.update()
    page.ask()
    fake.recent_state.live[1].points[-1] = replace(point, metrics={"loss": 9.0})
    panel.update()
    assert page.traces["run 1"][2][-1] == 9.0
