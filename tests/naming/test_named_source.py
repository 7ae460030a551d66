"""Named values in bulk writes: resolved ahead of the writes, one outcome for each as given."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest

from bc_attrvals import (
    AttributeTypeError,
    AttributeValueUpsert,
    AuthenticationError,
    InvalidInputError,
    NamedValue,
    OutcomeStatus,
    UnknownAttributeError,
    UnknownCustomerError,
    UnprocessableError,
)
from bc_attrvals.core.named_value import Item
from bc_attrvals.sandbox import Fault, Quirks
from tests.people import PEOPLE, TYPES, opened

NAMES = list(TYPES)


def spelled(number: int) -> str:
    address = PEOPLE[number]
    return (address.upper(), f"  {address} ", address.title(), address)[number % 4]


def crm_rows() -> Iterator[NamedValue]:
    for number in PEOPLE:
        yield NamedValue(spelled(number), "Loyalty tier", f"tier {number}")
        yield NamedValue(spelled(number), "Shoe size", number)
        yield NamedValue(spelled(number), "Birthday", "1980-02-29")


@pytest.mark.parametrize("regards_case", [True, False])
async def test_a_crms_file_is_stored_in_few_look_ups_and_full_puts(regards_case: bool) -> None:
    async with opened(quirks=Quirks(case_sensitive_emails=regards_case)) as (sandbox, store):
        report = await store.attribute_values.upsert(crm_rows())
        assert (report.stored, report.failed) == (2_400, 0)
        calls = Counter(str(one.operation) for one in sandbox.requests)
        assert calls["upsert"] <= 242
        assert calls["list_customers"] + calls["list_attributes"] <= 20
        assert report.calls == sum(calls.values())
        held = await sandbox.values()
        assert held[7, 1] == "tier 7"
        assert held[7, 2] == "7"
        assert len(held) == 2_400


async def test_each_item_has_one_outcome_under_the_item_as_it_was_given() -> None:
    bad = [
        (NamedValue("nobody@example.org", "Loyalty tier", "x"), UnknownCustomerError),
        (NamedValue(PEOPLE[5], "Loyality tier", "x"), UnknownAttributeError),
        (NamedValue(PEOPLE[5], "Shoe size", "12,5"), AttributeTypeError),
    ]
    twice = [NamedValue(PEOPLE[9], 1, "first"), AttributeValueUpsert(9, 1, "last")]
    plain = [AttributeValueUpsert(11, 1, "plain")]
    given: list[Item] = [*plain, *crm_rows(), *(item for item, _ in bad), *twice]
    async with opened() as (sandbox, store):
        outcomes = [one async for one in store.attribute_values.upsert_stream(given)]
        assert Counter(id(one.item) for one in outcomes) == Counter(map(id, given))
        statuses = Counter(one.status for one in outcomes)
        # Customer 11's and 9's tiers of the CRM and the first of the two gave way or were stored.
        assert statuses[OutcomeStatus.FAILED] == 3
        failed = {id(one.item): type(one.error) for one in outcomes if one.error is not None}
        assert failed == {id(item): kind for item, kind in bad}
        assert (await sandbox.values())[9, 1] == "last"


async def test_of_equal_keys_the_last_wins_however_they_are_named() -> None:
    items: list[Item] = []
    for number in range(1, 200):
        items.append(AttributeValueUpsert(7, 1, f"id {number}"))
        items.append(NamedValue(spelled(7), "Loyalty tier", f"name {number}"))
    async with opened() as (sandbox, store):
        report = await store.attribute_values.upsert(iter(items))
        assert report.stored + report.superseded == len(items)
        assert await sandbox.values() == {(7, 1): "name 199"}


async def test_an_asynchronous_input_is_sent_while_it_pauses() -> None:
    more = asyncio.Event()

    async def feed() -> AsyncIterator[Item]:
        yield NamedValue(PEOPLE[1], "Loyalty tier", "a")
        yield AttributeValueUpsert(2, 1, "b")
        await more.wait()
        yield NamedValue(PEOPLE[3], "Loyalty tier", "c")

    async with opened() as (sandbox, store):
        task = asyncio.create_task(store.attribute_values.upsert(feed()))
        async with asyncio.timeout(10):
            while len(await sandbox.values()) < 2:  # noqa: ASYNC110 - the sandbox has no event
                await asyncio.sleep(0.01)
        more.set()
        assert (await task).stored == 3


async def test_the_error_of_an_input_comes_after_what_was_read() -> None:
    def feed() -> Iterator[Item]:
        yield from crm_rows()
        raise OSError("the disk is gone")

    async with opened() as (sandbox, store):
        with pytest.raises(OSError, match="the disk is gone"):
            await store.attribute_values.upsert(feed())
        assert await sandbox.count() == 2_400


async def test_what_is_no_item_is_refused_with_its_place() -> None:
    async with opened() as (sandbox, store):
        with pytest.raises(InvalidInputError) as refused:
            await store.attribute_values.upsert([NamedValue(1, 1, "a"), (1, 1, "b")])  # type: ignore[list-item]
        assert refused.value.place == "items[1]"
        assert not list(sandbox.requests)


@pytest.mark.parametrize("operation", ["list_attributes", "list_customers"])
async def test_a_look_up_that_is_refused_as_a_whole_ends_the_job(operation: str) -> None:
    async with opened(faults=[Fault("401", operation=operation)]) as (sandbox, store):
        with pytest.raises(AuthenticationError) as ended:
            await store.attribute_values.upsert(crm_rows())
        report = ended.value.report
        assert report.not_sent == 2_000  # type: ignore[attr-defined]
        assert await sandbox.count() == 0


@pytest.mark.parametrize("kind", ["503", "drop_after", "cut_body"])
async def test_a_look_up_that_fails_once_is_sent_again(kind: str) -> None:
    faults = [Fault(kind, operation=one, times=1) for one in ("list_attributes", "list_customers")]
    async with opened(faults=faults) as (_, store):
        assert (await store.attribute_values.upsert(crm_rows())).stored == 2_400


async def test_an_address_that_went_to_another_customer_is_looked_up_again_once() -> None:
    async with opened() as (sandbox, store):
        values = store.attribute_values
        await values.upsert([NamedValue(PEOPLE[5], 1, "before")])
        await sandbox.define(customers={900: "new@example.org"})
        sandbox.reject_customers([5])
        await sandbox.define(customers={5: "old@example.org"})
        await sandbox.define(customers={901: PEOPLE[5]})
        report = await values.upsert([NamedValue(PEOPLE[5], 1, "after")])
        assert report.stored == 1
        assert (await sandbox.values())[901, 1] == "after"


async def test_a_customer_that_stays_refused_fails_with_the_refusal() -> None:
    item = NamedValue(PEOPLE[5], 1, "x")
    async with opened() as (sandbox, store):
        await store.attribute_values.upsert([item])
        sandbox.reject_customers([5])
        report = await store.attribute_values.upsert(
            [item, NamedValue(PEOPLE[6], 1, "y")], raise_on_failure=False
        )
        assert (report.stored, report.failed) == (1, 1)
        assert report.failures[0].item is item
        assert isinstance(report.failures[0].error, UnprocessableError)


async def test_leaving_early_leaves_no_task(no_task_left: None) -> None:
    async with opened() as (_, store):
        async for _ in store.attribute_values.upsert_stream(crm_rows()):
            break


async def test_an_address_that_nobody_has_is_asked_for_once_a_job() -> None:
    items = [NamedValue(f"nobody{number % 50}@example.org", 1, "x") for number in range(9_000)]
    async with opened() as (sandbox, store):
        report = await store.attribute_values.upsert(iter(items), raise_on_failure=False)
        assert report.failed == 9_000
        calls = Counter(str(one.operation) for one in sandbox.requests)
        assert calls["list_customers"] == 1
