"""Refused batches: one item's refusal, in any form, costs that item and few calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bc_attrvals import (
    APIError,
    AttributeValueUpsert,
    AuthenticationError,
    Limits,
    OutcomeStatus,
    RetryPolicy,
)
from bc_attrvals.sandbox import Quirks, Sandbox
from tests.conftest import make_store
from tests.probes import Key, at_rest, upserts
from tests.raw_server import Connection, RawRequest, answer, row, rows_body, store_on

pytestmark = pytest.mark.usefixtures("no_task_left")

QUICK = RetryPolicy(attempts=3, base_s=0.001, cap_s=0.001)


class Picky:
    """A service that refuses each call with a bad customer in it, all or nothing."""

    def __init__(
        self, bad: set[int], status: int, body: Callable[[int], dict[str, Any]], passing: int = 0
    ) -> None:
        self.bad = bad
        self.status = status
        self.body = body
        #: How many refusals pass: the same call is taken the next time.
        self.passing = passing
        self.held: dict[Key, str] = {}
        self.refused = 0

    async def __call__(self, request: RawRequest, connection: Connection) -> None:
        index = next(
            (i for i, item in enumerate(request.items) if item["customer_id"] in self.bad), None
        )
        if index is not None and not (self.passing and self.refused >= self.passing):
            self.refused += 1
            await connection.say(answer(json.dumps(self.body(index)).encode(), self.status))
            return
        rows = [
            row(item["customer_id"], item["customer_id"], item["attribute_id"], item["value"])
            for item in request.items
        ]
        self.held.update(
            ((one["customer_id"], one["attribute_id"]), one["attribute_value"]) for one in rows
        )
        await connection.say(answer(rows_body(rows)))


def unnamed(_: int) -> dict[str, Any]:
    return {"title": "no"}


def named(index: int) -> dict[str, Any]:
    return {"title": "no", "errors": {f"{index}.data": "bad"}}


BODIES = {"unnamed": unnamed, "named": named}


@pytest.mark.parametrize("how", BODIES)
@pytest.mark.parametrize("status", [400, 409, 422, 423, 500, 502, 504, 520])
@pytest.mark.parametrize("bad", [{1}, {10}, {4, 17}, {1, 2}, {11, 12, 13, 25}])
async def test_the_refusal_of_an_item_in_any_form_costs_it_alone(
    status: int, how: str, bad: set[int]
) -> None:
    service = Picky(bad, status, BODIES[how])
    async with store_on(service, retry=QUICK) as (store, server):
        report = await store.attribute_values.upsert(upserts(30), raise_on_failure=False)
        assert (report.stored, report.failed) == (30 - len(bad), len(bad))
        await at_rest(store)
    assert {one.item.customer_id for one in report.failures} == bad
    assert {one.error.status for one in report.failures if isinstance(one.error, APIError)} == {
        status
    }
    assert {key[0] for key in service.held} == set(range(1, 31)) - bad
    assert report.calls == len(server.requests) <= 3 + len(bad) * 20


@pytest.mark.parametrize("status", [400, 409, 422, 423])
async def test_55_bad_items_of_1000_cost_few_calls_however_they_are_refused(status: int) -> None:
    gone = set(range(7, 201, 18))
    items = [
        AttributeValueUpsert(customer, attribute, "v")
        for customer in range(1, 201)
        for attribute in range(1, 6)
    ]
    async with store_on(Picky(gone, status, unnamed), retry=QUICK) as (store, _):
        report = await store.attribute_values.upsert(items, raise_on_failure=False)
    assert (report.failed, report.stored) == (55, 945)
    # A conflict is tried again: thrice as a whole, twice in parts.
    assert report.calls <= (230 if status in {400, 422} else 430)


@pytest.mark.parametrize("status", [409, 423, 500])
async def test_a_passing_refusal_costs_no_item(status: int) -> None:
    async with store_on(Picky({4}, status, unnamed, passing=2), retry=QUICK) as (store, _):
        report = await store.attribute_values.upsert(upserts(10))
    assert (report.stored, report.calls, report.retries) == (10, 3, 2)


async def test_a_single_bad_item_of_a_job_of_one_batch_is_told_from_an_outage() -> None:
    """Where nothing else is stored meanwhile, its parts have to show that the service works."""
    for bad in range(1, 11):
        async with store_on(Picky({bad}, 500, unnamed), retry=QUICK) as (store, _):
            report = await store.attribute_values.upsert(upserts(10), raise_on_failure=False)
        assert (report.stored, report.failed) == (9, 1)


async def test_after_an_outage_items_are_searched_again() -> None:
    async def script(request: RawRequest, connection: Connection) -> None:
        if is_down:
            await connection.say(answer(b"", 500))
        else:
            await service(request, connection)

    is_down = True
    service = Picky({145}, 500, unnamed)

    def items() -> Any:
        nonlocal is_down
        for item in upserts(200):
            if item.customer_id == 101:
                is_down = False
            yield item

    async with store_on(script, retry=QUICK, limits=Limits(writes=1)) as (store, _):
        outcomes = [one async for one in store.attribute_values.upsert_stream(items())]
    failed = {one.item.customer_id for one in outcomes if one.status is OutcomeStatus.FAILED}
    # A batch that waits for its next try may be stored after the outage.
    assert set(range(1, 81)) <= failed - {145} <= set(range(1, 101))
    assert 145 in failed


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    bad=st.sets(st.integers(1, 40), max_size=6),
    status=st.sampled_from([400, 409, 422, 423, 500]),
    how=st.sampled_from(list(BODIES)),
)
def test_exactly_the_bad_ones_fail(bad: set[int], status: int, how: str) -> None:
    async def check() -> None:
        service = Picky(bad, status, BODIES[how])
        async with store_on(service, retry=QUICK) as (store, _):
            report = await store.attribute_values.upsert(upserts(40), raise_on_failure=False)
        assert {one.item.customer_id for one in report.failures} == bad
        assert report.stored == 40 - len(bad)

    asyncio.run(check())


# -- sizes --


class Small:
    """A service that takes so many items a call, and lists none."""

    def __init__(
        self, most: int, status: int, title: str, errors: dict[str, str] | None = None
    ) -> None:
        self.most = most
        body = {"title": title, "errors": errors or {}}
        self.refusal = answer(json.dumps(body).encode(), status)
        self.sizes: list[int] = []
        #: How many rows its answers leave out.
        self.unshown = 0
        self.refused = 0

    async def __call__(self, request: RawRequest, connection: Connection) -> None:
        if request.method == "GET":
            await connection.say(answer(EMPTY))
            return
        self.sizes.append(len(request.items))
        if len(request.items) > self.most:
            self.refused += 1
            await connection.say(self.refusal)
            return
        rows = [
            row(index + 1, item["customer_id"], item["attribute_id"], item["value"])
            for index, item in enumerate(request.items)
        ]
        await connection.say(answer(rows_body(rows[self.unshown :])))


@pytest.mark.parametrize(
    ("status", "title"),
    [(413, "too large"), (422, "Max batch size allowed is 5"), (422, "failed."), (400, "failed.")],
)
@pytest.mark.parametrize("how", ["upsert", "upsert_stream", "sync"])
async def test_a_smaller_batch_is_learnt_once_and_for_all_jobs_of_the_store(
    status: int, title: str, how: str
) -> None:
    service = Small(5, status, title)

    async def run(first: int, count: int) -> None:
        values = store.attribute_values
        if how == "upsert_stream":
            async for one in values.upsert_stream(upserts(count, first=first)):
                assert one.ok
        else:
            report: Any = await getattr(values, how)(upserts(count, first=first))
            assert report.ok

    async with store_on(service) as (store, _):
        await run(1, 1000)
        assert len(service.sizes) <= 210
        service.sizes.clear()
        service.refused = 0
        await run(5001, 500)
        assert (len(service.sizes), service.refused) == (100, 0)


EMPTY = json.dumps(
    {
        "data": [],
        "meta": {
            "pagination": {
                "total": 0,
                "count": 0,
                "per_page": 250,
                "current_page": 1,
                "total_pages": 0,
            }
        },
    }
).encode()


async def test_a_smaller_batch_is_learnt_once_by_jobs_that_begin_at_once() -> None:
    service = Small(5, 413, "too large")
    async with store_on(service) as (store, _):
        jobs = [upserts(100, first=1 + 100 * index) for index in range(6)]
        await asyncio.gather(*map(store.attribute_values.upsert, jobs))
        assert service.refused <= 3


async def test_items_that_were_sent_before_their_batch_was_cut_are_not_called_not_sent() -> None:
    bodies = [(500, b"{}"), (413, b"{}"), (401, b"{}")]

    async def script(request: RawRequest, connection: Connection) -> None:
        status, body = bodies.pop(0)
        if status == 413:
            # The first batch waits for its slot meanwhile.
            await asyncio.sleep(0.05)
        await connection.say(answer(body, status))

    async with store_on(script, limits=Limits(writes=1)) as (store, server):
        with pytest.raises(AuthenticationError) as caught:
            await store.attribute_values.upsert(upserts(20))
        report: Any = caught.value.report
        sizes = [len(json.loads(request.body)) for request in server.requests]
        assert sizes == [10, 10, 5]
        assert (report.failed, report.not_sent) == (20, 0)


@pytest.mark.parametrize("most", range(1, 10))
async def test_any_smaller_batch_is_found(most: int) -> None:
    service = Small(most, 413, "too large")
    async with store_on(service) as (store, _):
        report = await store.attribute_values.upsert(upserts(100))
        assert report.stored == 100
        assert service.refused <= 3 * 4


async def test_a_batch_limit_that_falls_in_the_middle_of_a_job_is_learnt_without_a_reason() -> None:
    service = Small(10, 422, "failed.")
    async with store_on(service) as (store, _):

        def items() -> Iterator[AttributeValueUpsert]:
            yield from upserts(500)
            service.most, service.refused = 5, 0
            yield from upserts(500, first=501)

        report = await store.attribute_values.upsert(items())
        assert report.stored == 1000
        assert len(service.sizes) <= 175


async def test_a_batch_limit_is_learnt_by_the_worker_whose_last_batch_was_larger() -> None:
    service = Small(10, 422, "failed.")

    async def script(request: RawRequest, connection: Connection) -> None:
        await service(request, connection)
        service.most = 5

    async with store_on(script, limits=Limits(writes=1)) as (store, _):
        await store.attribute_values.upsert(upserts(60))
        assert service.refused == 2


async def test_a_batch_limit_is_learnt_from_answers_that_do_not_show_all_rows() -> None:
    service = Small(5, 422, "failed.")
    service.unshown = 1

    async with store_on(service) as (store, _):
        await store.attribute_values.upsert(upserts(100), raise_on_failure=False)
        assert service.refused <= 5


async def test_one_refusal_that_passes_lowers_no_size_that_was_accepted() -> None:
    service = Small(10, 422, "failed.")

    async def script(request: RawRequest, connection: Connection) -> None:
        await service(request, connection)
        service.most = 10

    async with store_on(script) as (store, _):
        await store.attribute_values.upsert(upserts(10))
        for first in (101, 201):
            service.most = 9
            await store.attribute_values.upsert(upserts(10, first=first))
            await store.attribute_values.upsert(upserts(10, first=1001))
            assert service.sizes[-1] == 10
        assert service.refused == 2


async def test_unnamed_bad_items_are_not_taken_for_a_batch_limit() -> None:
    service = Picky({5, 17, 29, 44, 123}, 422, unnamed)
    async with store_on(service) as (store, server):
        report = await store.attribute_values.upsert(upserts(1000), raise_on_failure=False)
        assert (report.stored, report.failed) == (995, 5)
        assert len(server.requests[-1].items) == 10
        assert len(server.requests) <= 100 + 5 * 7


async def test_the_first_item_too_many_that_a_refusal_names_is_told_from_a_bad_one() -> None:
    service = Small(5, 422, "failed.", {"5.data": "not allowed"})
    async with store_on(service) as (store, _):
        report = await store.attribute_values.upsert(upserts(1000), raise_on_failure=False)
        # The first that is named in a worker's batch is believed to be bad.
        assert report.failed + report.stored == 1000
        assert report.failed <= 6
        assert len(service.sizes) <= 210


# -- by customers --

FIVE_EACH = [
    AttributeValueUpsert(customer, attribute, f"{customer}/{attribute}")
    for customer in range(1, 401)
    for attribute in range(1, 6)
]
BY_CUSTOMERS = Limits(batch_by="customers")


ORDERS: dict[str, Callable[[AttributeValueUpsert], object]] = {
    "by customer": lambda item: item.customer_id,
    "by attribute": lambda item: item.attribute_id,
    "shuffled": lambda item: item.customer_id * 7919 % 2003 + item.attribute_id * 389 % 1999,
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("how", ["upsert", "upsert_stream", "sync"])
async def test_a_call_holds_all_rows_of_ten_customers_where_the_service_takes_them(
    how: str, order: str
) -> None:
    items = sorted(FIVE_EACH, key=ORDERS[order])  # type: ignore[arg-type,unused-ignore]
    quirks = Quirks(batch_by="customers")
    async with (
        Sandbox(quota=None, quirks=quirks) as sandbox,
        make_store(sandbox, limits=BY_CUSTOMERS) as store,
    ):
        values = store.attribute_values
        if how == "upsert_stream":
            assert all([one.ok async for one in values.upsert_stream(iter(items))])
        else:
            report: Any = await getattr(values, how)(iter(items))
            assert report.ok
        assert await sandbox.values() == {item.key: item.value for item in FIVE_EACH}
        assert sandbox.calls["upsert"] <= 45
        await at_rest(store)


@pytest.mark.parametrize(
    ("status", "title"),
    [(413, "too large"), (422, "Max batch size allowed is 10"), (422, "no"), (400, "no")],
)
async def test_the_first_refusal_of_more_than_ten_rows_makes_all_later_calls_count_rows(
    status: int, title: str
) -> None:
    service = Small(10, status, title)
    async with store_on(service, limits=BY_CUSTOMERS) as (store, _):
        report = await store.attribute_values.upsert(iter(FIVE_EACH))
        assert (report.stored, max(service.sizes)) == (2000, 50)
        assert report.calls == len(service.sizes) <= 212
        service.sizes.clear()
        await store.attribute_values.upsert(upserts(100, first=5000))
        assert service.sizes == [10] * 10


async def test_a_refusal_that_names_the_eleventh_row_makes_all_later_calls_count_rows() -> None:
    service = Small(10, 422, "failed.", {"10.data": "not allowed"})
    async with store_on(service, limits=BY_CUSTOMERS) as (store, _):
        report = await store.attribute_values.upsert(FIVE_EACH)
        assert report.stored == 2000
        assert report.calls <= 212


async def test_a_named_item_of_a_batch_of_customers_costs_itself_alone() -> None:
    service = Picky({7}, 422, named)
    async with store_on(service, limits=BY_CUSTOMERS) as (store, server):
        report = await store.attribute_values.upsert(FIVE_EACH, raise_on_failure=False)
        assert (report.failed, report.stored) == (5, 1995)
        assert {one.item.customer_id for one in report.failures} == {7}
        assert len(server.requests) <= 45 + 5


async def test_a_slow_input_is_not_read_far_ahead_for_a_call_by_customers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bc_attrvals.writing.upsert_job._LONGEST_READ_S", -1.0)
    read = 0
    read_at_first_call: list[int] = []

    def items() -> Iterator[AttributeValueUpsert]:
        nonlocal read
        for one in FIVE_EACH:
            read += 1
            yield one

    async def script(request: RawRequest, connection: Connection) -> None:
        read_at_first_call.append(read)
        await Small(50, 413, "too large")(request, connection)

    async with store_on(script, limits=BY_CUSTOMERS) as (store, _):
        assert (await store.attribute_values.upsert(items())).stored == 2000
    assert read_at_first_call[0] <= 200


async def test_an_endless_input_of_few_customers_is_sent_all_the_same(sandbox: Sandbox) -> None:
    def endless() -> Any:
        number = 0
        while True:
            number += 1
            yield AttributeValueUpsert(1 + number % 3, 1, f"{number}")

    async with (
        make_store(sandbox, limits=BY_CUSTOMERS) as store,
        aclosing(store.attribute_values.upsert_stream(endless())) as outcomes,
    ):
        stored = 0
        async for one in outcomes:
            stored += one.status is OutcomeStatus.STORED
            if stored == 20:
                break
