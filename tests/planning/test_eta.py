"""When will the runs be done?"""

from rf_notebook.planning.eta import Pace, remaining_seconds


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
