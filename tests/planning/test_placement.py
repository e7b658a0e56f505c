"""Who trains next, and where, is a pure function of what was done."""

from __future__ import annotations

import heapq
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rf_notebook.planning.placement import Candidate, Give, Slot, place

ONE = [Slot(name="a")]
TWO = [Slot(name="a"), Slot(name="b")]


def run(run_id, samples=0, **more):
    return Candidate(run_id=run_id, samples_done=samples, **more)


def chosen(*runs, slots=ONE, **costs):
    return {give.device: give.run_ids for give in place(runs, slots, **costs)}


# ---- one device


def test_nobody_waiting_is_no_turn():
    assert place([], ONE) == []


def test_the_run_with_the_fewest_samples_is_next_and_ties_go_by_id():
    assert place([run(1, 20), run(2, 10), run(3, 10)], ONE) == [Give(device="a", run_ids=(2,))]


def test_a_clone_catches_up_before_it_rotates():
    assert chosen(run(1, 80), run(2, 80), run(3, 0)) == {"a": (3,)}
    assert chosen(run(1, 80), run(2, 80), run(3, 60)) == {"a": (3,)}


def test_a_chunk_that_was_begun_is_finished_first():
    assert chosen(run(1, 0), run(2, 40, in_chunk=True)) == {"a": (2,)}


def test_runs_that_can_train_together_share_a_turn_at_the_same_chunk():
    runs = [run(1, key="k"), run(2, key="k"), run(3), run(4, 8, key="k", chunks_done=1)]
    assert chosen(*runs) == {"a": (1, 2)}


# ---- several


def test_new_runs_are_spread():
    assert chosen(run(1), run(2), run(3), slots=TWO) == {"a": (1,), "b": (2,)}


def test_new_runs_that_can_train_together_are_divided():
    runs = [run(number, key="k") for number in range(1, 9)]
    assert chosen(*runs, slots=TWO) == {"a": (1, 2, 3, 4), "b": (5, 6, 7, 8)}


def test_runs_stay_at_home():
    runs = [run(1, 8, home="b"), run(2, 0, home="b"), run(3, 16, home="a")]
    assert chosen(*runs, slots=TWO) == {"a": (3,), "b": (2,)}


def test_a_device_without_work_takes_over_a_run_that_waits_elsewhere():
    busy = [Slot(name="a", is_free=False), Slot(name="b")]
    assert chosen(run(2, 8, home="a"), run(3, 0, home="a"), slots=busy) == {"b": (3,)}


def test_a_device_without_work_takes_over_half_of_a_group():
    runs = [run(n, 8, key="k", home="a", chunks_done=1, chunk_seconds=2.0) for n in range(1, 6)]
    assert chosen(*runs, slots=TWO) == {"a": (1, 2, 3), "b": (4, 5)}
    assert chosen(*runs, slots=TWO, move_seconds=4.5) == {"a": (1, 2, 3, 4, 5)}


def test_nobody_gets_far_ahead_of_a_run_that_waits_elsewhere():
    busy = [Slot(name="a", is_free=False), Slot(name="b")]
    waits = run(1, 8, home="a", chunks_done=1)
    assert chosen(waits, run(2, 16, home="b", chunks_done=2), slots=busy) == {"b": (2,)}
    assert chosen(waits, run(2, 24, home="b", chunks_done=3), slots=busy) == {"b": (1,)}


@pytest.mark.parametrize(
    "why",
    [
        {"in_chunk": True},
        {"is_bound": True},
        {"chunk_seconds": 1.0},
    ],
)
def test_who_stays_at_home_although_another_device_has_nothing(why):
    busy = [Slot(name="a", is_free=False), Slot(name="b")]
    stays = replace(run(1, home="a"), **why)
    assert chosen(stays, slots=busy, move_seconds=2.0) == {}


def test_runs_move_between_devices_of_one_model_only():
    mixed = [Slot(name="a", model="A100", is_free=False), Slot(name="b", model="H100")]
    assert chosen(run(1, home="a"), slots=mixed) == {}


NAMES = ("a", "b", "c")


