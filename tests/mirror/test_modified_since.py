"""The rows modified since a second are listed completely, whatever moves meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from bc_attrvals.core.models import Page
from bc_attrvals.errors import FilterIgnoredError, ListingDriftError

from .fake_store import FakeStore
from .opening import change_and_insert, held, opened, refreshed

pytestmark = pytest.mark.looptime(noop_cycles=2)


async def test_pages_of_another_order_each_time_are_read_exactly_once(tmp_path: Path) -> None:
    store = FakeStore(order="shifting")
    store.seed(2_000)
    async with opened(store, tmp_path) as mirror:
        await refreshed(mirror, store)
        change_and_insert(store, random.Random(1), 600, 10)
        await refreshed(mirror, store)


async def test_a_filter_by_date_modified_that_is_ignored_is_seen(tmp_path: Path) -> None:
    store = FakeStore()
    store.seed(1_000)
    async with opened(store, tmp_path) as mirror:
        await mirror.refresh()
        store.change(3, "later")
        old = store.rows[900]
        store.lie = lambda query, page: (
            type(page)([old], page.pagination) if "date_modified" in query else page
        )
        with pytest.raises(FilterIgnoredError):
            await mirror.refresh()


async def test_a_row_that_changes_again_while_the_newest_rows_are_read(tmp_path: Path) -> None:
    store = FakeStore(order="shuffled", inclusive=False, page_size=20)
    store.seed(300)
    async with opened(store, tmp_path) as mirror:
        await refreshed(mirror, store)
        for row_id in range(1, 101):
            store.change(row_id, "before")
        # Until those changes are of the past for every clock.
        await asyncio.sleep(200)
        left = set(range(1, 101))

        def change_what_was_not_shown() -> None:
            if "date_modified:max" in store.asked[-1][0] and len(left) == 100:
                for row_id in range(40, 60):
                    store.change(row_id, "meanwhile")
                left.clear()

        store.before = change_what_was_not_shown
        await mirror.refresh()
        assert not left
        values = {row.value for row_id, row in (await held(mirror)).items() if row_id <= 100}
        assert values <= {"before", "meanwhile"}


@pytest.mark.parametrize("after_s", [0.0, 0.3, 0.6, 0.9])
async def test_a_change_in_a_second_that_was_listed_is_seen_next_time(
    after_s: float, tmp_path: Path
) -> None:
    store = FakeStore(inclusive=False, page_size=20, latency_s=0.15)
    store.seed(300)
    async with opened(store, tmp_path) as mirror:
        await refreshed(mirror, store)
        for row_id in range(1, 101):
            store.change(row_id, "before")
        # Until those changes are of the past for every clock.
        await asyncio.sleep(200 + after_s)
        ranges = 0

        def change_after_the_range() -> None:
            nonlocal ranges
            query = store.asked[-1][0]
            ranges += "date_modified:max" in query
            if ranges and "date_modified:max" not in query and "date_modified:min" in query:
                store.change(50, "meanwhile")
                store.before = None

        store.before = change_after_the_range
        await mirror.refresh()
        assert ranges
        assert store.before is None
        await refreshed(mirror, store)


def with_total(total: int, query_has: str, page_size: int) -> Callable[[str, Page], Page]:
    """Return a lie about the totals of full listings."""

    def lie(query: str, page: Page) -> Page:
        if query_has not in query or page.pagination.per_page == 1:
            return page
        rows = page.data if total < page_size else []
        return Page(rows, attrs.evolve(page.pagination, total=total))

    return lie


@pytest.mark.parametrize("total", [0, 5_000])
async def test_totals_that_contradict_their_rows_end_the_refresh(
    total: int, tmp_path: Path
) -> None:
    store = FakeStore(page_size=20)
    for number in range(60):
        store.insert(number + 1, 1, "new")
    async with opened(store, tmp_path) as mirror:
        await refreshed(mirror, store)
        store.change(5, "later")
        store.lie = with_total(total, "date_modified", 20)
        before = await held(mirror)
        with pytest.raises(ListingDriftError):
            await mirror.refresh()
        assert await held(mirror) == before
        assert store.calls < 200
        store.lie = None
        await refreshed(mirror, store)


async def test_newest_rows_are_listed_in_parts_that_the_mirror_knows(tmp_path: Path) -> None:
    store = FakeStore(page_size=20, order="shuffled", inclusive=False)
    store.seed(900, step_s=7)
    async with opened(store, tmp_path) as mirror:
        await refreshed(mirror, store)
        for row_id in range(1, 900, 10):
            store.change(row_id, "changed")
        await refreshed(mirror, store)
        # 90 rows in parts of 19, and a count.
        assert (await refreshed(mirror, store)).calls <= 6
        for row_id in range(5, 900, 2):
            store.change(row_id, "again")
        await refreshed(mirror, store)
        assert (await refreshed(mirror, store)).calls <= 900 // 20 + 10
