"""What explains a metric, and in what runs differ."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rf_notebook.testing.fake_session import FakeSession, many_runs
from rf_notebook.views.compare import scatter_figure
from rf_notebook.views.document import text_of
from rf_notebook.views.knobs import importance, knobs_page
from rf_notebook.widgets.panel import Panel
from tests.widgets.test_views import view_of

LR, R = "training_args.learning_rate", "peft_config.r"


def rows_of(values):
    """Runs with these (rate, rank, loss)."""
    some = view_of(many_runs(1, 5)).rows[0]
    return [
        replace(
            some,
            run_id=i,
            knobs={LR: rate, R: rank},
            config={LR: rate, R: rank},
            latest={"loss": loss},
        )
        for i, (rate, rank, loss) in enumerate(values, start=1)
    ]


def test_a_knob_that_decides_explains_everything_and_one_that_does_nothing_nothing():
    rows = rows_of([(1, 8, 1.0), (1, 16, 1.0), (2, 8, 3.0), (2, 16, 3.0)])
    assert importance(rows, "loss") == [(LR, 1.0), (R, 0.0)]


def test_two_knobs_that_add_up_share_it():
    rows = rows_of([(1, 8, 0.0), (1, 16, 1.0), (2, 8, 3.0), (2, 16, 4.0)])
    shares = dict(importance(rows, "loss"))
    assert shares == {LR: pytest.approx(0.9), R: pytest.approx(0.1)}


def test_what_says_nothing_is_left_out():
    rows = rows_of([(1, 8, 0.0), (2, 8, 1.0), (3, 8, 3.0), (4, 8, 4.0)])
    assert importance(rows, "loss") == [], "each has its own rate, all have one rank"
    assert importance(rows[:3], "loss") == []
    assert importance(rows_of([(1, 8, 1.0), (1, 16, 1.0), (2, 8, 1.0), (2, 16, 1.0)]), "loss") == []
    nan = float("nan")
    assert importance(rows_of([(1, 8, nan)] * 4), "loss") == []
    assert importance(rows, "nothing") == []


def test_only_differences_are_shown_of_the_selected_runs():
    view = view_of(many_runs(4, 5))
    shown = text_of(knobs_page(view, [1, 3]))
    assert "in what the selected runs differ" in shown
    assert LR in shown
    assert R in shown
    assert "model_name" not in shown
    assert "run 2" not in shown
    assert "in what these runs differ" in text_of(knobs_page(view, [1]))
    assert "They have the same config" in text_of(
        knobs_page(replace(view, rows=(view.rows[0], replace(view.rows[0], run_id=9))), [])
    )
    assert text_of(knobs_page(view_of(many_runs(1, 5)), [])) == ""


def test_the_page_of_many_runs_says_which_it_compares():
    fake = FakeSession(many_runs(20, 5))
    panel = Panel(fake, fake)
    panel.tabs.page = "Compare"
    assert "the first 12 runs" in text_of(panel.compare.knobs.root)
    assert "Importance of knobs" in text_of(panel.compare.knobs.root)


def test_no_number_lies_over_another_and_the_selected_have_theirs():
    view = view_of(many_runs(40, 5, metrics=("loss", "eval_loss")))
    (trace,) = [
        one
        for one in scatter_figure(view, "loss", "eval_loss", [39, 40]).traces
        if "text" in one.props
    ]
    named = [name for name in trace.props["text"] if name]
    assert {"39"} <= set(named)
    assert len(named) < 40
    crowd = replace(
        view, rows=tuple(replace(row, latest={"loss": 1.0, "eval_loss": 1.0}) for row in view.rows)
    )
    (trace,) = [
        one for one in scatter_figure(crowd, "loss", "eval_loss", [7]).traces if "text" in one.props
    ]
    assert [name for name in trace.props["text"] if name] == ["7"]
