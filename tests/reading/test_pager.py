"""Listings: every filter, every page, and servers whose page counts can't be trusted."""

from __future__ import annotations

import asyncio
import gc
import random
import re
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing, nullcontext
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from bc_attrvals import (
    AttributeValue,
    AttributeValueFilter,
    AuthenticationError,
    DecodeError,
    InvalidInputError,
    Limits,
    ListingDriftError,
    ListingDriftSeen,
    PayloadTooLargeError,
    RetryPolicy,
    ServerError,
    Store,
)
from bc_attrvals.core.requests import Request
from bc_attrvals.core.responses import Response
from bc_attrvals.sandbox import Quirks, Sandbox, StoredRow
from bc_attrvals.transport.session import Session
from tests.conftest import make_store
from tests.probes import at_rest, busy, until
from tests.raw_server import Connection, RawRequest, answer, page_body, row, store_on
from tests.reading.page_server import Pager, listing

pytestmark = pytest.mark.usefixtures("no_task_left")

EPOCH = datetime(2024, 5, 14, 9, 30, tzinfo=UTC)
NAMES = {1: "tier", 2: "tier", 3: "Größe & Farbe", 4: "a+b=c/d?e#f%41"}
DEFINED = [(name, "string", number) for number, name in NAMES.items()]


# -- filters --


def some_rows(rng: random.Random, count: int = 700) -> list[tuple[int, int, str, int, int]]:
    """Return rows whose dates crowd a few minutes, so that equal seconds and borders are hit."""
    start = int(EPOCH.timestamp())
    keys = rng.sample(
        [(customer, attribute) for customer in range(1, 201) for attribute in range(1, 7)], count
    )
    rows = []
    for customer, attribute in keys:
        created = start + rng.randrange(120)
        rows.append(
            (customer, attribute, f"{customer}/{attribute}", created, created + rng.randrange(60))
        )
    return rows


def some_moment(rng: random.Random, *, whole: bool) -> datetime | date:
    """Return a moment among the rows' dates, in some time zone; rarely a date."""
    if rng.random() < 0.1:
        return (EPOCH + timedelta(days=rng.randrange(-1, 2))).date()
    moment = EPOCH + timedelta(seconds=rng.randrange(180))
    if not whole and rng.random() < 0.5:
        moment += timedelta(microseconds=rng.randrange(1, 1_000_000))
    return moment.astimezone(timezone(timedelta(hours=rng.randrange(-11, 13), minutes=30)))


def some_filter(rng: random.Random) -> dict[str, Any]:
    """Return some filters at once, by the names of `AttributeValueFilter`."""
    choices: dict[str, Callable[[], Any]] = {
        "customer_id_in": lambda: [
            rng.randrange(1, 260) for _ in range(rng.choice([1, 3, 60, 400]))
        ],
        "attribute_id_in": lambda: {rng.randrange(1, 9) for _ in range(rng.choice([1, 2, 4]))},
        "name": lambda: rng.choice([*NAMES.values(), "attribute_5", "nobody"]),
        "date_created": lambda: some_moment(rng, whole=True),
        "date_created_min": lambda: some_moment(rng, whole=False),
        "date_created_max": lambda: some_moment(rng, whole=False),
        "date_modified": lambda: some_moment(rng, whole=True),
        "date_modified_min": lambda: some_moment(rng, whole=False),
        "date_modified_max": lambda: some_moment(rng, whole=False),
    }
    wanted = rng.sample(sorted(choices), rng.choice([1, 1, 2, 2, 3, 4]))
    return {name: choices[name]() for name in wanted}


def seconds(moment: datetime | date) -> float:
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    return moment.timestamp()


def matches(stored: StoredRow, wanted: dict[str, Any]) -> bool:
    """Say whether a row matches, by what the fields mean and nothing of the library."""
    tests: dict[str, Callable[[Any], bool]] = {
        "customer_id_in": lambda ids: stored.customer_id in ids,
        "attribute_id_in": lambda ids: stored.attribute_id in ids,
        "name": lambda name: (
            NAMES.get(stored.attribute_id, f"attribute_{stored.attribute_id}") == name
        ),
        "date_created": lambda moment: stored.date_created_s == seconds(moment),
        "date_created_min": lambda moment: stored.date_created_s >= seconds(moment),
        "date_created_max": lambda moment: stored.date_created_s <= seconds(moment),
        "date_modified": lambda moment: stored.date_modified_s == seconds(moment),
        "date_modified_min": lambda moment: stored.date_modified_s >= seconds(moment),
        "date_modified_max": lambda moment: stored.date_modified_s <= seconds(moment),
    }
    return all(tests[name](value) for name, value in wanted.items())


