"""Cuts by `date_created`: the parts cover all seconds, and fit one answer each or are crowded."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bc_attrvals.mirror.created_parts import CreatedPart, cut

from .reconciling import quick

BOUND = st.none() | st.integers(-2, 60)


def test_parts_are_cut_where_both_meanings_of_a_bound_fit() -> None:
    # The second part is asked from 4, and the first one up to 4.
    assert cut(CreatedPart(), [0, 1, 2, 4, 5, 9], 4) == [CreatedPart(None, 3), CreatedPart(4, None)]
    assert CreatedPart(None, 3).count([0, 1, 2, 4, 5, 9]) == 4


def test_a_part_that_fits_is_not_cut() -> None:
    assert cut(CreatedPart(2, 5), [0, 1, 2, 5, 6, 7], 4) == [CreatedPart(2, 5)]


def test_a_crowded_second_is_a_part_of_its_own() -> None:
    created = [0, 1, *[7] * 9, 20]
    assert cut(CreatedPart(), created, 4) == [
        CreatedPart(None, 5),
        CreatedPart(6, 8, is_crowded=True),
        CreatedPart(9, None),
    ]
    assert cut(CreatedPart(), [7] * 9, 4)[1:] == [CreatedPart(9, None)]


@quick
@given(
    created=st.lists(st.integers(0, 50) | st.just(7), max_size=80).map(sorted),
    bounds=st.tuples(BOUND, BOUND),
    most=st.integers(1, 12),
)
def test_parts_cover_all_and_fit_or_are_crowded(
    created: list[int], bounds: tuple[int | None, int | None], most: int
) -> None:
    first, last = bounds
    if first is not None and last is not None:
        first, last = sorted((first, last))
    parts = cut(CreatedPart(first, last), created, most)
    assert (parts[0].first, parts[-1].last) == (first, last)
    for before, after in pairwise(parts):
        assert before.last is not None
        assert after.first == before.last + 1
    for part in parts:
        assert part.first is None or part.last is None or part.first <= part.last
        assert part.is_crowded or part.count(created) <= most
