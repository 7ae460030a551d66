"""The rows modified since a second are listed completely, whatever moves meanwhile."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from bc_attrvals.errors import FilterIgnoredError

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
