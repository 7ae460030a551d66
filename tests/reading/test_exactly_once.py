"""Exactly-once listings, while two other clients delete and insert without rest."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from random import Random

import aiohttp
import pytest

from bc_attrvals import AttributeValueFilter, Limits, ListingDriftError, Store
from bc_attrvals.sandbox import Quirks, Sandbox
from tests.conftest import make_store
from tests.raw_server import Connection, RawRequest, answer, page_body, row, store_on
from tests.reading.page_server import Pager, listing

ROWS = 6_000
PLAIN_READS = ROWS // 250


async def seed(sandbox: Sandbox, spread_s: int, crowded: int = 600) -> set[int]:
    """Store rows of the last `spread_s` seconds, `crowded` of them in a single one."""
    random = Random(5)
    began_at = int(time.time()) - spread_s
    await sandbox.seed(
        (c, 1, "v", began_at + (spread_s // 2 if c <= crowded else random.randrange(spread_s)))
        for c in range(1, ROWS + 1)
    )
    return {row.id for row in await sandbox.rows()}


@asynccontextmanager
async def restless_writers(sandbox: Sandbox, ids: set[int]) -> AsyncIterator[None]:
    """Two other clients, each of which inserts and deletes as fast as it is answered."""
    url = f"{sandbox.url}/stores/{sandbox.store_hash}/v3/customers/attribute-values"
    headers = {"X-Auth-Token": sandbox.access_token}
    resting = asyncio.Event()

    async def write(number: int, victims: list[int]) -> None:
        customer = 10**6 * number
        async with aiohttp.ClientSession(headers=headers) as session:
            while not resting.is_set():
                customer += 2
                items = [
                    {"customer_id": customer + n, "attribute_id": 1, "value": "new"} for n in (0, 1)
                ]
                async with session.put(url, json=items) as answer:
                    await answer.read()
                async with session.delete(f"{url}?id:in={victims.pop()}") as answer:
                    await answer.read()

    victims = sorted(ids)
    Random(9).shuffle(victims)
    writers = [asyncio.create_task(write(number, victims[number - 1 :: 2])) for number in (1, 2)]
    try:
        yield
    finally:
        resting.set()
        await asyncio.gather(*writers)


async def listed(store: Store, filter: AttributeValueFilter | None = None) -> list[int]:
    stream = store.attribute_values.stream(filter, exactly_once=True)
    return [value.id async for value in stream]


async def test_two_passes_over_a_second_hold_its_rows_once() -> None:
    rows = [row(number, number) for number in range(1, 1_001)]
    traced: list[tuple[int, int]] = []

    async def script(request: RawRequest, connection: Connection) -> None:
        query, page = request.query, request.page
        bounds = (query.get("date_created:min", ""), query.get("date_created:max", "~"))
        found = [one for one in rows if bounds[0] <= one["date_created"] <= bounds[1]]
        traced.append((page, tracemalloc.get_traced_memory()[0]))
        # Without a Date header, all ranges may grow.
        shown = found[100 * (page - 1) : 100 * page]
        body = page_body(shown, total=len(found), per_page=100, page=page, total_pages=10)
        await connection.say(answer(body))

    async with store_on(script, limits=Limits(page_size=100)) as (store, _):
        tracemalloc.start()
        try:
            assert sorted(await listed(store)) == list(range(1, 1_001))
        finally:
            tracemalloc.stop()
    assert [page for page, _ in traced[-20:]] == list(range(10, 0, -1)) * 2
    (_, before), (_, first_pass), (_, second_pass) = traced[-20], traced[-11], traced[-1]
    assert second_pass - before < 1.5 * (first_pass - before)


@pytest.mark.parametrize("has_now", [True, False])
@pytest.mark.parametrize("date_bounds", ["inclusive", "exclusive"])
async def test_rows_of_the_ends_of_the_calendar_come_once(date_bounds: str, has_now: bool) -> None:
    # "0001-01-01T00:00:00Z" is what some languages write for no date.
    dates = ["0001-01-01T00:00:00Z", "2024-05-14T09:34:00Z", "9999-12-31T23:59:59Z"]
    rows = [row(number, number, 1, "v") for number in range(1, 19)]
    for one in rows:
        one["date_created"] = dates[one["id"] % 3]

    async def script(request: RawRequest, connection: Connection) -> None:
        query, page = request.query, request.page
        least, most = (query.get(f"date_created:{end}") for end in ("min", "max"))
        if date_bounds == "inclusive":
            found = [one for one in rows if (least or "") <= one["date_created"] <= (most or "~")]
        else:
            found = [one for one in rows if (least or "") < one["date_created"] < (most or "~")]
        body = page_body(
            found[5 * (page - 1) : 5 * page], total=len(found), per_page=5, page=page, total_pages=9
        )
        now = {"Date": "Tue, 14 May 2024 10:00:00 GMT"} if has_now else {}
        await connection.say(answer(body, headers=now))

    async with store_on(script, limits=Limits(page_size=5)) as (store, _):
        assert sorted(await listed(store)) == list(range(1, 19))


@pytest.mark.parametrize("date_bounds", ["inclusive", "exclusive"])
@pytest.mark.parametrize("order", ["id", "id_desc", "shuffled"])
async def test_every_row_that_lives_through_the_listing_comes_once(
    order: str, date_bounds: str
) -> None:
    quirks = Quirks(order=order, date_bounds=date_bounds)  # type: ignore[arg-type]
    async with Sandbox(quota=None, quirks=quirks) as sandbox, make_store(sandbox) as store:
        before = await seed(sandbox, spread_s=3_600)
        async with restless_writers(sandbox, before):
            ids = await listed(store)
        lived_through = before & {row.id for row in await sandbox.rows()}
        assert len(ids) == len(set(ids))
        assert lived_through <= set(ids)
        assert store.statistics().requests <= 6 * PLAIN_READS


async def test_rows_of_the_last_seconds_are_listed_while_more_are_added() -> None:
    async with Sandbox(quota=None) as sandbox, make_store(sandbox) as store:
        before = await seed(sandbox, spread_s=3)
        async with restless_writers(sandbox, before):
            ids = await listed(store)
        assert len(ids) == len(set(ids))
        assert before & {row.id for row in await sandbox.rows()} <= set(ids)


@pytest.mark.parametrize("order", ["id", "id_desc", "shuffled"])
async def test_the_newest_rows_are_found_wherever_they_stand(order: str) -> None:
    # Of the tail's many pages, neither the first nor the last one need hold the newest row.
    quirks = Quirks(order=order)  # type: ignore[arg-type]
    async with (
        Sandbox(quota=None, quirks=quirks) as sandbox,
        make_store(sandbox, limits=Limits(page_size=5)) as store,
    ):
        now = int(time.time())
        await sandbox.seed((c, 1, "v", now - c) for c in range(1, 1_001))
        assert sorted(await listed(store)) == [row.id for row in await sandbox.rows()]


async def test_a_quiet_listing_costs_few_calls_more_than_a_plain_one() -> None:
    async with Sandbox(quota=None) as sandbox, make_store(sandbox) as store:
        before = await seed(sandbox, spread_s=3_600)
        assert sorted(await listed(store)) == sorted(before)
        assert store.statistics().requests <= PLAIN_READS + 6


async def test_a_listing_of_one_page_costs_one_call(sandbox: Sandbox, store: Store) -> None:
    await sandbox.seed((c, 1, "v") for c in range(1, 251))
    assert len(await listed(store)) == 250
    assert store.statistics().requests == 1


@pytest.mark.parametrize("most", [50, 20])
async def test_a_store_that_refuses_large_pages_is_asked_for_smaller_ones(most: int) -> None:
    quirks = Quirks(max_limit=most)
    async with Sandbox(quota=None, quirks=quirks) as sandbox, make_store(sandbox) as store:
        await sandbox.seed((c, 1, "v", int(time.time()) - c) for c in range(1, 301))
        assert sorted(await listed(store)) == list(range(1, 301))


async def test_a_filter_that_matches_nothing_costs_no_call(store: Store) -> None:
    assert await listed(store, AttributeValueFilter(customer_id_in=[])) == []
    assert store.statistics().requests == 0


@pytest.mark.parametrize("date_bounds", ["inclusive", "exclusive"])
async def test_the_filters_own_bounds_mean_what_they_mean_in_a_plain_listing(
    date_bounds: str,
) -> None:
    quirks = Quirks(date_bounds=date_bounds)  # type: ignore[arg-type]
    async with Sandbox(quota=None, quirks=quirks) as sandbox, make_store(sandbox) as store:
        began_at = int(time.time()) - 2_000
        await sandbox.seed((c, 1 + c % 2, "v", began_at + c // 2) for c in range(1, 3_001))
        wanted = AttributeValueFilter(
            attribute_id_in=[2],
            customer_id_in=range(1, 4_001),
            date_created_min=datetime.fromtimestamp(began_at + 100, UTC),
            date_created_max=datetime.fromtimestamp(began_at + 1_400, UTC),
        )
        plain = [value.id async for value in store.attribute_values.stream(wanted)]
        assert len(plain) > 1_000
        assert sorted(await listed(store, wanted)) == sorted(plain)


async def test_a_second_that_is_asked_for_exactly_is_listed_whole() -> None:
    async with Sandbox(quota=None) as sandbox, make_store(sandbox) as store:
        before = await seed(sandbox, spread_s=3_600)
        crowded = next(row for row in await sandbox.rows() if row.customer_id == 1)
        moment = datetime.fromtimestamp(crowded.date_created_s, UTC)
        wanted = {
            row.id for row in await sandbox.rows() if row.date_created_s == crowded.date_created_s
        }
        async with restless_writers(sandbox, before):
            ids = await listed(store, AttributeValueFilter(date_created=moment))
        assert len(ids) == len(set(ids))
        assert wanted & {row.id for row in await sandbox.rows()} <= set(ids)


async def test_a_filter_by_modification_is_read_by_single_pages() -> None:
    async with Sandbox(quota=None) as sandbox, make_store(sandbox) as store:
        before = await seed(sandbox, spread_s=3_600, crowded=0)
        since = datetime.fromtimestamp(int(time.time()) - 7_200, UTC)
        async with restless_writers(sandbox, before):
            ids = await listed(store, AttributeValueFilter(date_modified_min=since))
        assert len(ids) == len(set(ids))
        assert before & {row.id for row in await sandbox.rows()} <= set(ids)
        assert store.statistics().requests <= 6 * PLAIN_READS


async def test_a_crowded_second_that_rows_may_enter_is_read_until_none_does() -> None:
    async with Sandbox(quota=None) as sandbox, make_store(sandbox) as store:
        before = await seed(sandbox, spread_s=2_000, crowded=3_000)
        since = datetime.fromtimestamp(int(time.time()) - 7_200, UTC)
        async with restless_writers(sandbox, before):
            ids = await listed(store, AttributeValueFilter(date_modified_min=since))
        assert len(ids) == len(set(ids))
        assert before & {row.id for row in await sandbox.rows()} <= set(ids)


async def test_a_row_dated_tomorrow_hides_none_of_the_present() -> None:
    async with Sandbox(quota=None) as sandbox, make_store(sandbox) as store:
        before = await seed(sandbox, spread_s=3_600)
        await sandbox.seed([(10**9, 1, "tomorrow", int(time.time()) + 86_400)])
        before = {row.id for row in await sandbox.rows()}
        async with restless_writers(sandbox, before):
            ids = await listed(store)
        assert len(ids) == len(set(ids))
        assert before & {row.id for row in await sandbox.rows()} <= set(ids)
        assert store.statistics().requests <= 6 * PLAIN_READS


#: The second of all rows of a `Pager`, which does not look at filters.
PAGER_SECOND = AttributeValueFilter(date_created=datetime(2024, 10, 24, 4, 32, 20, tzinfo=UTC))


@pytest.mark.parametrize("total_pages", [1, 26_000])
async def test_no_counter_but_the_total_decides_how_many_pages_are_read(total_pages: int) -> None:
    pager = Pager(
        list(range(1, 401)),
        per_page=50,
        lie=lambda page, ids, total, pages: (ids, 1, total, total_pages),
    )
    async with listing(pager) as store:
        assert sorted(await listed(store, PAGER_SECOND)) == list(range(1, 401))
    # Page 1 and the last one, page 1 again for its total, and twice all of them.
    assert len(pager.asked) == 2 + 1 + 2 * 8


async def test_a_total_that_rows_do_not_bear_out_is_an_error_in_a_few_calls() -> None:
    pager = Pager(
        list(range(1, 401)),
        per_page=50,
        lie=lambda page, ids, total, pages: (ids, page, 6_500_000, pages),
    )
    async with listing(pager) as store:
        with pytest.raises(ListingDriftError, match="page 130000 has 0 rows"):
            await listed(store, PAGER_SECOND)
    assert pager.asked == [1, 130_000]


async def test_leaving_the_loop_leaves_nothing_behind(no_task_left: None) -> None:
    async with Sandbox(quota=None) as sandbox, make_store(sandbox) as store:
        await seed(sandbox, spread_s=3_600)
        stream = store.attribute_values.stream(exactly_once=True)
        async for _ in stream:
            break
        await stream.aclose()
        assert not any(store.statistics().in_flight.values())


@pytest.mark.parametrize("rows", [3, 9])
async def test_a_row_that_comes_twice_is_yielded_once(rows: int) -> None:
    async def script(request: RawRequest, connection: Connection) -> None:
        query, size = request.query, 4
        low, high = query.get("date_created:min", ""), query.get("date_created:max", "~")
        moments = {one: f"2024-10-24T04:{one:02}:00Z" for one in range(1, rows + 1)}
        found = [
            {**row(one, one), "date_created": moment}
            for one, moment in moments.items()
            if low <= moment <= high
        ]
        shown = found[(request.page - 1) * size : request.page * size]
        body = page_body(
            # The first row of all stands on each page, and a row of the page twice.
            [*shown, *shown[:1], *found[:1]],
            total=len(found),
            per_page=size,
            page=request.page,
            total_pages=-(-len(found) // size),
        )
        await connection.say(answer(body))

    async with store_on(script, limits=Limits(page_size=4)) as (store, _):
        found = await listed(store)
    assert sorted(found) == [*range(1, rows + 1)]


@pytest.mark.parametrize(
    "date",
    [
        "Mon, 01 Jan 99999999999 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 -0500",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Mon, 01 Jan 2024 99999999999999999999:00:00 GMT",
        "Mon, 01 Jan 2024 00:00:00 +9999999999",
        "soon",
    ],
)
async def test_a_date_header_of_no_calendar_is_none(date: str) -> None:
    rows = [row(number, number) for number in (1, 2, 3)]
    for one in rows:
        one["date_created"] = f"2024-05-14T09:34:0{one['id']}Z"

    async def script(request: RawRequest, connection: Connection) -> None:
        least, most = (request.query.get(f"date_created:{end}") for end in ("min", "max"))
        found = [one for one in rows if (least or "") <= one["date_created"] <= (most or "~")]
        page = request.page
        body = page_body(
            found[2 * page - 2 : 2 * page], total=len(found), per_page=2, page=page, total_pages=2
        )
        await connection.say(answer(body, headers={"Date": date}))

    async with store_on(script, limits=Limits(page_size=2)) as (store, _):
        assert sorted(await listed(store)) == [1, 2, 3]
