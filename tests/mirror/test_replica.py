"""The mirror's tables: rows in, rows out, and the numbers of their changes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bc_attrvals.core.models import AttributeValue
from bc_attrvals.mirror.ranges import BEGINNING, Range
from bc_attrvals.mirror.replica import MIRRORS, Replica, Taken
from bc_attrvals.sync.database import open_temporary

from .fake_store import moment

quick = settings(deadline=None, derandomize=True, max_examples=60)


def row(id: int, value: str = "x", *, created: int = 0, modified: int = 0) -> AttributeValue:
    return AttributeValue(id, id, 1, value, moment(created), moment(max(created, modified)))


@pytest.fixture
def replica() -> Iterator[Replica]:
    opened = open_temporary(MIRRORS)
    yield opened
    opened.connection.close()


def rows_of(replica: Replica) -> list[AttributeValue]:
    return replica.next_rows(None, (0, 0, 0), 1_000)


def test_an_older_version_of_a_row_changes_nothing(replica: Replica) -> None:
    replica.take([row(1, "new", modified=9)])
    assert replica.take([row(1, "old", modified=8)]) == Taken()
    assert replica.take([row(1, "new", modified=9)]) == Taken()
    assert rows_of(replica) == [row(1, "new", modified=9)]
    replica.take([row(1, "old", modified=8)], is_newest=True)
    assert rows_of(replica) == [row(1, "old", modified=8)]


def test_of_two_versions_in_one_answer_the_later_one_stays(replica: Replica) -> None:
    replica.take([row(1, "later", modified=5), row(1, "earlier", modified=4)])
    assert rows_of(replica) == [row(1, "later", modified=5)]


def test_a_row_that_differs_under_the_same_date_is_told_apart(replica: Replica) -> None:
    replica.take([row(1, "one"), row(2, "two")])
    taken = replica.take([row(1, "other"), row(2, "two", modified=3), row(3)])
    assert [(held and held[3], new.value) for held, new in taken.unmoved] == [
        ("one", "other"),
        (None, "x"),
    ]


def test_a_part_is_dropped_but_for_the_rows_kept(replica: Replica) -> None:
    replica.take([row(number, created=number) for number in range(1, 9)])
    dropped = replica.drop_range(Range((1, 2), 3, 6), frozenset({5}))
    assert dropped.removed == [(1, 3), (1, 4), (1, 6)]
    assert [one.id for one in rows_of(replica)] == [1, 2, 5, 7, 8]
    replica.drop_range(Range((1,), BEGINNING, 2), frozenset())
    assert [one.id for one in rows_of(replica)] == [5, 7, 8]


def test_seconds_of_creation_are_those_of_the_customers_that_are_refreshed(
    replica: Replica,
) -> None:
    replica.begin()
    replica.take([row(number, created=9 - number, modified=20) for number in range(1, 5)])
    replica.take([row(5, created=1, modified=19)])
    assert replica.created_of(20) == [5, 6, 7, 8]
    replica.select_customers([1, 3, 5])
    assert replica.created_of(20) == [6, 8]
    assert replica.created_of(19) == [1, 6, 8]
    replica.select_customers(None)
    assert replica.created_of(0) == [1, 5, 6, 7, 8]


def test_customers_near_to_one_are_found_by_their_rows(replica: Replica) -> None:
    replica.begin()
    replica.take([row(number, created=number) for number in (2, 4, 5, 7, 9)])
    replica.take([AttributeValue(20, 4, 1, "second", moment(3), moment(3))])
    assert replica.customers_near(5, 3, 2) == [4, 5, 7]
    assert replica.customers_near(6, 0, 9) == [7, 9]
    assert replica.customers_near(1, 5, 0) == []
    replica.select_customers([2, 9])
    assert replica.customers_near(5, 9, 9) == [2, 9]
    replica.select_customers(None)
    assert replica.count_range(Range((1,), 3, 6), [4, 7]) == 2
    assert replica.customer_of(Range((1,), 6, 8)) == 7
    assert replica.customer_of(Range((2,), 6, 8)) is None
    dropped = replica.drop_range(Range((1,), 3, 6), {20}, [4, 7])
    assert dropped.gone_customers == {4}
    assert {one.id for one in rows_of(replica)} == {2, 5, 7, 9, 20}


def test_the_first_change_of_late_rows_is_found(replica: Replica) -> None:
    late = AttributeValue(1, 1, 1, "x", moment(50), moment(40))
    replica.take([late, row(2, created=30, modified=45), row(3, created=60)])
    assert replica.first_modified(50, 0) == 40
    assert replica.first_modified(50, 41) == 60
    assert replica.first_modified(61, 0) is None


def test_a_refresh_that_is_given_up_leaves_nothing(replica: Replica) -> None:
    # A temporary database keeps no log to roll back by.
    replica.connection.execute("PRAGMA journal_mode = MEMORY")
    replica.take([row(1), row(2)])
    last = replica.last_sequence
    replica.begin()
    replica.take([row(3), row(1, "changed", modified=4)])
    replica.drop_ids([2])
    replica.rollback()
    assert rows_of(replica) == [row(1), row(2)]
    assert replica.last_sequence == last
    replica.begin()
    replica.take([row(3), row(1, "changed", modified=4)])
    replica.drop_ids([2, 3])
    counts = replica.commit(7, None)
    assert counts == {"rows": 1, "added": 0, "changed": 1, "removed": 1}
    # A row that came and went within one refresh is no change.
    assert [(one.kind, one.row.id) for one in replica.next_changes(last, 9)] == [
        ("put", 1),
        ("delete", 2),
    ]


STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "drop"]), st.integers(1, 6), st.integers(0, 3)), max_size=30
)


@quick
@given(steps=STEPS, every=st.integers(1, 5))
def test_a_follower_of_the_changes_has_the_same_rows(
    steps: list[tuple[str, int, int]], every: int
) -> None:
    replica = open_temporary(MIRRORS)
    followed: dict[int, AttributeValue] = {}
    last = 0
    for index, (kind, row_id, modified) in enumerate(steps):
        if kind == "put":
            replica.take([row(row_id, str(index), modified=modified)])
        else:
            replica.drop_ids([row_id])
        if index % every:
            continue
        while changes := replica.next_changes(last, 2):
            for change in changes:
                assert change.sequence > last
                last = change.sequence
                if change.kind == "put":
                    followed[change.row.id] = change.row
                else:
                    followed.pop(change.row.id, None)
        assert followed == {one.id: one for one in rows_of(replica)}
    replica.connection.close()
