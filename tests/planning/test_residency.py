"""Who leaves the device when it is short.

The run that trained last first, base models last, nobody without need.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rf_notebook.planning.residency import Resident, to_move_out


def run(key, size, last_used):
    return Resident(key=key, bytes=size, last_used=last_used, is_base=False)


def base(key, size, last_used):
    return Resident(key=key, bytes=size, last_used=last_used, is_base=True)


def test_the_run_that_trained_last_is_needed_last_and_goes_first():
    residents = [run("1", 10, 5), run("2", 10, 7), run("3", 10, 6), base("b", 100, 9)]
    assert to_move_out(residents, 0) == []
    assert to_move_out(residents, 1) == ["2"]
    assert to_move_out(residents, 15) == ["2", "3"]
    assert to_move_out(residents, 31) == ["2", "3", "1", "b"]
    assert to_move_out(residents, 10**9) == ["2", "3", "1", "b"]
    assert to_move_out([run("empty", 0, 1), run("full", 5, 0)], 5) == ["full"]


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9), st.booleans()), max_size=8),
    st.integers(-10, 400),
)
def test_never_more_than_is_needed_and_enough_if_there_is_enough(rows, missing):
    residents = [
        Resident(key=str(i), bytes=b, last_used=t, is_base=f) for i, (b, t, f) in enumerate(rows)
    ]
    sizes = {one.key: one.bytes for one in residents}
    chosen = to_move_out(residents, missing)
    freed = sum(sizes[key] for key in chosen)
    assert freed >= min(missing, sum(sizes.values()))
    assert freed - sizes[chosen[-1]] < missing if chosen else True