def as_stored(value: AttributeValue) -> StoredRow:
    assert value.date_created is not None
    assert value.date_modified is not None
    return StoredRow(
        value.id,
        value.customer_id,
        value.attribute_id,
        value.value,
        int(value.date_created.timestamp()),
        int(value.date_modified.timestamp()),
    )


async def all_rows(
    store: Store, filter: AttributeValueFilter | None = None
) -> list[AttributeValue]:
    return [value async for value in store.attribute_values.stream(filter)]


@pytest.mark.parametrize("seed", range(4))
async def test_every_filter_alone_and_combined_gives_what_matches(seed: int) -> None:
    rng = random.Random(seed)
    quirks = Quirks(order=("id", "id_desc", "shuffled", "shuffled")[seed])  # type: ignore[arg-type]
    async with (
        Sandbox(quota=None, attributes=DEFINED, quirks=quirks) as sandbox,
        make_store(sandbox, limits=Limits(page_size=40)) as store,
    ):
        await sandbox.seed(some_rows(rng))
        stored = await sandbox.rows()
        values = store.attribute_values
        found = 0
        for _ in range(60):
            wanted = some_filter(rng)
            expected = sorted(
                (one for one in stored if matches(one, wanted)), key=lambda one: one.id
            )
            given = AttributeValueFilter(**wanted)
            listed = await all_rows(store, given)
            assert sorted(map(as_stored, listed), key=lambda one: one.id) == expected, wanted
            pages = [page async for page in values.pages(given, read_ahead=rng.randrange(3))]
            assert [one for page in pages for one in page.data] == listed
            assert all(len(page.data) <= 40 for page in pages)
            assert await values.count(given) == len(expected)
            if len(wanted.get("customer_id_in", ())) < 400:
                page = await values.get_page(given, limit=100)
                assert len(page.data) == min(100, len(expected))
                assert page.pagination.total == len(expected)
            found += len(expected)
        assert found > 1000
        for one in rng.sample(stored, 10):
            value = await values.get(one.customer_id, one.attribute_id)
            assert value is not None
            assert as_stored(value) == one
        assert await values.get(9999, 1) is None
        check_urls(sandbox)


def check_urls(sandbox: Sandbox) -> None:
    """Check what went over the wire in all listings."""
    for request in sandbox.requests.of("list"):
        assert request.status == 200
        assert len(f"{sandbox.url}{request.path}?{request.query_string}") < 4096
        for part in request.query_string.split("&"):
            name, _, value = part.partition("=")
            if name.startswith("date_"):
                assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value), part
                assert re.fullmatch(r"date_(created|modified)(:min|:max)?", name)
            elif name.endswith(":in"):
                assert re.fullmatch(r"[\d,]+", value), part


async def test_no_filter_is_everything_and_an_empty_list_is_nothing(
    sandbox: Sandbox, store: Store
) -> None:
    await sandbox.seed((customer, 1, "v") for customer in range(1, 8))
    values = store.attribute_values
    for everything in (None, AttributeValueFilter()):
        assert len(await all_rows(store, everything)) == 7
        assert await values.count(everything) == 7
        assert (await values.get_page(everything)).pagination.total == 7
    asked = len(sandbox.requests)
    late, early = EPOCH, EPOCH - timedelta(seconds=1)
    for nothing in (
        AttributeValueFilter(customer_id_in=[]),
        AttributeValueFilter(customer_id_in=[1], attribute_id_in=()),
        AttributeValueFilter(date_created_min=late, date_created_max=early),
    ):
        assert await all_rows(store, nothing) == []
        assert [page async for page in values.pages(nothing)] == []
        assert await values.count(nothing) == 0
        assert (await values.get_page(nothing)).data == []
    assert len(sandbox.requests) == asked


