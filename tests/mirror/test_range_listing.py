"""Listings of ranges: complete ones drop what they do not show."""

from __future__ import annotations

import pytest

from bc_attrvals.errors import ListingDriftError
from bc_attrvals.mirror.range_counts import (
    Answer,
    Ask,
    Done,
    Drop,
    Search,
    SearchCustomers,
    most_reads,
)
from bc_attrvals.mirror.range_listing import list_ranges
from bc_attrvals.mirror.ranges import Range, pages
from bc_attrvals.mirror.reconcile import reconcile

from .reconcile_model import PAGE_SIZE, ModelStore, Table, refresh
from .reconciling import START, at_random, customers, of_attribute, reconciled, store_without


def test_a_listing_of_a_range_drops_what_it_does_not_show() -> None:
    rows = customers(40)
    search = Search(Table(rows), until=START + 100, page_size=10)
    listed = Range((1, 2), START + 2, START + 5)
    steps = list_ranges(search, [search.counted(listed)])
    question = search.question(listed, 1, 10)
    assert next(steps) == Ask([question])
    shown = [row for row in rows if row.id in (9, 14)]
    assert steps.send([Answer(2, shown)]) == Drop(listed, frozenset({9, 14}))
    with pytest.raises(StopIteration):
        next(steps)
    assert not search.is_unproven(listed)
    assert search.is_unproven(Range((1,), START + 6, START + 6))


def test_a_store_of_one_page_is_listed() -> None:
    assert reconciled(customers(PAGE_SIZE), [3, 5]).reads == 1


def test_all_rows_of_one_second_are_listed_in_pages() -> None:
    rows = customers(2_000, per_second=2_000)
    refreshed = reconciled(rows, range(1, 1_000))
    assert refreshed.dropped == 999
    # One count of all, three of attributes, and the pages.
    assert refreshed.reads == 1 + 3 + pages(1_001, PAGE_SIZE)


def test_a_service_of_smaller_pages_is_believed() -> None:
    rows = customers(2_000)
    store, mirror = store_without(rows, range(100, 400), largest_page=20), Table(rows)
    refreshed = refresh(store, mirror)
    assert refreshed.dropped == 300
    assert mirror.rows == store.table.rows
    # Ranges of what was taken for a page are cut once more.
    assert refreshed.reads <= most_reads(1_700, 20, bounds_known=False)


def test_a_listing_of_more_rows_than_its_total_drops_nothing() -> None:
    rows = customers(8)
    search = Search(Table(rows), until=START + 100, page_size=10)
    steps = list_ranges(search, [search.counted(search.unproven[0])])
    asked = next(steps)
    assert isinstance(asked, Ask)
    assert steps.send([Answer(1, rows[:2])]) == asked
    assert steps.send([Answer(2, rows[:2])]) == Drop(search.unproven[0], frozenset({1, 2}))


def test_the_rows_asked_for_at_once_are_bounded() -> None:
    rows = customers(12_000)
    for gone in (at_random(1_200, rows, 1), of_attribute(2, rows), range(4_000, 12_000)):
        store, mirror = store_without(rows, gone), Table(rows)
        steps = reconcile(Search(mirror, until=store.now - 2, page_size=PAGE_SIZE))
        step = next(steps)
        while isinstance(step, (Ask, Drop, SearchCustomers)):
            if not isinstance(step, Ask):
                step = next(steps)
                continue
            assert sum(one.limit for one in step.questions) <= 64 * PAGE_SIZE
            step = steps.send([store.answer(one) for one in step.questions])
        assert step == Done()


def test_many_rows_of_one_second_that_never_rest_fail_by_name() -> None:
    rows = customers(1_000, per_second=1_000)
    store, mirror = store_without(rows, [7]), Table(rows)

    def delete_one(store: ModelStore) -> None:
        store.table.remove(max(store.table.rows))

    store.before = delete_one
    end = refresh(store, mirror).end
    assert isinstance(end, ListingDriftError)
    assert "kept changing" in str(end)
    assert len(mirror.rows) == 1_000
    store.before = None
    assert refresh(store, mirror).end == Done()
    assert mirror.rows == store.table.rows
