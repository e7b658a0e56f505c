"""Which columns has the table of runs, and what is in them?"""

from __future__ import annotations

from dataclasses import replace

from rf_notebook.core.state import LiveRun
from rf_notebook.core.status import Status
from rf_notebook.testing.fake_session import many_runs
from rf_notebook.views.document import text_of
from rf_notebook.views.header import header
from rf_notebook.views.words import number
from tests.widgets.test_views import view_of


def test_the_table_tells_who_trains_with_whom_and_why_not():
    state = many_runs(3, 5)
    assert "joint" not in [column.key for column in view_of(state).columns]
    state.runs[1] = replace(state.runs[1], fused_with=(3,))
    state.runs[2] = replace(state.runs[2], alone_because="DoRA scales the base weights by its own")
    view = view_of(state)
    (column,) = [column for column in view.columns if column.key == "joint"]
    assert [(column.text(row), column.hint(row)) for row in view.rows] == [
        ("joint", "with 3"),
        ("alone", "alone: DoRA scales the base weights by its own"),
        ("", ""),
    ], "a word in the table, the rest for whoever points at it"
    state.runs[3] = replace(state.runs[3], is_joint=True)
    assert column.text(view_of(state).rows[2]) == "by itself"
    state.live[3] = LiveRun(state.runs[3].progress, fused_with=(1, 4))
    row = view_of(state).rows[2]
    assert (column.text(row), column.hint(row)) == ("joint", "with 1, 4")


def test_what_a_method_is_about_has_its_column_before_what_it_is_tuned_by():
    names = (
        "loss",
        "clip_ratio/high_mean",
        "completions/mean_length",
        "kl",
        "reward",
        "reward_std",
    )
    view = view_of(many_runs(2, 5, metrics=names))
    metrics = [column.key for column in view.columns if column.key in names]
    assert metrics == ["loss", "reward", "kl", "clip_ratio/high_mean"]


def test_the_header_tells_tokens_a_second_where_runs_count_them():
    plain = many_runs(2, 5)
    assert "tokens/s" not in text_of(header("fake", plain, Status(open=True)))
    state = many_runs(2, 5, metrics=("loss", "num_tokens"))
    counted = sum(run.points[-1][-1].metrics["num_tokens"] for run in state.runs.values())
    seconds = sum(run.train_seconds + run.overhead_seconds for run in state.runs.values())
    assert f"{number(counted / seconds)}  tokens/s" in text_of(
        header("fake", state, Status(open=True))
    )
