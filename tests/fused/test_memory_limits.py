"""What runs out of memory is not tried again, and the cheaper way is taken instead."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rf_notebook.training.fused.layout import tokens_of
from rf_notebook.training.fused.memory_limits import Kept, MemoryLimits


@dataclass(frozen=True, eq=False)
class Request:
    rows: int
    length: int
    needs_grad: bool = True
    cache: object = None
    past: int = 0
    sizes: None = None


def answered(limits, requests, fits):
    """The passes in which all requests are answered, those that run out of memory left out.

    None for a run left alone.
    """
    left, passes = list(requests), []
    while left:
        part, kept = limits.next_pass(left)
        if len(part) == 1 and limits.is_too_large(part, kept):
            passes.append(None)
        elif not fits(part, kept):
            limits.was_too_large(part, kept)
            continue
        else:
            passes.append((len(part), kept))
        left = [request for request in left if request not in part]
    return passes


def below(tokens, recomputed):
    """Whether passes have room.

    For so many tokens whose activations are kept, or computed again.
    """
    return lambda part, kept: (
        tokens_of(part) <= (recomputed if kept is Kept.LAYER_INPUTS else tokens)
    )


def test_large_passes_are_cut_rather_than_computed_again():
    limits = MemoryLimits("cuda", can_recompute=True)
    requests = [Request(8, 512) for _ in range(32)]
    assert answered(limits, requests, below(100_000, 400_000)) == [(16, Kept.ACTIVATIONS)] * 2


def test_small_passes_are_computed_again_rather_than_cut():
    limits = MemoryLimits("cuda", can_recompute=True)
    requests = [Request(2, 256) for _ in range(8)]
    assert answered(limits, requests, below(3000, 100_000)) == [(8, Kept.LAYER_INPUTS)]


def test_a_model_that_cannot_recompute_is_cut():
    limits = MemoryLimits("cuda", can_recompute=False)
    requests = [Request(2, 256) for _ in range(8)]
    assert answered(limits, requests, below(3000, 0)) == [(4, Kept.ACTIVATIONS)] * 2


def test_one_that_fits_no_way_is_left_alone_and_the_others_are_not():
    limits = MemoryLimits("cuda", can_recompute=True)
    requests = [Request(64, 512), *(Request(2, 512) for _ in range(4))]
    assert sorted(answered(limits, requests, below(8000, 20_000)), key=str) == [
        (4, Kept.ACTIVATIONS),
        None,
    ]


def test_tokens_of_runs_that_generate_limit_no_training():
    limits = MemoryLimits("cuda", can_recompute=True)
    generating = [Request(4, 1, needs_grad=False, cache=object(), past=900) for _ in range(4)]
    limits.was_too_large(generating, Kept.CACHE)
    assert limits.next_pass(generating) == (generating[:2], Kept.CACHE)
    training = [Request(8, 512) for _ in range(32)]
    assert limits.next_pass(training) == (training, Kept.ACTIVATIONS)


def test_graphs_that_wait_take_room():
    limits = MemoryLimits("cuda", can_recompute=True)
    part = [Request(8, 512)]
    limits.was_too_large(part, Kept.ACTIVATIONS, in_use=10_000)
    assert not limits.is_too_large(part, Kept.ACTIVATIONS, in_use=9_999)
    assert limits.is_too_large(part, Kept.ACTIVATIONS, in_use=10_000)


def test_what_is_expected_not_to_fit_is_not_tried():
    free = [40_000]
    token_bytes = {Kept.ACTIVATIONS: 4.0, Kept.LAYER_INPUTS: 0.5}
    limits = MemoryLimits("cuda", can_recompute=True, free=lambda: free[0], token_bytes=token_bytes)
    requests = [Request(2, 256) for _ in range(20)]
    assert limits.next_pass(requests) == (requests, Kept.LAYER_INPUTS)
    free[0] = 80_000
    assert limits.next_pass(requests) == (requests, Kept.ACTIVATIONS)


def test_what_passes_took_counts_more_than_the_estimate():
    limits = MemoryLimits(
        "cuda", can_recompute=False, free=lambda: 40_000, token_bytes={Kept.ACTIVATIONS: 40.0}
    )
    requests = [Request(2, 256) for _ in range(8)]
    assert limits.next_pass(requests) == (requests[:1], Kept.ACTIVATIONS)
    limits.took(requests[:1], Kept.ACTIVATIONS, 6 * 512)
    assert limits.next_pass(requests) == (requests, Kept.ACTIVATIONS)
    limits.took(requests, Kept.ACTIVATIONS, 12 * 8 * 512)
    limits.took(requests, Kept.ACTIVATIONS, 6 * 8 * 512)
    assert limits.next_pass(requests) == (requests[:4], Kept.ACTIVATIONS)


def test_what_is_allocated_once_is_forgotten():
    """It would make passes smaller, and smaller ones take more of it a token."""
    limits = MemoryLimits("cuda", can_recompute=False, free=lambda: 40_000)
    requests = [Request(2, 256) for _ in range(8)]
    limits.took(requests[:1], Kept.ACTIVATIONS, 90 * 512)
    assert limits.next_pass(requests) == (requests[:1], Kept.ACTIVATIONS)
    for _ in range(8):
        limits.took(requests[:1], Kept.ACTIVATIONS, 6 * 512)
    assert limits.next_pass(requests) == (requests, Kept.ACTIVATIONS)


@pytest.mark.parametrize(
    ("layer_weights", "expected"), [(44e6, Kept.LAYER_INPUTS), (218e6, Kept.ACTIVATIONS)]
)
def test_a_further_pass_costs_a_large_model_fewer_tokens_than_computing_again(
    layer_weights, expected
):
    limits = MemoryLimits(
        "cuda",
        can_recompute=True,
        free=lambda: 160_000,
        token_bytes={Kept.ACTIVATIONS: 30.0, Kept.LAYER_INPUTS: 1.0},
        layer_weights=layer_weights,
    )
    requests = [Request(4, 320) for _ in range(4)]
    assert limits.next_pass(requests)[1] is expected


def test_an_estimate_lets_no_run_go_alone():
    """It may be wrong; only a try tells."""
    limits = MemoryLimits(
        "cuda", can_recompute=False, free=lambda: 100, token_bytes={Kept.ACTIVATIONS: 40.0}
    )
    part, kept = limits.next_pass([Request(2, 256)])
    assert limits.has_to_wait(part, kept)
    assert not limits.is_too_large(part, kept)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 8), st.integers(1, 60)), min_size=1, max_size=8),
    tokens=st.integers(0, 2000),
    more=st.integers(0, 2000),
    device=st.sampled_from(["cpu", "cuda"]),
    can_recompute=st.booleans(),
)
def test_all_are_answered_and_nothing_is_tried_twice(sizes, tokens, more, device, can_recompute):
    limits = MemoryLimits(device, can_recompute=can_recompute)
    requests = [Request(rows, length) for rows, length in sizes]
    fits, tried = below(tokens, tokens + more), []

    def watched(part, kept):
        tried.append((frozenset(part), kept))
        return fits(part, kept)

    passes = answered(limits, requests, watched)
    assert sum(1 if one is None else one[0] for one in passes) == len(requests)
    assert len(tried) == len(set(tried))
    most = tokens + more if can_recompute else tokens
    assert sum(one is None for one in passes) == sum(
        tokens_of([request]) > most for request in requests
    )
