"""Who is next is a pure function of what was done."""

from rf_notebook.planning.eta import Pace, remaining_seconds
from rf_notebook.planning.scheduler import Candidate, Idle, Turn, next_turn


def run(run_id, samples=0, in_chunk=False):
    return Candidate(run_id=run_id, samples_done=samples, in_chunk=in_chunk)


def test_nobody_waiting_is_idle():
    assert next_turn([]) == Idle()


def test_the_run_with_the_fewest_samples_is_next_and_ties_go_by_id():
    assert next_turn([run(1, 20), run(2, 10), run(3, 10)]) == Turn(2)


def test_a_clone_catches_up_before_it_rotates():
    assert next_turn([run(1, 80), run(2, 80), run(3, 0)]) == Turn(3)
    assert next_turn([run(1, 80), run(2, 80), run(3, 60)]) == Turn(3)


def test_a_chunk_that_was_begun_is_finished_first():
    assert next_turn([run(1, 0), run(2, 40, in_chunk=True)]) == Turn(2)


def test_runs_that_take_turns_end_after_what_the_others_train_meanwhile():
    left = remaining_seconds(
        [
            Pace(run_id=1, samples_left=10, seconds_per_sample=1.0),
            Pace(run_id=2, samples_left=30, seconds_per_sample=2.0),
        ]
    )
    assert left == {1: 10 + 20, 2: 10 + 60}


def test_a_run_without_a_pace_is_taken_for_average_and_no_pace_at_all_gives_nothing():
    assert remaining_seconds([Pace(run_id=1, samples_left=10, seconds_per_sample=None)]) == {}
    left = remaining_seconds(
        [
            Pace(run_id=1, samples_left=10, seconds_per_sample=None),
            Pace(run_id=2, samples_left=0, seconds_per_sample=3.0),
        ]
    )
    assert left[1] == 30
