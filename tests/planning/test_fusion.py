"""Who trains together, and which way execution="auto" takes."""

import pytest

from rf_notebook.planning.fusion import (
    TIMED_STEPS,
    WARM_UP_STEPS,
    Fusible,
    Trial,
    Way,
    group_of,
    suggestions,
)


def run(run_id, key="base", chunks=0):
    return Fusible(run_id=run_id, key=key, chunks_done=chunks)


@pytest.mark.parametrize(
    ("chosen", "waiting", "expected"),
    [
        (2, [run(3), run(2), run(1)], (1, 2, 3)),
        (1, [run(1), run(2, key="other base"), run(3)], (1, 3)),
        (1, [run(1, key=None), run(2), run(3, key=None)], (1,)),
        (2, [run(1, key=None), run(2), run(3, key=None)], (2,)),
        (4, [run(1, chunks=2), run(2, chunks=2), run(4)], (4,)),
        (1, [run(1, chunks=2), run(2, chunks=2), run(4)], (1, 2)),
    ],
)
def test_those_with_one_key_at_one_chunk_train_together(chosen, waiting, expected):
    assert group_of(chosen, waiting) == expected


def test_a_newcomer_is_told_how_many_could_train_together():
    assert suggestions(["one base", None, "other base"]) == []
    assert suggestions([]) == []
    (text,) = suggestions(["one base", "other base", None, "other base", "other base"])
    assert text.startswith("3 of these runs could train in joint steps")
    assert "execution='auto'" in text


def played(alone, together):
    """The ways that a trial asks for, with how many steps, until it is over."""
    trial, asked = Trial(), []
    while not trial.is_over:
        way, steps = trial.next_way(), trial.next_steps()
        asked.append((way, steps))
        trial.trained(way, steps * (alone if way is Way.ALONE else together))
    return trial, asked


def test_a_trial_warms_up_and_times_each_way_once():
    _, asked = played(alone=1.0, together=0.5)
    assert asked == [
        (Way.ALONE, WARM_UP_STEPS),
        (Way.ALONE, TIMED_STEPS),
        (Way.TOGETHER, WARM_UP_STEPS),
        (Way.TOGETHER, TIMED_STEPS),
    ]


@pytest.mark.parametrize(
    ("alone", "together", "expected"),
    [
        (1.0, 0.5, Way.TOGETHER),
        (0.5, 1.0, Way.ALONE),
        (1.0, 1.0, Way.ALONE),
        (1.0, 0.99, Way.ALONE),
    ],
)
def test_the_faster_way_is_taken_and_equals_stay_exact(alone, together, expected):
    trial, _ = played(alone, together)
    assert trial.next_way() is expected
    assert trial.next_steps() is None
    trial.trained(expected, 100.0)
    assert trial.next_way() is expected, "what comes after the trial changes nothing"


def test_the_verdict_tells_the_figures():
    trial, _ = played(alone=0.04, together=0.01)
    assert trial.verdict(4) == (
        "execution='auto': 4 runs train in joint steps; a step of all took 10 ms jointly and 40 ms in turns."
    )
