"""The account of pages: honest stores cost no page more, lies end, and a short listing says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bc_attrvals import (
    ListingDriftError,
)
from bc_attrvals.reading.page_count import PageCount


@attrs.frozen
class Row:
    id: int


#: Answers a page (from 1), given how many were answered before it: rows and total.
Server = Callable[[int, int], tuple[Sequence[int], int]]


@attrs.define
class Reading:
    """What came of reading a server to its end."""

    ids: list[int] = attrs.field(factory=list)
    calls: int = 0
    error: ListingDriftError | None = None


def read(
    server: Server, limit: int = 250, at_once: int = 1, random: Random | None = None
) -> Reading:
    """Read as the readers do: some pages under way at once, answered and counted in any order."""
    count, reading = PageCount(limit), Reading()
    under_way: list[tuple[int, Sequence[int], int]] = []
    next_page = 1
    while True:
        while next_page <= count.last_page and len(under_way) < at_once and not count.is_over:
            ids, total = server(next_page, reading.calls)
            under_way.append((next_page, ids, total))
            reading.calls += 1
            next_page += 1
        if not under_way or count.is_over:
            break
        place = 0 if random is None else random.randrange(len(under_way))
        number, ids, total = under_way.pop(place)
        rows = [Row(one) for one in ids]
        new = count.take(number, rows, total)
        assert {row.id for row in new} == set(ids) - set(reading.ids)
        assert len(new) == len({row.id for row in new})
        reading.ids += [row.id for row in new]
    try:
        count.check()
    except ListingDriftError as error:
        reading.error = error
    assert count.rows == len(reading.ids)
    return reading


def honest(ids: Sequence[int], per_page: int) -> Server:
    def answer(page: int, calls: int) -> tuple[Sequence[int], int]:
        return ids[(page - 1) * per_page : page * per_page], len(ids)

    return answer


# -- stores at rest --


@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(
    count=st.integers(0, 60),
    limit=st.integers(1, 12),
    cap=st.integers(1, 12),
    at_once=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_an_honest_store_costs_the_pages_its_rows_fill_and_is_complete(
    count: int, limit: int, cap: int, at_once: int, seed: int
) -> None:
    random = Random(seed)
    ids = random.sample(range(1, 1_000), count)
    per_page = min(limit, cap)
    reading = read(honest(ids, per_page), limit, at_once, random)
    assert sorted(reading.ids) == sorted(ids)
    assert reading.error is None
    assert reading.calls == max(1, -(-count // per_page))


def test_every_row_of_an_unlimited_page_is_taken_at_once() -> None:
    reading = read(lambda page, calls: (range(1, 1_001), 1_000))
    assert (len(reading.ids), reading.calls, reading.error) == (1_000, 1, None)


# -- totals that do not stand still --


def test_rows_that_others_delete_are_no_error() -> None:
    ids = list(range(1, 41))

    def shrinking(page: int, calls: int) -> tuple[Sequence[int], int]:
        del ids[:3]
        return honest(list(ids), 4)(page, calls)

    reading = read(shrinking, 4)
    assert reading.error is None
    assert len(reading.ids) < 40
    assert reading.calls <= 11


@pytest.mark.parametrize("at_once", [1, 4])
def test_rows_that_others_insert_at_the_end_are_read_too(at_once: int) -> None:
    ids = list(range(1, 41))

    def growing(page: int, calls: int) -> tuple[Sequence[int], int]:
        if calls < 30:
            ids.extend(range(len(ids) + 1, len(ids) + 4))
        return honest(list(ids), 4)(page, calls)

    reading = read(growing, 4, at_once)
    assert reading.ids == ids
    assert reading.error is None


@pytest.mark.parametrize("pages", [1, 4, 9])
def test_pages_of_rows_that_others_insert_in_front_are_read_past(pages: int) -> None:
    ids = list(range(40, 0, -1))

    def growing(page: int, calls: int) -> tuple[Sequence[int], int]:
        if calls == 3:
            ids[:0] = range(40 + 4 * pages, 40, -1)
        return honest(list(ids), 4)(page, calls)

    reading = read(growing, 4)
    assert set(range(1, 41)) <= set(reading.ids)
    assert reading.error is None


def test_more_insertions_than_were_read_are_followed_as_far_as_pages_brought_rows() -> None:
    ids = list(range(400, 0, -1))

    def growing(page: int, calls: int) -> tuple[Sequence[int], int]:
        if calls == 60:
            ids[:0] = range(400 + 4 * 50, 400, -1)
        return honest(list(ids), 4)(page, calls)

    assert set(range(1, 401)) <= set(read(growing, 4).ids)


# -- lies --

STORE = range(1, 1_001)


def capped(page: int, calls: int) -> tuple[Sequence[int], int]:
    """Fifty rows whatever `limit` asks for; `total_pages`, which nobody reads, is of 250."""
    return STORE[(page - 1) * 50 : page * 50], 1_000


def test_a_capped_page_is_seen_by_its_rows() -> None:
    reading = read(capped, at_once=4)
    assert (reading.ids, reading.calls, reading.error) == (list(STORE), 20, None)


def test_pages_that_become_smaller_underway_are_read_to_the_last_row() -> None:
    starts = [0, 250, *range(300, 1_000, 50)]

    def shrinking_pages(page: int, calls: int) -> tuple[Sequence[int], int]:
        start = starts[page - 1] if page <= len(starts) else 1_000
        return STORE[start : start + (250 if page == 1 else 50)], 1_000

    reading = read(shrinking_pages)
    assert (reading.ids, reading.error) == (list(STORE), None)
    assert reading.calls == len(starts)


def test_a_total_of_the_whole_store_ends_when_no_more_rows_come() -> None:
    reading = read(
        lambda page, calls: (STORE[:400][(page - 1) * 250 : page * 250], 6_500_000), at_once=10
    )
    assert reading.ids == list(STORE[:400])
    assert reading.calls <= 2 + 3 + 10
    assert reading.error is not None
    assert str(reading.error) == (
        "the listing brought 400 different rows in 5 pages; its total says 6500000"
    )


def test_an_order_that_shifts_under_a_constant_total_is_no_complete_listing() -> None:
    random = Random(1)

    def shuffled(page: int, calls: int) -> tuple[Sequence[int], int]:
        return honest(random.sample(range(1, 2_001), 2_000), 250)(page, calls)

    reading = read(shuffled)
    assert len(set(reading.ids)) < 1_500
    assert reading.error is not None
    # One page more than the total needs, to see that no more rows come.
    assert reading.calls <= 8 + 3


@pytest.mark.parametrize(
    ("server", "calls"),
    [
        pytest.param(lambda page, calls: ([], 10), 4, id="nothing at all"),
        pytest.param(lambda page, calls: ([1, 2], 3), 4, id="two of three, again and again"),
        pytest.param(lambda page, calls: ([page % 2 + 1], 3), 5, id="two pages in turn"),
        pytest.param(lambda page, calls: ([1], 10**30), 4, id="one row and a vast total"),
        pytest.param(lambda page, calls: ([1], 10 + calls), 14, id="a total that grows by one"),
        pytest.param(
            lambda page, calls: ([1], 2 * calls + 4), 13, id="a total that grows by pages"
        ),
        pytest.param(
            lambda page, calls: ([] if page > 4 else [page], 9 + calls % 2), 7, id="a jittery total"
        ),
        pytest.param(lambda page, calls: ([1, 2, 3], 2), 2, id="more rows than the total"),
        pytest.param(lambda page, calls: ([1, 1, 1], 3), 4, id="one row thrice"),
        pytest.param(
            # Two pages that the total needs, and three more in case it moves.
            lambda page, calls: (STORE[(page - 1) * 5 : page * 5], 8),
            5,
            id="a total too small",
        ),
    ],
)
@pytest.mark.parametrize("at_once", [1, 7])
def test_a_listing_that_can_not_be_complete_says_so(
    server: Server, calls: int, at_once: int
) -> None:
    reading = read(server, 2, at_once)
    assert reading.error is not None
    assert reading.calls <= calls + at_once


def fresh(page: int) -> Sequence[int]:
    """Four rows that no other page has, however many pages are read."""
    return range(4 * page, 4 * page + 4)


@pytest.mark.parametrize(
    ("total", "pages"),
    [
        pytest.param(lambda calls: 41, 11 + 3, id="that stands still"),
        pytest.param(lambda calls: 41 + 4 * calls, 8 * 11 + 100, id="that grows by each page"),
        pytest.param(lambda calls: 41 * 2**calls, 8 * 11 + 100, id="that doubles"),
        pytest.param(lambda calls: 41 + 80 * (calls // 9), 8 * 11 + 100, id="that jumps"),
        pytest.param(lambda calls: 10**12, 1, id="that no store can have"),
        pytest.param(lambda calls: 1 if calls == 0 else 10**9, 8 + 100, id="that jumps once"),
        pytest.param(lambda calls: 41 + 40 * (calls % 2) + 4 * calls, 188, id="that jitters"),
    ],
)
@pytest.mark.parametrize("at_once", [1, 7])
def test_rows_without_end_under_a_total_end_in_an_error(
    total: Callable[[int], int], pages: int, at_once: int
) -> None:
    reading = read(lambda page, calls: (fresh(page), total(calls)), 4, at_once)
    assert reading.error is not None
    assert reading.calls <= pages + at_once


@pytest.mark.parametrize("at_once", [1, 7])
@pytest.mark.parametrize("first", [1, 40, 400])
@pytest.mark.parametrize("in_front", [False, True])
def test_inserts_of_seven_eighths_of_a_page_while_it_is_read_are_read_to_the_end(
    first: int, at_once: int, in_front: bool
) -> None:
    ids = list(range(10_000, 10_000 - first, -1))
    lived = set(ids)

    def growing(page: int, calls: int) -> tuple[Sequence[int], int]:
        if calls:
            new = range(10_000 + 7 * calls, 10_000 + 7 * calls - 7, -1)
            ids[0 if in_front else len(ids) : 0 if in_front else len(ids)] = new
        return honest(list(ids), 8)(page, calls)

    reading = read(growing, 8, at_once)
    assert reading.error is None
    assert lived <= set(reading.ids)


def test_rows_behind_an_empty_page_come_and_those_on_it_are_missed_aloud() -> None:
    def hole(page: int, calls: int) -> tuple[Sequence[int], int]:
        ids, total = honest(range(1, 25), 4)(page, calls)
        return [] if page in {2, 3} else ids, total

    reading = read(hole, 4)
    assert reading.ids == [1, 2, 3, 4, *range(13, 25)]
    assert reading.error is not None


@st.composite
def servers(draw: st.DrawFn) -> tuple[Server, set[int]]:
    """A store, and how its server lies about it."""
    random = Random(draw(st.integers(0, 10**6)))
    ids = random.sample(range(1, 200), draw(st.integers(0, 40)))
    per_page = draw(st.integers(1, 9))
    lies = draw(st.sets(st.sampled_from(["total", "clamp", "repeat", "cut", "hole", "shuffle"])))
    wrong_total = draw(st.sampled_from([0, 1, 39, 41, 1_000, 10**9]))

    def answer(page: int, calls: int) -> tuple[Sequence[int], int]:
        listed = random.sample(ids, len(ids)) if "shuffle" in lies else ids
        if "clamp" in lies:
            page = min(page, max(1, -(-len(ids) // per_page)))
        if "repeat" in lies and page % 3 == 0:
            page = 1
        found: Sequence[int] = listed[(page - 1) * per_page : page * per_page]
        if "cut" in lies:
            found = found[: max(0, len(found) - random.randrange(3))]
        if "hole" in lies and page % 4 == 2:
            found = []
        total = wrong_total if "total" in lies else len(ids)
        return found, total

    return answer, set(ids)


@settings(max_examples=1_000, derandomize=True, deadline=None, database=None)
@given(server=servers(), limit=st.integers(1, 9), at_once=st.integers(1, 5), seed=st.integers(0, 9))
def test_any_lie_ends_in_bounded_calls_with_all_rows_or_an_error(
    server: tuple[Server, set[int]], limit: int, at_once: int, seed: int
) -> None:
    answer, ids = server
    reading = read(answer, limit, at_once, Random(seed))
    assert reading.calls <= 4 * (len(ids) + 1) + at_once + 10
    assert set(reading.ids) <= ids
    told = answer(1, 0)[1]
    # A total that is itself too small can't be told from the truth.
    assert reading.error is not None or len(reading.ids) == min(told, len(ids)) == told


@pytest.mark.parametrize("totals", [(10, 11), (0, 1), (49, 3)])
def test_answers_that_hold_more_rows_than_their_own_moving_totals_are_no_listing(
    totals: tuple[int, int],
) -> None:
    def endless(page: int, calls: int) -> tuple[Sequence[int], int]:
        return range(page * 50, page * 50 + 50), totals[calls % 2]

    reading = read(endless, 50)
    assert reading.error is not None
    assert reading.calls <= 3
