"""The ids a listing has brought: held to a plain set, and to the memory they may take."""

from __future__ import annotations

import tracemalloc
from random import Random

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bc_attrvals.reading import seen_ids
from bc_attrvals.reading.seen_ids import SeenIds

MAX_INT64 = 2**63 - 1

IDS = st.one_of(st.integers(1, 60), st.integers(1, 2_000), st.integers(1, MAX_INT64))


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(pages=st.lists(st.lists(IDS, max_size=30), max_size=30), run_size=st.integers(1, 20))
def test_it_is_a_set(pages: list[list[int]], run_size: int) -> None:
    seen = SeenIds()
    expected: set[int] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seen_ids, "_RUN_SIZE", run_size)
        for page in pages:
            assert seen.add(page) == set(page) - expected
            expected.update(page)
            assert len(seen) == len(expected)
        for page in pages:
            assert seen.add(page) == set()


@attrs.frozen
class Row:
    id: int


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(pages=st.lists(st.lists(IDS, max_size=6).map(sorted) | st.lists(IDS, max_size=6)))
def test_pages_that_ascend_are_added_whole_or_not_at_all(pages: list[list[int]]) -> None:
    seen = SeenIds()
    expected: set[int] = set()
    for page in pages:
        if seen.add_ascending([Row(one) for one in page]):
            assert page == sorted(set(page) - expected)
        else:
            seen.add(page)
        expected.update(page)
        assert len(seen) == len(expected)
    assert seen.add(expected) == set()


@pytest.mark.parametrize("page", [[1, 2, 4], [6, 7, 8], [30, 40]])
def test_pages_that_ascend_between_those_there_are_added_whole(page: list[int]) -> None:
    seen = SeenIds()
    seen.add([5])
    seen.add([20, 25])
    assert seen.add_ascending([Row(one) for one in page])
    assert seen.add([*page, 5, 20, 25]) == set()


@pytest.mark.parametrize("page", [[0], [-1, 1], [1, 2**63], [1, 1], [2, 1], [4, 5], [1, 9]])
def test_other_pages_are_not_added_whole(page: list[int]) -> None:
    seen = SeenIds()
    seen.add([5])
    assert not seen.add_ascending([Row(one) for one in page])
    assert len(seen) == 1


@pytest.mark.parametrize("order", ["ascending", "descending", "pages in disorder", "shuffled"])
@pytest.mark.parametrize("spread", [2, 7, 40_000])
def test_a_long_listing_takes_few_bytes_a_row(order: str, spread: int) -> None:
    count = 20_000
    random = Random(4)
    ids = list(range(1, spread * count, spread))
    if order == "shuffled":
        random.shuffle(ids)
    pages = [ids[start : start + 250] for start in range(0, count, 250)]
    if order == "descending":
        pages = [page[::-1] for page in reversed(pages)]
    elif order == "pages in disorder":
        random.shuffle(pages)
    tracemalloc.start()
    try:
        seen = SeenIds()
        for page in pages:
            seen.add(page)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(seen) == count
    # Eight bytes an id; runs that were cut in two are half full.
    assert peak < 17 * count + 64 * 1024


def test_ids_without_gaps_take_no_memory_of_their_own() -> None:
    seen = SeenIds()
    for start in range(1, 1_000_001, 250):
        seen.add(range(start, start + 250))
    assert len(seen) == 1_000_000
    assert len(seen._runs) == 1


@pytest.mark.parametrize("bad", [0, -1, 2**63, 10**30])
def test_an_id_out_of_range_adds_nothing(bad: int) -> None:
    seen = SeenIds()
    with pytest.raises(OverflowError):
        seen.add([5, bad])
    assert len(seen) == 0
