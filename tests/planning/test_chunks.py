"""Chunk boundaries follow transformers' own step counts and cover the same samples in every run."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rf_notebook.core.errors import ConfigError
from rf_notebook.planning.chunks import Plan, check_num_chunks, steps_per_pass


def plan(rows=40, batch=2, accumulation=1, epochs=1.0, num_chunks=4, examples=None, max_steps=None):
    steps = max_steps or math.ceil(epochs * steps_per_pass(rows, batch, accumulation))
    return Plan(
        rows=rows,
        examples=examples or rows,
        batch_size=batch,
        accumulation=accumulation,
        total_steps=steps,
        num_chunks=num_chunks,
    )


plans = st.builds(
    plan,
    rows=st.integers(1, 300),
    batch=st.integers(1, 17),
    accumulation=st.integers(1, 5),
    epochs=st.floats(0.3, 4),
    num_chunks=st.integers(1, 12),
)


def test_steps_of_a_pass_are_those_of_transformers():
    # ceil(ceil(40 / 3) / 4) = ceil(14 / 4)
    assert steps_per_pass(40, 3, 4) == 4
    assert steps_per_pass(40, 3, 4, drop_last=True) == 4
    assert steps_per_pass(2, 4, 8) == 1


@given(plans)
def test_boundaries_rise_and_end_with_the_run(p):
    step, seen = 0, []
    while step < p.total_steps:
        boundary = p.next_boundary(step)
        assert boundary > step
        step = boundary
        seen.append(step)
    assert seen[-1] == p.total_steps
    assert len(seen) <= p.total_chunks
    assert p.chunks_done(p.total_steps) == p.total_chunks


@given(plans, st.data())
def test_a_boundary_is_the_first_step_that_has_seen_its_samples(p, data):
    chunk = data.draw(st.integers(1, p.total_chunks))
    step = p.chunk_end(chunk)
    target = min(chunk * p.examples / p.num_chunks, p.samples(p.total_steps))
    assert p.samples(step) >= target
    assert step == 0 or p.samples(step - 1) < target or chunk == p.total_chunks


@given(plans)
def test_samples_never_fall_and_a_pass_is_all_rows(p):
    counts = [p.samples(step) for step in range(p.total_steps + 1)]
    assert counts == sorted(counts)
    assert p.samples(p.steps_per_pass) == p.examples


def test_runs_with_other_batch_sizes_meet_at_the_same_samples():
    small, large = plan(batch=1), plan(batch=5)
    for chunk in range(1, 5):
        assert (
            small.samples(small.chunk_end(chunk))
            == large.samples(large.chunk_end(chunk))
            == chunk * 10
        )


def test_packed_rows_count_as_the_examples_they_hold():
    packed = plan(rows=10, batch=1, examples=40)
    assert packed.samples(5) == 20
    assert packed.epoch(10) == 1.0


def test_too_many_chunks_are_refused_with_the_range():
    with pytest.raises(
        ConfigError,
        match=r"num_chunks=5 does not fit: 16 examples in batches of 4 make 4 .* between 1 and 4",
    ):
        check_num_chunks(5, rows=16, batch_size=4, accumulation=1)
    check_num_chunks(4, rows=16, batch_size=4, accumulation=1)