@pytest.mark.parametrize("attributes", [None, range(1, 4), range(1_000_001, 1_001_501)])
async def test_4000_customers_in_one_filter_are_split_into_urls_that_fit(attributes: Any) -> None:
    rng = random.Random(9)
    customers = rng.sample(range(1, 2**31), 4000)
    async with (
        Sandbox(quota=None, max_url_bytes=4096) as sandbox,
        make_store(sandbox) as store,
    ):
        here = [*customers[::3], *rng.sample(range(1, 2**31), 500)]
        await sandbox.seed(
            (customer, attribute, "v") for customer in here for attribute in (1, 1_000_500)
        )
        wanted = AttributeValueFilter(
            customer_id_in=[*customers, *customers],
            attribute_id_in=attributes,
            name="attribute_1",
            date_created_min=EPOCH,
        )
        expected = {
            (one.customer_id, 1)
            for one in await sandbox.rows()
            if one.customer_id in set(customers) and (attributes is None or 1 in attributes)
        }
        if attributes is not None and 1 not in attributes:
            wanted = attrs.evolve(wanted, name="attribute_1000500")
            expected = {(customer, 1_000_500) for customer in customers[::3]}
        found = [value.key for value in await all_rows(store, wanted)]
        assert len(found) == len(expected) >= 1334
        assert set(found) == expected
        assert await store.attribute_values.count(wanted) == len(expected)
        check_urls(sandbox)
        with pytest.raises(InvalidInputError, match="use pages"):
            await store.attribute_values.get_page(wanted)
        if attributes is None:
            # Not many more than there must be.
            assert sandbox.calls["list"] <= 2 * 13


