"""Cutting a listing into ranges of `date_created`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

import attrs
from hypothesis import given
from hypothesis import strategies as st

from bc_attrvals import AttributeValue
from bc_attrvals.core.filters import ListingQuery
from bc_attrvals.reading.date_ranges import Bounds, CreatedRange, cut

ALL = ListingQuery("")
START = datetime(2024, 5, 14, 9, 34, tzinfo=UTC)


def at(second: int) -> datetime:
    return START + timedelta(seconds=second)


@given(
    sample=st.lists(st.integers(0, 500), max_size=300),
    ends=st.tuples(st.none() | st.integers(0, 200), st.none() | st.integers(200, 500)),
    total=st.integers(2, 10_000),
    target=st.integers(1, 1_000),
)
def test_parts_cover_the_range_without_overlap(
    sample: list[int], ends: tuple[int | None, int | None], total: int, target: int
) -> None:
    whole = CreatedRange(*(None if end is None else at(end) for end in ends))
    parts = cut(whole, map(at, sample), total, target)
    assert parts[0].first == whole.first
    assert parts[-1].last == whole.last
    for left, right in pairwise(parts):
        assert left.last is not None
        assert right.first == left.last + timedelta(seconds=1)
    inside = {
        one for one in sample if (ends[0] or 0) <= one <= (500 if ends[1] is None else ends[1])
    }
    if inside and not whole.is_one_second:
        assert len(parts) >= 2
        assert all(part != whole for part in parts)


def test_parts_are_about_as_large_as_wanted() -> None:
    random = Random(1)
    sample = [at(random.randrange(100_000)) for _ in range(2_000)]
    parts = cut(CreatedRange(), sample, 20_000, 500)
    assert 40 <= len(parts) <= 60
    assert all(part.rows <= 500 for part in parts)


def test_a_crowded_second_is_cut_out() -> None:
    assert cut(CreatedRange(), [at(5)] * 10, 600, 160) == [
        CreatedRange(None, at(4)),
        CreatedRange(at(5), at(5), 600),
        CreatedRange(at(6), None),
    ]


def test_of_what_lies_beside_a_crowded_second_nothing_is_expected() -> None:
    assert [part.rows for part in cut(CreatedRange(), [at(5)] * 10, 600, 160)] == [0, 600, 0]


def test_a_crowded_second_at_the_edge_leaves_no_empty_part_beside_it() -> None:
    crowded = [at(5)] * 10
    second = CreatedRange(at(5), at(5), 600)
    assert cut(CreatedRange(at(5), at(9)), crowded, 600, 160) == [
        second,
        CreatedRange(at(6), at(9)),
    ]
    assert cut(CreatedRange(at(1), at(5)), crowded, 600, 160) == [
        CreatedRange(at(1), at(4)),
        second,
    ]


def test_parts_are_filled_to_the_target_exactly_and_say_what_they_hold() -> None:
    assert cut(CreatedRange(), map(at, [1, 2, 3, 4]), 400, 200) == [
        CreatedRange(None, at(2), 200),
        CreatedRange(at(3), None, 200),
    ]


def test_rows_can_be_cut_down_to_one_a_part() -> None:
    assert cut(CreatedRange(at(0), at(9)), map(at, [1, 2, 3, 4]), 4, 1) == [
        CreatedRange(at(0), at(1), 1),
        CreatedRange(at(2), at(2), 1),
        CreatedRange(at(3), at(3), 1),
        CreatedRange(at(4), at(9), 1),
    ]


def test_no_part_is_to_hold_more_than_half() -> None:
    parts = cut(CreatedRange(), map(at, [1, 2, 3, 4]), 5, 100)
    assert [part.last for part in parts] == [at(1), at(2), at(3), None]


def test_a_total_that_the_sample_belies_is_cut_in_the_middle_of_the_sample() -> None:
    assert cut(CreatedRange(at(0), at(9)), map(at, [2, 4, 6]), 1, 160) == [
        CreatedRange(at(0), at(4), 0),
        CreatedRange(at(5), at(9), 1),
    ]


def test_the_second_after_the_range_is_not_of_it() -> None:
    part = CreatedRange(at(0), at(9))
    assert cut(part, [at(10)], 600, 160) == [part]


def test_a_second_is_not_cut() -> None:
    second = CreatedRange(at(5), at(5))
    assert cut(second, [at(5)] * 10, 600, 160) == [second]


def test_a_bound_is_moved_out_until_it_is_known_to_count_as_inside() -> None:
    part = CreatedRange(at(0), at(9))
    assert Bounds().query(ALL, part).text == (
        "date_created:min=2024-05-14T09:33:59Z&date_created:max=2024-05-14T09:34:10Z"
    )
    assert Bounds(min_inclusive=True, max_inclusive=True).query(ALL, part).text == (
        "date_created:min=2024-05-14T09:34:00Z&date_created:max=2024-05-14T09:34:09Z"
    )


def test_the_filters_own_bounds_are_kept_as_they_are() -> None:
    bounds = Bounds(least=at(3), most=at(20))
    assert bounds.query(ALL, CreatedRange()).text == (
        "date_created:min=2024-05-14T09:34:03Z&date_created:max=2024-05-14T09:34:20Z"
    )
    assert bounds.query(ALL, CreatedRange(at(2), at(90))) == bounds.query(ALL, CreatedRange())
    assert bounds.query(ALL, CreatedRange(at(7), None)).text.startswith(
        "date_created:min=2024-05-14T09:34:06Z&"
    )


def test_rows_of_the_neighbouring_second_are_clipped() -> None:
    rows = [AttributeValue(n, n, 1, "", at(n)) for n in range(12)]
    part = CreatedRange(at(3), at(5))
    assert [row.id for row in part.clip(rows)] == [3, 4, 5]


def test_ranges_end_where_the_calendar_does() -> None:
    ends = [one.replace(microsecond=0, tzinfo=UTC) for one in (datetime.min, datetime.max)]
    rows = [AttributeValue(index, 1, 1, "v", end) for index, end in enumerate(ends, 1)]
    for end, held in zip(ends, rows, strict=True):
        single = CreatedRange(end, end)
        parts = cut(CreatedRange(), [end] * 3, 6, 3)
        assert len(parts) == 2
        assert attrs.evolve(single, rows=6) in parts
        assert single.clip(rows) == [held]
        # The second before the first one, or after the last one, can't be asked for.
        assert Bounds().query(ALL, single).text.count("date_created") == 1
