"""A refresh: what it costs, and that the mirror equals the store afterwards."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest

from bc_attrvals.core.filters import AttributeValueFilter
from bc_attrvals.core.models import AttributeValue
from bc_attrvals.errors import InvalidInputError

from .fake_store import FakeStore, moment
from .opening import change_and_insert, delete, held, opened, refreshed

pytestmark = pytest.mark.looptime(noop_cycles=2)

STORES = {
    "id order, bounds inclusive": {},
    "shuffled, bounds exclusive": {"order": "shuffled", "inclusive": False},
}


@pytest.mark.parametrize("options", STORES.values(), ids=STORES.keys())
async def test_a_refresh_costs_what_changed(options: dict[str, object], tmp_path: Path) -> None:
    # 120 pages, as 30,000 rows in pages of 250 are.
    rng = random.Random(3)
    store = FakeStore(page_size=25, **options)  # type: ignore[arg-type]
    store.seed(3_000)
    async with opened(store, tmp_path) as mirror:
        first = await refreshed(mirror, store)
        assert first.verified
        assert first.added == first.rows == 3_000

        assert (await refreshed(mirror, store)).calls <= 4

        change_and_insert(store, rng, 60, 10)
        report = await refreshed(mirror, store)
        assert report.calls <= 8
        assert (report.changed, report.added, report.verified) == (60, 10, False)

        delete(store, rng.sample(sorted(store.rows), 5))
        report = await refreshed(mirror, store)
        assert report.calls <= 45
        assert report.saved_calls >= 75

        customers = range(600, 604)
        delete(store, [one.id for one in store.rows.values() if one.customer_id in customers])
        assert (await refreshed(mirror, store)).calls <= 30

        delete(store, rng.sample(sorted(store.rows), 60))
        assert (await refreshed(mirror, store)).calls <= 140


async def test_what_changes_in_the_newest_second_is_found_next_time(tmp_path: Path) -> None:
    store = FakeStore()
    store.seed(2_000)
    async with opened(store, tmp_path) as mirror:
        await refreshed(mirror, store)
        for value in ("one", "two", "three"):
            store.change(7, value)
            store.insert(9_000, 1, value)
            await refreshed(mirror, store)
        store.delete(store.next_id - 1)
        await refreshed(mirror, store)


async def test_thousands_of_rows_of_one_second_are_not_listed_each_time(tmp_path: Path) -> None:
    store = FakeStore()
    for index in range(2_000):
        store.insert(index + 1, 1, "x")
    async with opened(store, tmp_path) as mirror:
        first = await refreshed(mirror, store)
        assert (await refreshed(mirror, store)).calls <= first.calls + 4
        # Once a minute has passed at every clock, they are listed a last time.
        await asyncio.sleep(200)
        await refreshed(mirror, store)
        assert (await refreshed(mirror, store)).calls <= 2
        store.change(5, "y")
        assert (await refreshed(mirror, store)).calls <= 3
        change_and_insert(store, random.Random(1), 600, 0)
        await refreshed(mirror, store)
        await asyncio.sleep(200)
        await refreshed(mirror, store)
        assert (await refreshed(mirror, store)).calls <= 2
        delete(store, [17])
        await refreshed(mirror, store)
        delete(store, list(store.rows))
        await refreshed(mirror, store)


@pytest.mark.parametrize("size", [0, 1, 250, 251, 700])
async def test_stores_of_every_size(size: int, tmp_path: Path) -> None:
    store = FakeStore()
    store.seed(size)
    async with opened(store, tmp_path) as mirror:
        await refreshed(mirror, store)
        store.insert(1, 9, "new")
        await refreshed(mirror, store)
        delete(store, list(store.rows))
        await refreshed(mirror, store)
        store.insert(1, 9, "again")
        await refreshed(mirror, store)


async def test_a_scope_of_many_customers_is_refreshed_in_parts(tmp_path: Path) -> None:
    store = FakeStore(room_bytes=400)
    store.seed(2_000)
    scope = AttributeValueFilter(customer_id_in=range(1, 401), attribute_id_in=[1, 2])

    def in_scope() -> dict[int, AttributeValue]:
        rows = store.rows.values()
        return {r.id: r for r in rows if r.customer_id <= 400 and r.attribute_id <= 2}

    async with opened(store, tmp_path, scope) as mirror:
        await mirror.refresh()
        assert await held(mirror) == in_scope()
        store.insert(17, 1, "in the scope")
        store.insert(17, 3, "outside")
        store.insert(450, 1, "outside")
        delete(store, [1, 2, 3, 41, 802, 1_999])
        report = await mirror.refresh()
        assert await held(mirror) == in_scope()
        assert (report.added, report.removed) == (1, 4)


async def test_attributes_of_a_scope_must_fit_into_a_url(tmp_path: Path) -> None:
    store = FakeStore(room_bytes=400)
    store.seed(100)
    scope = AttributeValueFilter(attribute_id_in=range(1, 200))
    async with opened(store, tmp_path, scope) as mirror:
        with pytest.raises(InvalidInputError, match="more attributes than a URL holds") as raised:
            await mirror.refresh()
        assert raised.value.field == "scope"
        assert await held(mirror) == {}


async def test_a_scope_that_matches_nothing_is_refreshed(tmp_path: Path) -> None:
    store = FakeStore()
    store.seed(100)
    async with opened(store, tmp_path, AttributeValueFilter(attribute_id_in=[])) as mirror:
        for _ in range(2):
            await mirror.refresh()
            assert await held(mirror) == {}


async def test_urls_full_of_customers_have_room_for_attributes(tmp_path: Path) -> None:
    # All customers and two dates fill a URL. Then the counts ask for single attributes, too.
    store = FakeStore(room_bytes=1_000, page_size=10)
    store.seed(1_800, attributes=5)
    scope = AttributeValueFilter(customer_id_in=range(100, 326))
    async with opened(store, tmp_path, scope) as mirror:
        await mirror.refresh()
        gone = [
            row.id
            for row in (await held(mirror)).values()
            if row.attribute_id < 3 and (140 < row.customer_id < 180 or row.customer_id % 7 == 0)
        ]
        delete(store, gone)
        report = await mirror.refresh()
        assert report.removed == len(gone)
        assert any("attribute_id:in" in query for query, _, _ in store.asked)
        assert max(len(query) for query, _, _ in store.asked) <= store.room_bytes


@pytest.mark.parametrize("options", STORES.values(), ids=STORES.keys())
async def test_a_row_dated_tomorrow_hides_no_change(
    options: dict[str, object], tmp_path: Path
) -> None:
    store = FakeStore(page_size=50, **options)  # type: ignore[arg-type]
    store.seed(300)
    tomorrow = moment(store.now() + 86_400)
    for row_id in range(1, 200, 3):
        old = store.rows[row_id]
        store.put(
            AttributeValue(
                row_id,
                old.customer_id,
                old.attribute_id,
                "early",
                old.date_created,
                tomorrow,
            )
        )
    async with opened(store, tmp_path) as mirror:
        await refreshed(mirror, store)
        for value in ("one", "two"):
            change_and_insert(store, random.Random(1), 60, 10)
            store.insert(9_000, 1, value, store.now() + 86_400)
            await refreshed(mirror, store)
            delete(store, [2, store.next_id - 1] if value == "one" else [5])
            await refreshed(mirror, store)


async def test_without_a_date_header_a_row_of_tomorrow_hides_no_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FakeStore(page_size=50)
    store.has_dates = False
    store.seed(300)
    monkeypatch.setattr(time, "time", store.now)
    store.insert(9_000, 1, "early", store.now() + 86_400)
    async with opened(store, tmp_path) as mirror:
        for value in ("one", "two", "three"):
            await refreshed(mirror, store)
            await asyncio.sleep(200)
            store.change(5, value)
        await refreshed(mirror, store)


@pytest.mark.parametrize("offset_s", [-7_200, -2, 2, None])
async def test_the_date_of_the_answers_may_be_off_or_missing(
    offset_s: int | None, tmp_path: Path
) -> None:
    store = FakeStore(page_size=50)
    store.has_dates, store.date_offset_s = offset_s is not None, offset_s or 0
    store.seed(300)
    async with opened(store, tmp_path) as mirror:
        await refreshed(mirror, store)
        for number in range(3):
            change_and_insert(store, random.Random(number), 60, 10)
            delete(store, random.Random(number).sample(sorted(store.rows), 5))
            await refreshed(mirror, store)