@st.composite
def situations(draw):
    slots = [
        Slot(name=name, model=draw(st.sampled_from(["A", "B"])), is_free=draw(st.booleans()))
        for name in NAMES[: draw(st.integers(1, 3))]
    ]
    runs = []
    for run_id in range(1, 1 + draw(st.integers(0, 8))):
        chunks = draw(st.integers(0, 2))
        home = draw(st.sampled_from([None, *(slot.name for slot in slots)]))
        runs.append(
            Candidate(
                run_id=run_id,
                samples_done=8 * chunks,
                chunks_done=chunks,
                key=draw(st.sampled_from([None, "k", "l"])),
                in_chunk=home is not None and draw(st.booleans()),
                home=home,
                is_bound=home is not None and draw(st.booleans()),
                chunk_seconds=draw(st.sampled_from([0.0, 1.0, 3.0])),
            )
        )
    return runs, slots, draw(st.sampled_from([0.0, 2.0]))


@given(situations())
def test_what_always_holds(situation):
    runs, slots, move_seconds = situation
    gives = place(runs, slots, move_seconds=move_seconds)
    by_id, by_name = {one.run_id: one for one in runs}, {slot.name: slot for slot in slots}
    given_runs = [run_id for give in gives for run_id in give.run_ids]
    assert len(given_runs) == len(set(given_runs)), "no run is at two devices"
    assert len({give.device for give in gives}) == len(gives), "no device has two turns"
    for give in gives:
        group = [by_id[run_id] for run_id in give.run_ids]
        assert group
        assert by_name[give.device].is_free
        assert len(group) == 1 or {one.key for one in group} in ({"k"}, {"l"})
        assert len({one.chunks_done for one in group}) == 1
        for one in group:
            if one.home not in (None, give.device):
                assert not one.in_chunk, "a chunk that was begun is finished at home"
                assert not one.is_bound, "what is not committed does not move"
                assert by_name[one.home].model == by_name[give.device].model
    nothing = [s for s in slots if s.is_free and s.name not in {give.device for give in gives}]
    waiting = [one for one in runs if one.run_id not in given_runs]
    for slot in nothing:
        for one in waiting:
            assert one.home not in (None, slot.name), "nobody waits while its device has nothing"
            alike = by_name[one.home].model == slot.model
            may_leave = alike and not (one.in_chunk or one.is_bound)
            is_short = 0 < one.chunk_seconds <= move_seconds
            in_group = one.key is not None and move_seconds > 0
            assert not may_leave or is_short or in_group, (
                "nor while it may go to one that has nothing"
            )


def trained(runs, chunks, devices, *, chunk_seconds=10.0, move_seconds=1.0):
    """The seconds until runs of so many chunks are trained, and how often one moved."""
    slots = [Slot(name=str(number)) for number in range(devices)]
    left = {one: run(one) for one in range(1, runs + 1)}
    at_work: list[tuple[float, str, int]] = []
    now, moves = 0.0, 0
    while left or at_work:
        busy = {name for _, name, _ in at_work}
        waiting = [one for one in left.values() if one.run_id not in {r for _, _, r in at_work}]
        here = [replace(slot, is_free=slot.name not in busy) for slot in slots]
        for give in place(waiting, here, move_seconds=move_seconds):
            (run_id,) = give.run_ids
            is_move = left[run_id].home not in (None, give.device)
            moves += is_move
            left[run_id] = replace(left[run_id], home=give.device)
            heapq.heappush(
                at_work, (now + chunk_seconds + is_move * move_seconds, give.device, run_id)
            )
        now, _, run_id = heapq.heappop(at_work)
        one = left[run_id]
        if one.chunks_done + 1 == chunks:
            del left[run_id]
        else:
            left[run_id] = replace(
                one,
                samples_done=one.samples_done + 8,
                chunks_done=one.chunks_done + 1,
                chunk_seconds=chunk_seconds,
            )
    return now, moves


@pytest.mark.parametrize("devices", [1, 2, 4])
@pytest.mark.parametrize("runs", [4, 8, 16])
def test_equal_runs_keep_equal_devices_busy_and_stay_where_they_are(runs, devices):
    assert trained(runs, 6, devices) == (10.0 * 6 * runs / devices, 0)


@pytest.mark.parametrize(("runs", "devices"), [(3, 2), (5, 2), (5, 4), (7, 3), (9, 8)])
def test_uneven_numbers_cost_a_few_moves_and_no_back_and_forth(runs, devices):
    seconds, moves = trained(runs, 12, devices)
    ideal = 10.0 * math.ceil(12 * runs / devices)
    assert seconds <= ideal + 10.0 * 2 + moves
    assert moves <= 12 * runs / 4
