"""Parts of a mirror: what is left of them, and what it costs to search them."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from bc_attrvals.mirror.ranges import Range, RangeCount, expected_reads, hull, join, pages, subtract

quick = settings(deadline=None, derandomize=True)

PARTS = st.builds(
    lambda ids, first, length: Range(tuple(sorted(ids)), first, first + length),
    st.sets(st.integers(1, 4), min_size=1),
    st.integers(0, 9),
    st.integers(0, 9),
)


def cells(part: Range) -> set[tuple[int, int]]:
    return {
        (one, second) for one in part.attribute_ids for second in range(part.first, part.last + 1)
    }


@quick
@given(part=PARTS, other=PARTS)
def test_what_is_outside_of_another_part_is_cut_without_overlap(part: Range, other: Range) -> None:
    outside = subtract(part, other)
    assert set().union(*map(cells, outside)) == cells(part) - cells(other)
    assert sum(len(cells(one)) for one in outside) == len(cells(part) - cells(other))
    assert part.meets(other) == bool(cells(part) & cells(other))


@quick
@given(parts=st.lists(PARTS, min_size=1, max_size=4))
def test_a_hull_holds_all_parts(parts: list[Range]) -> None:
    whole = hull(parts)
    assert all(cells(part) <= cells(whole) for part in parts)


def test_neighbours_of_the_same_attributes_are_joined() -> None:
    counts = [
        RangeCount(Range((1,), 5, 9), 20, 18),
        RangeCount(Range((1,), 0, 4), 10, 9),
        RangeCount(Range((2,), 10, 12), 1, 0),
        RangeCount(Range((1,), 11, 12), 3, 2),
    ]
    assert join(counts) == [
        RangeCount(Range((1,), 0, 9), 30, 27),
        RangeCount(Range((1,), 11, 12), 3, 2),
        RangeCount(Range((2,), 10, 12), 1, 0),
    ]
    assert counts[1].held == 10


def halving_cost(gone: list[int], first: int, last: int, size: int) -> int:
    """Return the reads of halving to single pages."""
    if not any(first <= one < last for one in gone):
        return 0
    if last - first <= size:
        return 1
    middle = (first + last) // 2
    return 1 + halving_cost(gone, first, middle, size) + halving_cost(gone, middle, last, size)


def test_expected_reads_are_those_of_halving_where_few_rows_are_gone() -> None:
    rng = random.Random(5)
    rows = 250 * 1_024
    for surplus in (1, 5, 20):
        costs = [halving_cost(rng.sample(range(rows), surplus), 0, rows, 250) for _ in range(300)]
        count = RangeCount(Range((1,), 0, 1), rows + surplus, rows)
        assert abs(expected_reads(count, 250) / (sum(costs) / len(costs)) - 1) < 0.02


@quick
@given(stored=st.integers(0, 10**6), surplus=st.integers(0, 10**6))
def test_expected_reads_are_never_above_listing(stored: int, surplus: int) -> None:
    count = RangeCount(Range((1,), 0, 1), stored + surplus, stored)
    assert 0 <= expected_reads(count, 250) <= pages(stored, 250)
    assert (expected_reads(count, 250) == 0) == (surplus == 0)