async def test_dates_go_out_in_utc_with_z_and_unencoded(sandbox: Sandbox, store: Store) -> None:
    eastern = timezone(timedelta(hours=5, minutes=30))
    await store.attribute_values.get_page(
        AttributeValueFilter(
            date_created=datetime(2024, 5, 14, 15, 4, tzinfo=eastern),
            date_created_min=date(2024, 5, 14),
            date_created_max=datetime(2024, 5, 15, 0, 0, 0, 999_999, tzinfo=UTC),
            date_modified_min=datetime(2024, 2, 28, 23, 59, 59, 1, tzinfo=UTC),
            date_modified_max=datetime(999, 1, 1, tzinfo=UTC) + timedelta(days=999_999 // 2),
        ),
        page=3,
        limit=7,
    )
    (request,) = sandbox.requests
    assert request.query_string == (
        "date_created=2024-05-14T09:34:00Z"
        "&date_created:min=2024-05-14T00:00:00Z"
        "&date_created:max=2024-05-15T00:00:00Z"
        "&date_modified:min=2024-02-29T00:00:00Z"
        "&date_modified:max=2368-01-01T00:00:00Z"
        "&limit=7&page=3"
    ).replace("2368-01-01", (datetime(999, 1, 1) + timedelta(days=999_999 // 2)).date().isoformat())


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"page": 0}, "page"),
        ({"page": True}, "page"),
        ({"limit": 0}, "limit"),
        ({"limit": 251}, "limit"),
        ({"limit": "9"}, "limit"),
    ],
)
async def test_a_page_out_of_range_is_refused(
    sandbox: Sandbox, store: Store, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        await store.attribute_values.get_page(**options)
    assert caught.value.field == field
    with pytest.raises(InvalidInputError):
        await anext(store.attribute_values.pages(read_ahead=-1))
    assert len(sandbox.requests) == 0


# -- what servers answer --


@pytest.mark.parametrize(
    "quirks",
    [
        Quirks(value_field="value"),
        Quirks(zoneless_dates=True),
        Quirks(order="id_desc"),
        Quirks(order="shuffled", omit_links=True),
        Quirks(clamp_pages=True),
        Quirks(max_limit=7, over_limit="clamp"),
        Quirks(max_limit=50, over_limit="refuse"),
        Quirks(max_limit=50, value_field="value", zoneless_dates=True, clamp_pages=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("count", [0, 1, 50, 350])
async def test_each_row_comes_once_whatever_the_store_is_like(quirks: Quirks, count: int) -> None:
    async with Sandbox(quota=None, quirks=quirks) as sandbox, make_store(sandbox) as store:
        created = int(EPOCH.timestamp())
        await sandbox.seed(
            (customer, 1, f"v{customer}", created) for customer in range(1, count + 1)
        )
        values = store.attribute_values
        found = await all_rows(store)
        assert sorted((one.customer_id, one.value) for one in found) == [
            (customer, f"v{customer}") for customer in range(1, count + 1)
        ]
        assert all(one.date_created == EPOCH for one in found)
        assert await values.count() == count
        value = await values.get(1, 1)
        assert (value is not None) is (count > 0)
        pages = -(-count // min(quirks.max_limit, 250))
        assert sandbox.calls["list"] <= max(1, pages) + 3
        await at_rest(store)


async def test_a_refused_page_size_is_learned_and_other_refusals_are_not_hidden() -> None:
    quirks = Quirks(max_limit=50)
    async with Sandbox(quota=None, quirks=quirks) as sandbox, make_store(sandbox) as store:
        await sandbox.seed((customer, 1, "v") for customer in range(1, 121))
        for _ in range(3):
            assert len(await all_rows(store)) == 120
        assert sandbox.statuses == {413: 1, 200: 9}
        with pytest.raises(PayloadTooLargeError):
            await store.attribute_values.get_page(limit=51)
    async with (
        Sandbox(quota=None, quirks=Quirks(max_limit=9)) as sandbox,
        make_store(sandbox) as store,
    ):
        with pytest.raises(PayloadTooLargeError):
            await all_rows(store)
        assert sandbox.statuses == {413: 5}
    async with (
        Sandbox(quota=None, quirks=Quirks(max_limit=20)) as sandbox,
        make_store(sandbox) as store,
    ):
        await sandbox.seed((customer, 1, "v") for customer in range(1, 41))
        assert len(await all_rows(store)) == 40
        assert await store.attribute_values.get(1, 1) is not None
        assert sandbox.statuses == {413: 1, 200: 3}


AHEAD = pytest.mark.parametrize("read_ahead", [0, 1, 10])


async def ids_of(store: Store, read_ahead: int | None) -> list[int]:
    pages = store.attribute_values.pages(read_ahead=read_ahead)
    return [one.id async for page in pages for one in page.data]


@AHEAD
async def test_pages_that_are_added_underway_are_read_too(read_ahead: int) -> None:
    def grow(given: int, ids: list[int]) -> None:
        if given < 12:
            ids.extend(range(len(ids) + 1, len(ids) + 5))

    pager = Pager(list(range(1, 9)), change=grow)
    async with listing(pager) as store:
        found = await ids_of(store, read_ahead)
    assert found == pager.ids
    assert len(found) == 8 + 12 * 4


@AHEAD
@pytest.mark.parametrize("step", [1, 2, 4, 8, 20, 40])
async def test_rows_added_in_front_push_none_of_the_others_out(read_ahead: int, step: int) -> None:
    """A list by descending id: whole pages move on by one, and look as if they came twice."""
    first = list(range(40, 0, -1))

    def grow(given: int, ids: list[int]) -> None:
        # Never quicker than it is read: that would have no end.
        if given % (step // 2 + 2) == 1 and given < 30:
            top = ids[0]
            ids[:0] = range(top + step, top, -1)

    pager = Pager(list(first), change=grow)
    async with listing(pager) as store:
        found = await ids_of(store, read_ahead)
    assert set(first) <= set(found)
    assert pager.asked == list(range(1, len(pager.asked) + 1))


@AHEAD
async def test_a_shrinking_listing_ends_and_brings_no_row_twice(read_ahead: int) -> None:
    def shrink(given: int, ids: list[int]) -> None:
        del ids[-6:]

    pager = Pager(list(range(1, 41)), change=shrink)
    async with listing(pager) as store:
        found = await ids_of(store, read_ahead)
    assert found == list(range(1, len(found) + 1))
    assert len(pager.asked) <= 11


@AHEAD
async def test_a_listing_emptied_from_the_front_ends(read_ahead: int) -> None:
    pager = Pager(list(range(1, 101)), change=lambda _, ids: ids.__delitem__(slice(0, 4)))
    async with listing(pager) as store:
        found = await ids_of(store, read_ahead)
    assert len(found) == len(set(found))
    assert len(pager.asked) <= 26


@AHEAD
async def test_a_clamping_server_brings_no_row_twice_while_rows_go_in_front(
    read_ahead: int,
) -> None:
    """Its last page is another one each time: what moved up to it would come again."""

    def clamp(page: int, ids: list[int], total: int, pages: int) -> tuple[list[int], int, int, int]:
        last = max(1, pages)
        return pager.ids[(min(page, last) - 1) * 4 :][:4], min(page, last), total, pages

    pager = Pager(list(range(1, 42)), change=lambda _, ids: ids.__delitem__(slice(0, 3)), lie=clamp)
    async with listing(pager) as store:
        found = await ids_of(store, read_ahead)
    assert len(found) == len(set(found))
    assert len(pager.asked) <= 15


LIES: dict[str, Callable[[int, list[int], int, int], tuple[list[int], int, int, int]]] = {
    "the last page again, for ever one more": lambda page, ids, total, pages: (
        ids or [9, 10],
        page,
        total,
        page + 1,
    ),
    "the first page again, for ever one more": lambda page, ids, total, pages: (
        ids or [1, 2, 3, 4],
        page,
        total + page,
        page + 1,
    ),
    "two pages in turn for ever": lambda page, ids, total, pages: (
        ids or ([1, 2, 3, 4] if page % 2 else [5, 6, 7, 8]),
        page,
        total,
        page + 1,
    ),
    "the first page again, for ever one more and as many rows": lambda page, ids, total, pages: (
        ids or [1, 2, 3, 4],
        page,
        4 * page + 4,
        page + 1,
    ),
    "empty pages, for ever one more": lambda page, ids, total, pages: (ids, page, total, page + 1),
    "empty pages and a vast count": lambda page, ids, total, pages: (ids, page, 10**9, 10**7),
    "clamped pages and a vast count": lambda page, ids, total, pages: (
        ids or [9, 10],
        min(page, 3),
        total,
        10**7,
    ),
    "clamped pages": lambda page, ids, total, pages: (ids or [9, 10], min(page, 3), total, 3),
    "clamped pages that promise one more": lambda page, ids, total, pages: (
        ids or [9, 10],
        min(page, 3),
        total,
        page + 1,
    ),
}


@AHEAD
@pytest.mark.parametrize("lie", LIES)
async def test_a_server_that_promises_ever_more_pages_is_left_after_a_few(
    read_ahead: int, lie: str
) -> None:
    pager = Pager(list(range(1, 11)), lie=LIES[lie])
    found: list[int] = []
    total_is_a_lie = lie in {
        "the first page again, for ever one more",
        "the first page again, for ever one more and as many rows",
        "empty pages and a vast count",
    }
    async with listing(pager) as store:
        with pytest.raises(ListingDriftError) if total_is_a_lie else nullcontext():
            await gather_ids(store, found, read_ahead)
    assert found == list(range(1, 11))
    most = 13 if "as many rows" in lie else 3
    assert len(pager.asked) <= 3 + most + read_ahead


@AHEAD
async def test_a_count_of_no_pages_hides_no_rows(read_ahead: int) -> None:
    def lie(page: int, ids: list[int], total: int, pages: int) -> tuple[list[int], int, int, int]:
        return ids, page, total, 0

    async with listing(Pager(list(range(1, 11)), lie=lie)) as store:
        assert await ids_of(store, read_ahead) == list(range(1, 11))


@AHEAD
@pytest.mark.parametrize("current", [0, 1])
async def test_a_capped_page_under_counters_of_the_page_asked_for_hides_no_row(
    read_ahead: int, current: int
) -> None:
    """Four rows come for each page of 250 that is counted, always as page 0 or 1."""

    def lie(page: int, ids: list[int], total: int, pages: int) -> tuple[list[int], int, int, int]:
        return ids, current, total, 1

    pager = Pager(list(range(1, 41)), lie=lie)
    async with listing(pager) as store:
        assert await ids_of(store, read_ahead) == list(range(1, 41))
    assert sorted(pager.asked) == list(range(1, 11))


@AHEAD
async def test_rows_that_change_places_under_a_constant_total_are_drift(read_ahead: int) -> None:
    rng = random.Random(7)
    pager = Pager(list(range(1, 101)), change=lambda given, ids: rng.shuffle(ids))
    found: list[int] = []
    async with listing(pager) as store:
        with pytest.raises(ListingDriftError, match="its total says 100"):
            await gather_ids(store, found, read_ahead)
    assert len(found) == len(set(found)) < 100
    assert len(pager.asked) <= 25 + 3 + read_ahead


@AHEAD
async def test_an_empty_page_in_the_middle_is_no_end(read_ahead: int) -> None:
    pager = Pager(
        list(range(1, 25)),
        lie=lambda page, ids, total, pages: ([] if page in {2, 3} else ids, page, total, pages),
    )
    found: list[int] = []
    async with listing(pager) as store:
        with pytest.raises(ListingDriftError, match="brought 16 different rows in 7 pages"):
            await gather_ids(store, found, read_ahead)
    assert found == [1, 2, 3, 4, *range(13, 25)]


async def test_a_moving_total_is_told_as_drift() -> None:
    seen: list[ListingDriftSeen] = []

    def change(given: int, ids: list[int]) -> None:
        if given == 2:
            ids.pop()

    pager = Pager(list(range(1, 21)), change=change)
    async with listing(pager) as store:
        store.subscribe(lambda one: seen.append(one) if isinstance(one, ListingDriftSeen) else None)
        await ids_of(store, 0)
    assert seen == [ListingDriftSeen(page=3, total=20, new_total=19)]


@pytest.mark.parametrize("order", ["id", "id_desc", "shuffled"])
async def test_rows_come_and_go_between_the_pages_of_a_real_store(order: Any) -> None:
    """Rows that stand still are all listed while others come at the end and go from it."""
    rng = random.Random(3)
    async with (
        Sandbox(quota=None, quirks=Quirks(order=order)) as sandbox,
        make_store(sandbox) as store,
    ):
        await sandbox.seed((customer, 1, "v") for customer in range(1, 1001))
        still = {one.id for one in await sandbox.rows()}
        limited = store.attribute_values
        found: list[int] = []
        added = 1000
        async for page in limited.pages(read_ahead=1):
            found += [one.id for one in page.data]
            if added < 1500:
                # In the order by id they come at the end; turned round, in front.
                count = 250 if order == "id_desc" else rng.randrange(1, 300)
                await sandbox.seed(
                    (customer, 1, "v") for customer in range(added + 1, added + count + 1)
                )
                added += count
        if order != "shuffled":
            assert still <= set(found)
        assert len(found) >= 1000
        await at_rest(store)


# -- read-ahead --


async def test_no_more_pages_are_fetched_ahead_than_asked_for() -> None:
    pager = Pager(list(range(1, 401)))
    async with listing(pager) as store:
        for ahead in (0, 1, 3):
            pager.asked.clear()
            async with aclosing(store.attribute_values.pages(read_ahead=ahead)) as pages:
                for taken in range(1, 6):
                    await anext(pages)
                    await until(lambda: len(pager.asked) >= taken + ahead)  # noqa: B023
                    for _ in range(100):
                        await asyncio.sleep(0)
                    assert len(pager.asked) == taken + ahead
                    assert not busy(store)


async def test_pages_are_fetched_at_once_and_come_in_order(sandbox: Sandbox) -> None:
    await sandbox.seed((customer, 1, "v") for customer in range(1, 2001))
    sandbox.latency_ms = 5
    async with make_store(sandbox, limits=Limits(page_size=50, reads=6)) as store:
        found = [value.customer_id for value in await all_rows(store)]
        assert found == list(range(1, 2001))
        assert sandbox.peak_in_flight("list") == 6
        await at_rest(store)


async def test_a_page_that_comes_late_leaves_no_slot_idle_and_the_bound_holds() -> None:
    """Behind page 2 the others go on, until two more wait than can be on the wire."""
    late = asyncio.Event()

    async def script(request: RawRequest, connection: Connection) -> None:
        pager.asked.append(request.page)
        if request.page == 2:
            await late.wait()
        await Pager(pager.ids).script(request, connection)

    pager = Pager(list(range(1, 101)))
    reads = 4
    async with (
        asyncio.timeout(10),
        store_on(script, limits=Limits(reads=reads)) as (store, _),
        aclosing(store.attribute_values.pages()) as pages,
    ):
        await anext(pages)
        second = asyncio.ensure_future(anext(pages))
        # The others are asked for and answered while the second is not.
        await until(lambda: len(pager.asked) == 1 + reads + 2)
        await until(lambda: busy(store) == {"in flight": 1, "connections": 1, "calls": 1})
        assert sorted(pager.asked) == list(range(1, 1 + reads + 2 + 1))
        late.set()
        assert [value.id for value in (await second).data] == [5, 6, 7, 8]
        assert [value.id async for page in pages for value in page.data] == list(range(9, 101))
        assert sorted(pager.asked) == list(range(1, 26))
        await at_rest(store)


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("latency_ms", "late_ms", "workers", "pages_s"),
    [
        (0.5, 0.5, 1, 0.1),
        # A page that is late by chance opens no connections.
        (0.5, 24, 1, 0.125),
        (2, 2, 5, 0.095),
        (3, 3, 7, 0.1),
        (5, 5, 10, 0.115),
        (8, 8, 10, 0.18),
        (24, 24, 10, 0.53),
        # Nobody waits for a second page if the first is still on the wire after 25 ms.
        (100, 100, 10, 2.15),
    ],
)
async def test_connections_are_opened_once_waiting_has_lost_what_they_cost(
    latency_ms: float,
    late_ms: float,
    workers: int,
    pages_s: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    under_way = peak = 0

    async def answered_late(session: Session, request: Request, timeout_s: float) -> Response:
        nonlocal under_way, peak
        page = int(request.path.rpartition("=")[2])
        under_way += 1
        peak = max(peak, under_way)
        await asyncio.sleep((late_ms if page == 5 else latency_ms) / 1000)
        under_way -= 1
        body = page_body([row(page, page)], total=200, per_page=1, page=page, total_pages=200)
        return Response(200, CIMultiDictProxy(CIMultiDict()), body)

    monkeypatch.setattr(Session, "send", answered_late)
    loop = asyncio.get_running_loop()
    url, limits = "http://127.0.0.1:9", Limits(page_size=1)
    async with Store("hash", "token", base_url=url, limits=limits) as store:
        began_at = loop.time()
        assert len(await all_rows(store)) == 200
        took_s = loop.time() - began_at
    assert (peak, took_s <= pages_s) == (workers, True), took_s


@pytest.mark.skipif(sys.version_info < (3, 12), reason="new in Python 3.12")
@pytest.mark.parametrize("reads", [1, 2, 10])
async def test_answers_that_come_at_once_to_eager_tasks_ask_for_no_page_too_many(
    reads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    async def answered_at_once(session: Session, request: Request, timeout_s: float) -> Response:
        page = int(request.path.rpartition("=")[2])
        asked.append(page)
        body = page_body([row(page, page)], total=12, per_page=1, page=page, total_pages=12)
        return Response(200, CIMultiDictProxy(CIMultiDict()), body)

    monkeypatch.setattr(Session, "send", answered_at_once)
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    limits = Limits(reads=reads)
    async with Store("hash", "token", base_url="http://127.0.0.1:9", limits=limits) as store:
        assert [value.id for value in await all_rows(store)] == list(range(1, 13))
        assert asked == list(range(1, 13))
        pages = store.attribute_values.pages(read_ahead=0)
        assert [value.id async for page in pages for value in page.data] == list(range(1, 13))


@pytest.mark.parametrize("turns", range(5))
async def test_a_listing_cancelled_twice_leaves_no_error_unseen(
    turns: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Page 4 has failed, and nobody gets to it, for page 2 never comes."""
    failed = asyncio.Event()

    async def script(request: RawRequest, connection: Connection) -> None:
        if request.page == 2:
            await asyncio.sleep(60)
        elif request.page == 4:
            await connection.say(answer(b"", 422))
            failed.set()
        else:
            await pager.script(request, connection)

    pager = Pager(list(range(1, 61)))
    async with store_on(script, limits=Limits(reads=2)) as (store, _):
        listing = asyncio.create_task(all_rows(store))
        await failed.wait()
        await until(lambda: busy(store)["in flight"] == 1)
        listing.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        listing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listing
        del listing
        await at_rest(store)
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.levelno > 30] == []


@pytest.mark.parametrize("turns", range(8))
async def test_a_listing_whose_workers_are_cancelled_by_others_is_cancelled(turns: int) -> None:
    """Also where they are so before they began: nobody waits for ever."""
    pager = Pager(list(range(1, 101)))
    async with listing(pager) as store, aclosing(store.attribute_values.pages()) as pages:
        await anext(pages)
        before = asyncio.all_tasks()
        following = asyncio.ensure_future(anext(pages))
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() | before:
            if "_ReadAhead._work" in repr(task):
                task.cancel()
        outcomes = []
        while not outcomes or not isinstance(outcomes[-1], BaseException):
            (outcome,) = await asyncio.gather(following, return_exceptions=True)
            outcomes.append(outcome)
            following = asyncio.ensure_future(anext(pages))
        await asyncio.gather(following, return_exceptions=True)
        assert isinstance(outcomes[-1], asyncio.CancelledError)


async def test_an_error_keeps_its_place_behind_the_pages_before_it() -> None:
    async def script(request: RawRequest, connection: Connection) -> None:
        if request.page == 4:
            await connection.say(answer(b"", 500))
        else:
            await pager.script(request, connection)

    pager = Pager(list(range(1, 41)))
    async with store_on(script, retry=RetryPolicy(attempts=1)) as (store, _):
        found: list[int] = []
        with pytest.raises(ServerError):
            await gather_ids(store, found)
        assert found == list(range(1, 13))
        await at_rest(store)


async def test_a_page_that_cant_be_read_is_tried_as_often_as_the_policy_says() -> None:
    """Though it is decoded when its turn comes; a failure before counts, too."""

    async def script(request: RawRequest, connection: Connection) -> None:
        if request.page != 2:
            await pager.script(request, connection)
            return
        pager.asked.append(2)
        status = 503 if pager.asked.count(2) == 1 else 200
        await connection.say(answer(b'{"data": [', status, headers={"X-Request-Id": "seen"}))

    pager = Pager(list(range(1, 13)))
    retry = RetryPolicy(attempts=4, base_s=0.001)
    async with asyncio.timeout(10), store_on(script, retry=retry) as (store, _):
        found: list[int] = []
        with pytest.raises(DecodeError) as caught:
            await gather_ids(store, found)
        assert found == [1, 2, 3, 4]
        assert pager.asked.count(2) == caught.value.attempts == 4
        assert (caught.value.status, caught.value.request_id) == (200, "seen")
        assert store.statistics().retries == 3
        await at_rest(store)


async def gather_ids(store: Store, found: list[int], read_ahead: int | None = None) -> None:
    async for page in store.attribute_values.pages(read_ahead=read_ahead):
        found += [value.id for value in page.data]


async def test_a_refusal_underway_ends_a_listing_once(sandbox: Sandbox, store: Store) -> None:
    await sandbox.seed((customer, 1, "v") for customer in range(1, 2001))
    sandbox.faults.script([None, None, *["401"] * 20], "list")
    found: list[int] = []
    with pytest.raises(AuthenticationError):
        await gather_ids(store, found)
    assert len(found) >= 250
    assert max(Counter(found).values()) == 1
    await at_rest(store)


Work = Callable[[Store], Awaitable[object]]


async def test_listings_side_by_side_share_the_reads(sandbox: Sandbox) -> None:
    await sandbox.seed((customer, 1, "v") for customer in range(1, 1501))
    # It answers one page at a time, so fewer would be under way at once.
    sandbox.latency_ms = 2
    async with make_store(sandbox, limits=Limits(page_size=50, reads=4)) as store:
        lists = await asyncio.gather(*(all_rows(store) for _ in range(6)))
        assert {len(one) for one in lists} == {1500}
        assert sandbox.peak_in_flight("list") == 4
        await at_rest(store)
