"""A user's script: read by type checkers alone, never run. What they see is pinned here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import assert_type

from bc_attrvals import (
    Attribute,
    AttributeValue,
    AttributeValueFilter,
    AttributeValues,
    AttributeValueUpsert,
    BCAttrValsError,
    Customer,
    DeleteReport,
    Limits,
    NamedValue,
    OutcomeStatus,
    Page,
    PartialFailureError,
    Priority,
    RetryPolicy,
    Statistics,
    Store,
    StoreView,
    SyncPlan,
    SyncReport,
    UpsertOutcome,
    UpsertReport,
)


async def feed() -> AsyncIterator[AttributeValueUpsert | NamedValue]:
    yield AttributeValueUpsert(customer_id=5, attribute_id=1, value="gold")
    yield NamedValue("ann@example.org", "Shoe size", Decimal("43.5"))
    yield NamedValue(customer=7, attribute="Birthday", value=date(1980, 2, 29))


async def read(values: AttributeValues) -> None:
    since = datetime(2026, 1, 1, tzinfo=UTC)
    wanted = AttributeValueFilter(attribute_id_in=[1, 2], date_modified_min=since)
    page = await values.get_page(wanted, page=2, limit=50)
    assert_type(page, Page)
    assert_type(page.pagination.total, int)
    found = await values.get(5, 1)
    assert_type(found, AttributeValue | None)
    assert_type(await values.count(), int)
    async for value in values.stream(wanted, exactly_once=True):
        assert_type(value, AttributeValue)
        assert_type(value.value, str)
        assert_type(value.key, tuple[int, int])
        assert_type(value.date_created, datetime | None)
    async for one in values.pages(read_ahead=4):
        assert_type(one.data, list[AttributeValue])


async def write(values: AttributeValues) -> None:
    items = [AttributeValueUpsert(5, 1, "gold")]
    try:
        report = await values.upsert(items)
    except PartialFailureError as error:
        report = error.report
    assert_type(report, UpsertReport)
    assert_type(report.failures, tuple[UpsertOutcome, ...])
    await values.upsert(item for item in items)
    await values.upsert(feed(), raise_on_failure=False)
    async for outcome in values.upsert_stream(feed()):
        assert_type(outcome.status, OutcomeStatus)
        assert_type(outcome.ok, bool)
        if outcome.stored is not None:
            assert_type(outcome.stored, AttributeValue)
        if outcome.error is not None:
            assert_type(outcome.error, BCAttrValsError)
        if isinstance(outcome.item, NamedValue):
            assert_type(outcome.item.customer, int | str)
        else:
            assert_type(outcome.item, AttributeValueUpsert)
    assert_type(await values.put_batch(items), list[AttributeValue])
    assert_type(await values.delete([1, 2]), DeleteReport)
    assert_type(await values.delete_where(AttributeValueFilter(attribute_id_in=[7])), DeleteReport)


async def sync(values: AttributeValues) -> None:
    scope = AttributeValueFilter(attribute_id_in=[1])
    plan = await values.plan_sync(feed(), scope=scope, prune=True)
    assert_type(plan, SyncPlan)
    report = await values.sync(feed(), scope=scope, prune=True, journal="scores.db")
    assert_type(report, SyncReport)
    assert_type(report.created, int)


async def neighbours(store: Store) -> None:
    assert_type(await store.attributes.get("Loyalty tier"), Attribute | None)
    assert_type(await store.attributes.ensure({"Shoe size": "number"}), dict[str, Attribute])
    assert_type(await store.customers.ids_by_email(["ann@example.org"]), dict[str, int])
    async for customer in store.customers.stream():
        assert_type(customer, Customer)


async def main() -> None:
    limits, retry = Limits(writes=3), RetryPolicy(attempts=4)
    async with Store("hash", "token", limits=limits, retry=retry) as store:
        assert_type(store, Store)
        view = store.with_options(priority=Priority.BULK, timeout=5.0)
        assert_type(view, StoreView)
        assert_type(store.attribute_values, AttributeValues)
        assert_type(store.statistics(), Statistics)
        await read(store.attribute_values)
        await write(view.attribute_values)
        await sync(store.attribute_values)
        await neighbours(store)
    async with Store.from_env() as other:
        assert_type(other, Store)
