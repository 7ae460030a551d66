"""One odd row among others: it fails where its content is needed, and stops nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from bc_attrvals import (
    AttributeValueFilter,
    AttributeValueUpsert,
    DecodeError,
    RetryPolicy,
    Store,
)
from tests.raw_server import (
    Connection,
    RawRequest,
    RawServer,
    answer,
    page_body,
    row,
    rows_body,
    store_on,
)

pytestmark = pytest.mark.usefixtures("no_task_left")

ROWS = 8
PLACE = 3

#: What is odd about the fourth row, and the field whose place an error names.
ODD = [
    pytest.param({"attribute_value": None}, "attribute_value", id="null value"),
    pytest.param({"attribute_value": 7}, "attribute_value", id="a number for a value"),
    pytest.param({"attribute_value": "\ud83d"}, "attribute_value", id="half an emoji"),
    pytest.param({"date_created": "yesterday"}, "date_created", id="no date"),
    pytest.param({"date_modified": "0000-00-00 00:00:00"}, "date_modified", id="a zero date"),
    pytest.param({"date_modified": [1]}, "date_modified", id="a list for a date"),
]
ODD_IDS = [
    pytest.param({"id": None}, "id", id="null id"),
    pytest.param({"id": 0}, "id", id="id 0"),
    pytest.param({"id": "1"}, "id", id="an id as a string"),
    pytest.param({"id": 2**63}, "id", id="an id of 64 bits and more"),
    pytest.param({"id": 10**40}, "id", id="a vast id"),
]


@asynccontextmanager
async def odd_store(odd: dict[str, Any]) -> AsyncIterator[tuple[Store, RawServer]]:
    """Open a Store on a server of eight customers, whose fourth row is odd."""
    stored: list[dict[str, Any]] = [row(2**40 + n, n) for n in range(1, ROWS + 1)]
    stored[PLACE].update(odd)

    async def script(request: RawRequest, connection: Connection) -> None:
        if request.method == "DELETE":
            gone = set(map(int, request.query["id:in"].split(",")))
            stored[:] = [one for one in stored if one["id"] not in gone]
            await connection.say(answer(b"", 204))
            return
        if request.method == "PUT":
            echoes = [row(9, one["customer_id"], value=one["value"]) for one in request.items]
            await connection.say(answer(rows_body(echoes)))
            return
        body = page_body(
            stored if request.page == 1 else [],
            total=len(stored),
            per_page=250,
            page=request.page,
            total_pages=1,
        )
        await connection.say(answer(body))

    async with store_on(script, retry=RetryPolicy(attempts=1)) as (store, server):
        yield store, server


@pytest.mark.parametrize(("odd", "field"), [*ODD, *ODD_IDS])
async def test_a_stream_fails_with_the_place(odd: dict[str, Any], field: str) -> None:
    async with odd_store(odd) as (store, _):
        with pytest.raises(DecodeError) as caught:
            [one async for one in store.attribute_values.stream()]
        assert caught.value.place == f"$.data[{PLACE}].{field}"


@pytest.mark.parametrize(("odd", "field"), [*ODD, *ODD_IDS])
async def test_a_count_needs_nothing_of_a_row(odd: dict[str, Any], field: str) -> None:
    async with odd_store(odd) as (store, _):
        assert await store.attribute_values.count() == ROWS


@pytest.mark.parametrize(("odd", "field"), ODD)
async def test_a_deletion_needs_ids_and_what_the_filter_asks_for(
    odd: dict[str, Any], field: str
) -> None:
    async with odd_store(odd) as (store, server):
        report = await store.attribute_values.delete_where(
            AttributeValueFilter(attribute_id_in=[1], customer_id_in=range(1, 50))
        )
        assert report.deleted == ROWS
        assert sum(one.method == "DELETE" for one in server.requests) == 1


@pytest.mark.parametrize(("odd", "field"), ODD_IDS)
async def test_a_deletion_fails_before_it_begins_where_an_id_can_not_be_read(
    odd: dict[str, Any], field: str
) -> None:
    async with odd_store(odd) as (store, server):
        with pytest.raises(DecodeError) as caught:
            await store.attribute_values.delete_where(None, everything=True)
        assert caught.value.place == f"$.data[{PLACE}].id"
        assert all(one.method == "GET" for one in server.requests)


@pytest.mark.parametrize(("odd", "field"), ODD)
async def test_a_sync_writes_what_it_can_not_read_and_prunes_by_large_ids(
    odd: dict[str, Any], field: str
) -> None:
    async with odd_store(odd) as (store, server):
        desired = [AttributeValueUpsert(n, 1, "v") for n in range(1, ROWS)]
        report = await store.attribute_values.sync(
            desired, scope=AttributeValueFilter(attribute_id_in=[1]), prune=True
        )
        assert report.updated == (field == "attribute_value")
        assert (report.deleted, report.failed) == (1, 0)
        (deletion,) = (one for one in server.requests if one.method == "DELETE")
        assert deletion.query["id:in"] == str(2**40 + ROWS)


@pytest.mark.parametrize(("odd", "field"), ODD)
async def test_an_odd_row_that_is_not_desired_is_pruned_by_its_ids(
    odd: dict[str, Any], field: str
) -> None:
    """Key and id prove that it lies in the scope and is not desired; its content plays no part."""
    async with odd_store(odd) as (store, server):
        desired = [AttributeValueUpsert(n, 1, "v") for n in range(1, ROWS + 1) if n != PLACE + 1]
        report = await store.attribute_values.sync(
            desired, scope=AttributeValueFilter(attribute_id_in=[1]), prune=True
        )
        assert (report.deleted, report.unchanged, report.failed) == (1, ROWS - 1, 0)
        (deletion,) = (one for one in server.requests if one.method == "DELETE")
        assert deletion.query["id:in"] == str(2**40 + PLACE + 1)


async def test_bytes_that_are_no_text_cost_their_own_value_only() -> None:
    latin = json.dumps([row(1, 1), row(2, 2, value="caf?")]).encode().replace(b"caf?", b"caf\xe9")
    counts = {"total": 2, "count": 2, "per_page": 250, "current_page": 1, "total_pages": 1}
    meta = json.dumps({"pagination": counts}).encode()

    async def script(request: RawRequest, connection: Connection) -> None:
        if request.method == "DELETE":
            await connection.say(answer(b"", 204))
        else:
            await connection.say(answer(b'{"data":' + latin + b',"meta":' + meta + b"}"))

    async with store_on(script, retry=RetryPolicy(attempts=1)) as (store, _):
        with pytest.raises(DecodeError, match="lone surrogate") as caught:
            await store.attribute_values.get_page()
        assert caught.value.place == "$.data[1].attribute_value"
        assert await store.attribute_values.count() == 2


@pytest.mark.parametrize(("odd", "field"), ODD_IDS)
async def test_a_comparison_without_pruning_needs_no_id(odd: dict[str, Any], field: str) -> None:
    async with odd_store(odd) as (store, server):
        desired = [AttributeValueUpsert(n, 1, "v") for n in range(1, ROWS + 1)]
        plan = await store.attribute_values.plan_sync(desired, scope=None, always_read=True)
        assert (plan.unchanged, plan.update) == (ROWS, 0)
        assert [one.method for one in server.requests] == ["GET"]


def test_dates_are_read_by_both_paths_alike() -> None:
    from bc_attrvals.core.responses import decode_bare_page, decode_page

    rows = [row(1, 1), {**row(2, 2), "date_created": "2024-10-24T04:32:20"}]
    body = page_body(rows, total=2, per_page=250, page=1, total_pages=1)
    page, bare = decode_page(body), decode_bare_page(body)
    assert page.pagination == bare.pagination
    assert [one.date_created for one in bare.data] == [one.date_created for one in page.data]
    assert bare.data[1].date_created == datetime(2024, 10, 24, 4, 32, 20, tzinfo=UTC)
