"""Requests of different lengths are cut into passes as cheaply as can be."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, product

from hypothesis import given
from hypothesis import strategies as st

from rf_notebook.training.fused.layout import parts_below, passes_of, tokens_of


@dataclass(frozen=True)
class Request:
    number: int
    rows: int
    length: int
    past: int = 0
    sizes: None = None


def cost(passes, worth):
    return sum(worth + tokens_of(one) for one in passes)


def every_way(ordered):
    """All ways to cut a list into runs of neighbours."""
    for cuts in product((False, True), repeat=len(ordered) - 1):
        bounds = [0, *(i for i, cut in enumerate(cuts, start=1) if cut), len(ordered)]
        yield [ordered[start:stop] for start, stop in pairwise(bounds)]


@given(
    sizes=st.lists(st.tuples(st.integers(1, 8), st.integers(1, 60)), min_size=1, max_size=7),
    worth=st.integers(0, 200),
)
def test_no_other_way_to_cut_is_cheaper(sizes, worth):
    requests = [Request(i, rows, length) for i, (rows, length) in enumerate(sizes)]
    passes = passes_of(requests, worth)
    assert sorted(r.number for one in passes for r in one) == list(range(len(requests)))
    assert all(passes)
    ordered = sorted(requests, key=lambda request: -request.length)
    assert cost(passes, worth) <= min(cost(way, worth) for way in every_way(ordered))


def test_equal_lengths_are_one_pass_and_very_uneven_ones_are_two():
    equal = [Request(i, 2, 64) for i in range(5)]
    assert passes_of(equal, 0) == [equal]
    uneven = [Request(0, 1, 1000), *(Request(i, 1, 10) for i in range(1, 8))]
    assert passes_of(uneven, 160) == [uneven[:1], uneven[1:]]
    assert len(passes_of(uneven, 100_000)) == 1


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8), limit=st.integers(1, 120))
def test_no_other_way_to_stay_below_a_limit_has_fewer_or_evener_parts(sizes, limit):
    parts = parts_below(sizes, limit, sum)
    assert [size for part in parts for size in part] == sizes
    assert all(sum(part) < limit or len(part) == 1 for part in parts)
    allowed = [
        way for way in every_way(sizes) if all(sum(part) < limit or len(part) == 1 for part in way)
    ]
    fewest = min(len(way) for way in allowed)
    assert len(parts) == fewest
    assert max(map(sum, parts)) == min(max(map(sum, way)) for way in allowed if len(way) == fewest)
