"""A service, or a proxy before it, that ignores filters: nothing outside is used or deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bc_attrvals import (
    AttributeValue,
    AttributeValueFilter,
    AttributeValueUpsert,
    FilterIgnoredError,
    ListingDriftError,
    Store,
)
from tests.raw_server import Connection, RawRequest, RawServer, answer, page_body, row, store_on

pytestmark = pytest.mark.usefixtures("no_task_left")

CREATED = datetime(2024, 10, 24, 4, 32, 20, tzinfo=UTC)
ONE_SECOND = timedelta(seconds=1)


@asynccontextmanager
async def careless(rows: int = 300, **odd: object) -> AsyncIterator[tuple[Store, RawServer]]:
    """Open a Store on a server of customers 1, 2, 3, … that ignores every filter."""
    stored = [{**row(n, n, 7), **odd} for n in range(1, rows + 1)]

    async def script(request: RawRequest, connection: Connection) -> None:
        if request.method != "GET":
            await connection.say(answer(b"", 204))
            return
        limit = int(request.query["limit"])
        start = (request.page - 1) * limit
        body = page_body(
            stored[start : start + limit],
            total=rows,
            per_page=limit,
            page=request.page,
            total_pages=-(-rows // limit),
        )
        await connection.say(answer(body))

    async with store_on(script) as (store, server):
        yield store, server


#: Filters by which some rows of the server lie outside, and the field that shows it.
OUTSIDE = [
    pytest.param(AttributeValueFilter(customer_id_in=[1]), "customer_id", id="customer"),
    pytest.param(AttributeValueFilter(customer_id_in=range(1, 300)), "customer_id", id="last row"),
    pytest.param(AttributeValueFilter(attribute_id_in=[8]), "attribute_id", id="attribute"),
    pytest.param(
        AttributeValueFilter(date_created=CREATED + ONE_SECOND), "date_created", id="created"
    ),
    pytest.param(
        AttributeValueFilter(date_created_min=CREATED + ONE_SECOND), "date_created", id="newer"
    ),
    pytest.param(
        AttributeValueFilter(date_created_max=CREATED - ONE_SECOND), "date_created", id="older"
    ),
    pytest.param(
        AttributeValueFilter(date_modified=CREATED - ONE_SECOND), "date_modified", id="modified"
    ),
    pytest.param(
        AttributeValueFilter(date_modified_min=CREATED + ONE_SECOND),
        "date_modified",
        id="modified later",
    ),
    pytest.param(
        AttributeValueFilter(date_modified_max=CREATED - ONE_SECOND),
        "date_modified",
        id="modified earlier",
    ),
]


async def streamed(store: Store, filter: AttributeValueFilter, *, exactly_once: bool) -> None:
    stream = store.attribute_values.stream(filter, exactly_once=exactly_once)
    async for value in stream:
        assert filter.matches(value)


USES: dict[str, Callable[[Store, AttributeValueFilter], Awaitable[object]]] = {
    "delete_where": lambda store, asked: store.attribute_values.delete_where(asked),
    "stream": lambda store, asked: streamed(store, asked, exactly_once=False),
    "exactly once": lambda store, asked: streamed(store, asked, exactly_once=True),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(("filter", "field"), OUTSIDE)
async def test_a_row_outside_of_the_filter_ends_the_job_and_nothing_is_deleted(
    use: str, filter: AttributeValueFilter, field: str
) -> None:
    async with careless() as (store, server):
        with pytest.raises(FilterIgnoredError) as caught:
            await USES[use](store, filter)
        assert caught.value.field == field
        assert {request.method for request in server.requests} == {"GET"}
        assert len(server.requests) <= 12


@pytest.mark.parametrize(("filter", "field"), OUTSIDE)
async def test_a_count_is_not_believed_if_its_row_lies_outside(
    filter: AttributeValueFilter, field: str
) -> None:
    async with careless() as (store, server):
        if filter.matches(await first_row(store)):
            # One row can't show what the others are.
            return
        with pytest.raises(FilterIgnoredError):
            await store.attribute_values.count(filter)
        assert len(server.requests) == 2


@pytest.mark.parametrize(("rows", "total"), [([], 60), ([row(1, 5, 7)], 0)])
async def test_a_count_is_not_believed_if_its_total_contradicts_its_rows(
    rows: list[dict[str, Any]], total: int
) -> None:
    async def script(_: RawRequest, connection: Connection) -> None:
        body = page_body(rows, total=total, per_page=1, page=1, total_pages=total)
        await connection.say(answer(body))

    async with store_on(script) as (store, server):
        with pytest.raises(ListingDriftError):
            await store.attribute_values.count()
        assert len(server.requests) == 1


@pytest.mark.parametrize(("total", "is_absent"), [(0, True), (1, False)])
async def test_a_value_is_absent_only_if_the_total_says_so(total: int, is_absent: bool) -> None:
    async def script(_: RawRequest, connection: Connection) -> None:
        body = page_body([], total=total, per_page=50, page=1, total_pages=total)
        await connection.say(answer(body))

    async with store_on(script) as (store, _):
        if is_absent:
            assert await store.attribute_values.get(5, 7) is None
            return
        with pytest.raises(ListingDriftError, match="0 rows, and its total says 1"):
            await store.attribute_values.get(5, 7)


async def first_row(store: Store) -> AttributeValue:
    return (await store.attribute_values.get_page(limit=1)).data[0]


async def test_single_reads_and_syncs_refuse_rows_outside() -> None:
    async with careless() as (store, server):
        values = store.attribute_values
        with pytest.raises(FilterIgnoredError):
            await values.get(5, 7)
        with pytest.raises(FilterIgnoredError):
            await values.get_page(AttributeValueFilter(customer_id_in=[5]))
        desired = [AttributeValueUpsert(5, 7, "w")]
        scope = AttributeValueFilter(customer_id_in=[5])
        with pytest.raises(FilterIgnoredError):
            await values.sync(desired, scope=scope, prune=True)
        assert {request.method for request in server.requests} == {"GET"}


async def test_a_row_whose_date_can_not_be_read_matches_no_filter_that_needs_it() -> None:
    async with careless(3, date_created=None) as (store, server):
        values = store.attribute_values
        since = AttributeValueFilter(date_created_min=CREATED)
        with pytest.raises(FilterIgnoredError):
            await values.delete_where(since)
        assert {request.method for request in server.requests} == {"GET"}
        await streamed(store, AttributeValueFilter(attribute_id_in=[7]), exactly_once=False)
