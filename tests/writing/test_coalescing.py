"""Concurrent upserts of a few items share calls, and nothing else: reports, failures, ends."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextvars import ContextVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bc_attrvals import (
    AttributeValueUpsert,
    AuthenticationError,
    InvalidInputError,
    Limits,
    NamedValue,
    PartialFailureError,
    Priority,
    RequestSent,
    Store,
    StoreStateError,
    UnknownCustomerError,
    UnprocessableError,
    UpsertReport,
)
from bc_attrvals.sandbox import Sandbox
from tests.conftest import make_store
from tests.probes import until, upserts

pytestmark = pytest.mark.usefixtures("no_task_left")


def one(customer: int, value: str = "x", attribute: int = 1) -> list[AttributeValueUpsert]:
    return [AttributeValueUpsert(customer, attribute, value)]


async def store_all(
    store: Store, inputs: Sequence[Sequence[AttributeValueUpsert | NamedValue]]
) -> list[UpsertReport]:
    values = store.attribute_values
    return await asyncio.gather(*(values.upsert(items, raise_on_failure=False) for items in inputs))


def sent(sandbox: Sandbox) -> list[list[tuple[int, str]]]:
    """Return the customers and values of each PUT."""
    return [
        [(item["customer_id"], item["value"]) for item in json.loads(request.body)]
        for request in sandbox.requests
        if request.method == "PUT"
    ]


@pytest.fixture
async def slow() -> AsyncIterator[Sandbox]:
    async with Sandbox(quota=None, latency_ms=80) as sandbox:
        yield sandbox


async def test_fifty_concurrent_upserts_of_one_item_take_eight_puts_at_most(slow: Sandbox) -> None:
    async with make_store(slow) as store:
        reports = await store_all(store, [one(number, f"v{number}") for number in range(1, 51)])
    assert len(sent(slow)) <= 8
    assert [report.stored for report in reports] == [1] * 50
    assert {report.calls for report in reports} == {1}
    assert await slow.values() == {(number, 1): f"v{number}" for number in range(1, 51)}


async def test_requests_that_come_little_by_little_share_calls_too(slow: Sandbox) -> None:
    async def later(number: int, store: Store) -> None:
        await asyncio.sleep(number / 500)
        await store.attribute_values.upsert(one(number))

    async with make_store(slow) as store:
        await asyncio.gather(*(later(number, store) for number in range(1, 51)))
    assert len(sent(slow)) <= 10


async def test_a_lone_upsert_waits_for_nothing(sandbox: Sandbox) -> None:
    async with make_store(sandbox, limits=Limits(coalesce_ms=1_000)) as store:
        began_at = time.monotonic()
        for number in range(1, 6):
            await store.attribute_values.upsert(one(number))
        assert time.monotonic() - began_at < 1.0
    assert [len(put) for put in sent(sandbox)] == [1] * 5


async def test_the_end_of_the_others_ends_the_wait(sandbox: Sandbox) -> None:
    async with make_store(sandbox, limits=Limits(coalesce_ms=1_000)) as store:
        began_at = time.monotonic()
        await store_all(store, [one(1), one(2), one(3)])
        assert time.monotonic() - began_at < 0.9
    assert sorted(len(put) for put in sent(sandbox)) == [1, 2]


async def test_a_window_of_zero_shares_nothing(slow: Sandbox) -> None:
    async with make_store(slow, limits=Limits(coalesce_ms=0)) as store:
        await store_all(store, [one(number) for number in range(1, 7)])
    assert [len(put) for put in sent(slow)] == [1] * 6


async def test_a_bad_item_fails_alone_in_its_owners_report(slow: Sandbox) -> None:
    slow.reject_customers([7])
    async with make_store(slow) as store:
        reports = await store_all(store, [one(number) for number in range(1, 21)])
        bad = reports[6]
        assert [report.stored for report in reports] == [1] * 6 + [0] + [1] * 13
        assert (bad.failed, len(bad.failures)) == (1, 1)
        assert bad.failures[0].item == one(7)[0]
        assert isinstance(bad.failures[0].error, UnprocessableError)
        calls = [store.attribute_values.upsert(one(number)) for number in (5, 6, 7, 8)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(end) for end in ends] == [
        UpsertReport,
        UpsertReport,
        PartialFailureError,
        UpsertReport,
    ]


async def test_upserts_of_one_key_go_one_after_the_other_in_order(slow: Sandbox) -> None:
    inputs = [one(1, "a"), one(2, "b"), one(1, "c"), one(1, "d"), one(3, "e"), one(1, "f")]
    async with make_store(slow) as store:
        reports = await store_all(store, inputs)
    assert [report.stored for report in reports] == [1] * 6
    puts = sent(slow)
    assert [value for put in puts for customer, value in put if customer == 1] == list("acdf")
    assert all(len({customer for customer, _ in put}) == len(put) for put in puts)
    assert len(puts) == 5
    assert (await slow.values())[1, 1] == "f"


async def test_equal_keys_of_one_call_supersede_as_ever(slow: Sandbox) -> None:
    async with make_store(slow) as store:
        reports = await store_all(store, [one(1), [*one(2, "old"), *one(2, "new")], one(3)])
    assert (reports[1].stored, reports[1].superseded) == (1, 1)
    assert (await slow.values())[2, 1] == "new"


async def test_the_same_object_in_several_calls_is_each_ones_own(slow: Sandbox) -> None:
    item = AttributeValueUpsert(1, 1, "x")
    async with make_store(slow) as store:
        reports = await store_all(store, [[item], [item], (item,)])
    assert [report.stored for report in reports] == [1] * 3


async def test_named_values_share_calls_and_unknown_ones_fail_alone(slow: Sandbox) -> None:
    customers = {number: f"c{number}@example.org" for number in range(1, 10)}
    await slow.define(customers=customers, attributes={"Tier": "string"})
    names = [*customers.values(), "nobody@example.org"]
    async with make_store(slow) as store:
        reports = await store_all(store, [[NamedValue(name, "Tier", "gold")] for name in names])
    assert [report.stored for report in reports] == [1] * 9 + [0]
    assert isinstance(reports[9].failures[0].error, UnknownCustomerError)
    assert len(sent(slow)) <= 3


async def test_an_error_that_ends_the_job_is_raised_to_each_with_its_own_report(
    slow: Sandbox,
) -> None:
    async with make_store(slow) as store:
        slow.faults.script([None, *["401"] * 20], "upsert")
        calls = [store.attribute_values.upsert(upserts(2, first=3 * n + 1)) for n in range(6)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(ends[0], UpsertReport)
    errors = [end for end in ends[1:] if isinstance(end, AuthenticationError)]
    assert len(errors) == 5
    assert len(set(map(id, errors))) == 5
    for error in errors:
        assert isinstance(error.report, UpsertReport)
        assert error.report.failed + error.report.not_sent == 2


async def test_an_entry_that_is_none_is_refused_before_it_joins(slow: Sandbox) -> None:
    async with make_store(slow) as store:
        values = store.attribute_values
        ends = await asyncio.gather(
            values.upsert(one(1)),
            values.upsert(one(2)),
            values.upsert([*one(3), (3, 1, "x")]),  # type: ignore[list-item]
            return_exceptions=True,
        )
    assert isinstance(ends[2], InvalidInputError)
    assert ends[2].args[0].startswith("items[1]: ")
    assert await slow.values() == {(1, 1): "x", (2, 1): "x"}


async def test_a_cancelled_upsert_costs_the_others_nothing(slow: Sandbox) -> None:
    async with make_store(slow, limits=Limits(coalesce_ms=30)) as store:
        tasks = [
            asyncio.create_task(store.attribute_values.upsert(one(number)))
            for number in range(1, 6)
        ]
        await asyncio.sleep(0)
        # Waiting still: nothing of it is sent.
        tasks[3].cancel()
        await until(lambda: len(slow.requests) == 2)
        # On the wire, together with others.
        tasks[2].cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    kinds = [asyncio.CancelledError if n in {2, 3} else UpsertReport for n in range(5)]
    assert [type(end) for end in ends] == kinds
    assert set(await slow.values()) == {(1, 1), (2, 1), (3, 1), (5, 1)}


async def test_when_all_are_cancelled_their_job_ends(slow: Sandbox) -> None:
    async with make_store(slow, limits=Limits(writes=1)) as store:
        bulk = asyncio.create_task(store.attribute_values.upsert(upserts(60, first=100)))
        await until(lambda: len(slow.requests) == 1)
        tasks = [asyncio.create_task(store.attribute_values.upsert(one(n))) for n in range(1, 5)]
        # Started and waiting for the only slot.
        await until(lambda: sum(store.statistics().queued.values()) == 1)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await bulk
    assert all(customer >= 100 for customer, _ in await slow.values())


async def test_closing_the_store_ends_all_with_their_reports(slow: Sandbox) -> None:
    async with make_store(slow) as store:
        tasks = [
            asyncio.create_task(store.attribute_values.upsert(one(number, attribute=n)))
            for n in range(1, 4)
            for number in range(1, 31)
        ]
        await until(lambda: len(slow.requests) >= 3)
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    errors = [end for end in ends if not isinstance(end, UpsertReport)]
    assert len(errors) >= 60
    for error in errors:
        assert getattr(error, "report").failed + getattr(error, "report").not_sent == 1  # noqa: B009
    assert any(isinstance(error, StoreStateError) for error in errors)


async def test_other_options_share_no_call(slow: Sandbox) -> None:
    async with make_store(slow) as store:
        urgent = store.with_options(priority=Priority.INTERACTIVE)
        async with asyncio.TaskGroup() as group:
            for number in range(1, 5):
                group.create_task(store.attribute_values.upsert(one(number)))
                group.create_task(urgent.attribute_values.upsert(one(10 * number)))
    assert all(len({customer >= 10 for customer, _ in put}) == 1 for put in sent(slow))
    assert len(sent(slow)) == 4


async def test_a_call_is_of_the_job_and_the_context_of_the_first(slow: Sandbox) -> None:
    request_id: ContextVar[int] = ContextVar("request_id", default=0)
    seen: list[tuple[int | None, int]] = []

    async def serve(number: int, store: Store) -> None:
        request_id.set(number)
        await store.attribute_values.upsert(one(number))

    async with make_store(slow, limits=Limits(coalesce_ms=1_000)) as store:
        store.subscribe(
            lambda event: (
                seen.append((event.job, request_id.get()))
                if isinstance(event, RequestSent)
                else None
            )
        )
        await asyncio.gather(*(serve(number, store) for number in range(1, 6)))
    assert seen == [(1, 1), (2, 2)]


@settings(max_examples=15, deadline=None)
@given(
    inputs=st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=4), min_size=1, max_size=25),
    rejected=st.sets(st.integers(1, 12), max_size=3),
)
async def test_every_item_has_one_outcome_in_the_report_of_its_call(
    inputs: list[list[int]], rejected: set[int]
) -> None:
    async with Sandbox(quota=None) as sandbox, make_store(sandbox) as store:
        sandbox.reject_customers(rejected)
        reports = await store_all(
            store,
            [
                [AttributeValueUpsert(customer, 1, f"{call}") for customer in customers]
                for call, customers in enumerate(inputs)
            ],
        )
        held = await sandbox.values()
    for customers, report in zip(inputs, reports, strict=True):
        keys = set(customers)
        assert report.superseded == len(customers) - len(keys)
        assert report.failed == len(keys & rejected)
        assert report.stored == len(keys - rejected)
        assert {outcome.item.customer_id for outcome in report.failures} == keys & rejected
    last = {customer: f"{call}" for call, customers in enumerate(inputs) for customer in customers}
    assert {key[0]: value for key, value in held.items()} == {
        customer: value for customer, value in last.items() if customer not in rejected
    }
