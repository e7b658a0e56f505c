"""Pages of the panel: who trained when, what runs write."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from rf_notebook.core.events import RunAdded, SamplesWritten
from rf_notebook.core.run import Generation
from rf_notebook.testing.fake_session import config, points, recorded_state, started, trained
from rf_notebook.views.document import text_of, to_html
from rf_notebook.views.samples import samples
from rf_notebook.views.schedule import schedule, shares


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0.001, 1e6))
def test_shares_of_a_time_add_up_to_a_hundred_whatever_overlaps(trained, rest, had):
    parts = shares(trained, rest, had)
    assert sum(round(10 * part) for part in parts) == 1000
    assert all(part >= 0 for part in parts)


def test_what_runs_that_are_hidden_did_is_no_waiting():
    events = [trained(1, points(1, 5)), trained(2, points(2, 5)), trained(1, points(1, 9))]
    state = recorded_state(
        [started(), *(RunAdded(run_id=i, config=config()) for i in (1, 2)), *events]
    )
    for at, turn in enumerate(state.turns):
        state.turns[at] = replace(
            turn, ended_at=1000 + 2.5 * at, train_seconds=2.0, overhead_seconds=0.5
        )
    assert "80.0% training, 20.0% evaluating" in to_html(schedule(state))
    assert "80.0% training, 20.0% evaluating" in to_html(schedule(state, shown=[1]))
    assert "0.0% handing over and waiting" in to_html(schedule(state, shown=[1]))


def test_samples_show_what_a_person_asked_beside_what_the_data_answer():
    marked = "<|im_start|>user\nWhere is it?<|im_end|>\n<|im_start|>assistant\n"
    events = [started()]
    for run_id in (1, 2):
        events.append(RunAdded(run_id=run_id, config=config()))
        generation = Generation(
            prompt=marked, text=f"here {run_id}", asked="user: Where is it?", expected="There."
        )
        events.append(SamplesWritten(run_id=run_id, steps=1, samples=4, generations=(generation,)))
    words = text_of(samples(recorded_state(events), []))
    for part in ("user: Where is it?", "in the data", "There.", "here 1", "here 2"):
        assert words.count(part) == 1
    assert "im_start" not in words
    plain = Generation(prompt="Where?", text="here")
    events = [*events[:2], SamplesWritten(run_id=1, steps=1, samples=4, generations=(plain,))]
    assert "in the data" not in text_of(samples(recorded_state(events), []))
