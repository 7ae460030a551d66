"""The resource's single calls, and what each promises of its arguments and answers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from bc_attrvals import (
    AttributeValueFilter,
    AttributeValueUpsert,
    InvalidInputError,
    Limits,
    PartialFailureError,
    Priority,
    Store,
    UnprocessableError,
)
from bc_attrvals.sandbox import Fault, Quirks, Sandbox
from tests.conftest import make_store
from tests.probes import at_rest, until, upserts
from tests.raw_server import Connection, RawRequest, answer, page_body, row, store_on

pytestmark = pytest.mark.usefixtures("no_task_left")


async def test_what_is_put_is_got_back(sandbox: Sandbox, store: Store) -> None:
    values = store.attribute_values
    texts = ["", "x" * 255, 'Größe 📏 \x00\x1f"\\/', " spaces ", "null", "\u2028", "e\u0301"]
    items = [AttributeValueUpsert(customer, 1, text) for customer, text in enumerate(texts, 1)]
    rows = await values.put_batch(items)
    assert [(one.key, one.value) for one in rows] == [(one.key, one.value) for one in items]
    for item in items:
        found = await values.get(*item.key)
        assert found is not None
        assert found.value == found.attribute_value == item.value
        assert found.date_created is not None
        assert found.date_created.tzinfo is UTC
        assert abs((datetime.now(UTC) - found.date_created).total_seconds()) < 60
    assert await sandbox.values() == {item.key: item.value for item in items}


async def test_an_item_with_the_id_of_its_row_replaces_it(sandbox: Sandbox, store: Store) -> None:
    values = store.attribute_values
    (first,) = await values.put_batch([AttributeValueUpsert(1, 1, "a")])
    (second,) = await values.put_batch([AttributeValueUpsert(1, 1, "b", id=first.id)])
    assert (second.id, second.value) == (first.id, "b")
    report = await values.upsert(
        [AttributeValueUpsert(1, 1, "c", id=first.id), AttributeValueUpsert(2, 1, "d", id=999)],
        raise_on_failure=False,
    )
    assert (report.stored, report.failed) == (1, 1)
    assert await sandbox.values() == {(1, 1): "c"}


@pytest.mark.parametrize(("count", "field"), [(0, "items"), (11, "items")])
async def test_put_batch_takes_one_to_ten_items(
    sandbox: Sandbox, store: Store, count: int, field: str
) -> None:
    with pytest.raises(InvalidInputError, match="1 to 10 items") as caught:
        await store.attribute_values.put_batch(upserts(count))
    assert caught.value.field == field
    assert len(sandbox.requests) == 0


async def test_put_batch_names_what_is_no_item(sandbox: Sandbox, store: Store) -> None:
    items: list[Any] = [*upserts(2), (1, 2, "v")]
    with pytest.raises(InvalidInputError) as caught:
        await store.attribute_values.put_batch(items)
    assert caught.value.place == "items[2]"
    assert len(sandbox.requests) == 0


async def test_put_batch_takes_nothing_apart(sandbox: Sandbox, store: Store) -> None:
    sandbox.reject_customers([3])
    with pytest.raises(UnprocessableError) as caught:
        await store.attribute_values.put_batch(upserts(5))
    assert caught.value.errors == {"2.customer_id": "customer does not exist"}
    assert sandbox.calls["upsert"] == 1
    assert await sandbox.count() == 0


@pytest.mark.parametrize("bad", [0, -1, 2**31, True, "1", None, 1.5])
async def test_get_checks_its_ids(sandbox: Sandbox, store: Store, bad: Any) -> None:
    with pytest.raises(InvalidInputError) as customer:
        await store.attribute_values.get(bad, 1)
    with pytest.raises(InvalidInputError) as attribute:
        await store.attribute_values.get(1, bad)
    assert (customer.value.field, attribute.value.field) == ("customer_id", "attribute_id")
    assert len(sandbox.requests) == 0


async def test_get_is_one_call_for_the_row_it_names() -> None:
    async def script(request: RawRequest, connection: Connection) -> None:
        asked = request.query["customer_id:in"], request.query["attribute_id:in"]
        rows = [row(2, 7, 2, "this")] if asked == ("7", "2") else []
        total = len(rows)
        body = page_body(rows, total=total, per_page=50, page=1, total_pages=total)
        await connection.say(answer(body))

    async with store_on(script) as (store, server):
        found = await store.attribute_values.get(7, 2)
        assert found is not None
        assert found.value == "this"
        assert await store.attribute_values.get(7, 9) is None
        assert len(server.requests) == 2


async def test_single_calls_work_where_large_pages_are_refused() -> None:
    quirks = Quirks(max_limit=50)
    async with Sandbox(quota=None, quirks=quirks) as sandbox, make_store(sandbox) as store:
        await sandbox.seed((customer, 1, "v") for customer in range(1, 61))
        values = store.attribute_values
        assert await values.get(60, 1) is not None
        assert await values.count() == 60
        assert len((await values.get_page(limit=50, page=2)).data) == 10
        assert sandbox.statuses == {200: 3}


async def test_a_page_past_the_end_is_empty(sandbox: Sandbox, store: Store) -> None:
    await sandbox.seed((customer, 1, "v") for customer in range(1, 6))
    page = await store.attribute_values.get_page(page=4, limit=2)
    assert page.data == []
    assert (page.pagination.total, page.pagination.total_pages) == (5, 3)


async def test_counting_moves_no_rows(sandbox: Sandbox, store: Store) -> None:
    await sandbox.seed((customer, 1, "v" * 200) for customer in range(1, 1001))
    assert await store.attribute_values.count() == 1000
    assert store.statistics().bytes_received < 1000
    (request,) = sandbox.requests
    assert request.query_string == "limit=1&page=1"


async def test_single_calls_go_before_a_bulk_job(sandbox: Sandbox) -> None:
    sandbox.latency_ms = 5
    async with make_store(sandbox, limits=Limits(writes=1)) as store:
        values = store.attribute_values
        job = asyncio.create_task(values.upsert(upserts(400)))
        await until(lambda: sandbox.calls["upsert"] >= 2)
        before = sandbox.calls["upsert"]
        await values.put_batch([AttributeValueUpsert(9999, 1, "now")])
        assert sandbox.calls["upsert"] <= before + 2
        view = store.with_options(priority=Priority.INTERACTIVE)
        before = sandbox.calls["upsert"]
        await view.attribute_values.upsert(upserts(10, first=20_000))
        assert sandbox.calls["upsert"] <= before + 2
        assert not job.done()
        assert (await job).stored == 400
        await at_rest(store)


async def test_the_first_failures_are_kept_and_all_are_counted(sandbox: Sandbox) -> None:
    sandbox.reject_customers(range(1, 1_000))
    async with make_store(sandbox) as store:
        values = store.attribute_values
        with pytest.raises(PartialFailureError, match="120 of 130 items were not stored") as caught:
            await values.upsert(upserts(120) + upserts(10, first=5000), max_failures=7)
        assert len(caught.value.report.failures) == 7
        assert caught.value.report.failed == 120
        report = await values.upsert(upserts(20), raise_on_failure=False, max_failures=0)
        assert (report.failures, report.failed, report.ok) == ((), 20, False)


async def test_a_report_tells_calls_retries_and_seconds(sandbox: Sandbox) -> None:
    sandbox.faults.script(["500", None, "drop_before"], "upsert")
    sandbox.latency_ms = 10
    async with make_store(sandbox) as store:
        report = await store.attribute_values.upsert(upserts(95))
        assert (report.stored, report.calls, report.retries) == (95, 12, 2)
        assert 0.02 < report.seconds < 10
        assert report.ok


async def test_batches_may_be_made_smaller(sandbox: Sandbox) -> None:
    async with make_store(sandbox, limits=Limits(batch_size=4, writes=2)) as store:
        sandbox.latency_ms = 2
        report = await store.attribute_values.upsert(upserts(50))
        assert report.calls == 13
        assert {put.item_count for put in sandbox.requests.of("upsert")} == {4, 2}
        assert sandbox.peak_in_flight("upsert") == 2


async def test_iterating_a_view_of_the_same_filter_twice_asks_twice(
    sandbox: Sandbox, store: Store
) -> None:
    await sandbox.seed((customer, 1, "v") for customer in range(1, 11))
    wanted = AttributeValueFilter(customer_id_in=iter([1, 2, 3]))
    for _ in range(2):
        found = [one.customer_id async for one in store.attribute_values.stream(wanted)]
        assert found == [1, 2, 3]
    assert sandbox.calls["list"] == 2


async def test_a_slow_answer_within_the_timeout_is_no_fault(sandbox: Sandbox) -> None:
    sandbox.faults.add(Fault("slow", delay_s=0.15))
    async with make_store(sandbox, timeout=5.0) as store:
        assert (await store.attribute_values.upsert(upserts(3))).retries == 0
