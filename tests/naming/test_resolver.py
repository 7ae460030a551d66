"""Names and addresses become ids: each asked for once, each failing its own item only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bc_attrvals import (
    AttributeTypeError,
    AttributeValueUpsert,
    NamedValue,
    UnknownAttributeError,
    UnknownCustomerError,
)
from bc_attrvals.naming.addresses import Addresses
from bc_attrvals.naming.definitions import nearest_names
from bc_attrvals.naming.resolver import Resolver
from bc_attrvals.sandbox import Quirks, Sandbox
from bc_attrvals.scheduling.calls import Calls
from tests.conftest import make_store
from tests.probes import until

PEOPLE = {number: f"person{number}@example.org" for number in range(1, 801)}
TYPES = {"Loyalty tier": "string", "Shoe size": "number", "Birthday": "date"}


@asynccontextmanager
async def opened(**options: object) -> AsyncIterator[tuple[Sandbox, Resolver, Calls]]:
    defaults = {"quota": None, "customers": PEOPLE, "attributes": TYPES}
    sandbox = Sandbox(**{**defaults, **options})
    async with sandbox, make_store(sandbox) as store:
        runtime, calls, _ = store._state.bound(store._options)
        yield sandbox, runtime.resolver, calls.for_job()


async def test_ids_names_and_addresses_are_mixed_at_will() -> None:
    items = [
        NamedValue(5, "Shoe size", 43),
        NamedValue(" Person7@Example.org ", 1, "gold"),
        NamedValue("person7@example.org", "Birthday", "1980-02-29"),
        NamedValue(5, 1, "silver"),
    ]
    async with opened() as (sandbox, resolver, calls):
        assert await resolver.resolve(items, calls) == [
            AttributeValueUpsert(5, 2, "43"),
            AttributeValueUpsert(7, 1, "gold"),
            AttributeValueUpsert(7, 3, "1980-02-29"),
            AttributeValueUpsert(5, 1, "silver"),
        ]
        assert calls.calls == len(list(sandbox.requests))


@pytest.mark.parametrize("regards_case", [True, False])
async def test_many_addresses_take_few_calls_and_are_remembered(regards_case: bool) -> None:
    items = [
        NamedValue(address.upper() if number % 2 else f" {address}", "Loyalty tier", "gold")
        for number, address in PEOPLE.items()
        for _ in range(3)
    ]
    quirks = Quirks(case_sensitive_emails=regards_case)
    async with opened(quirks=quirks) as (_, resolver, calls):
        found = await resolver.resolve(items, calls)
        assert [one.customer_id for one in found] == [n for n in PEOPLE for _ in range(3)]  # type: ignore[union-attr]
        assert calls.calls <= 16
        before = calls.calls
        await resolver.resolve(items, calls)
        assert calls.calls == before


async def test_what_is_not_known_fails_alone_and_names_the_nearest() -> None:
    items = [
        NamedValue("nobody@example.org", "Loyalty tier", "gold"),
        NamedValue(5, "Loyality tier", "gold"),
        NamedValue(5, "Shoe size", "12,5"),
        NamedValue(5, 99, "x"),
        NamedValue(5, "Birthday", 7),
        NamedValue(5, "Loyalty tier", 7),
    ]
    async with opened() as (_, resolver, calls):
        found = await resolver.resolve(items, calls)
    kinds = [
        UnknownCustomerError,
        UnknownAttributeError,
        AttributeTypeError,
        UnknownAttributeError,
        AttributeTypeError,
        AttributeValueUpsert,
    ]
    assert [type(one) for one in found] == kinds
    unknown = found[1]
    assert isinstance(unknown, UnknownAttributeError)
    assert (unknown.name, unknown.nearest) == ("Loyality tier", ("Loyalty tier",))
    assert "'12,5'" in str(found[2])
    assert "nobody@example.org" in str(found[0])


async def test_a_new_definition_is_seen_after_it_is_made() -> None:
    sandbox = Sandbox(quota=None, attributes=TYPES)
    async with sandbox, make_store(sandbox) as store:
        runtime, calls, _ = store._state.bound(store._options)
        item = [NamedValue(5, "CRM score", 0.5)]
        (found,) = await runtime.resolver.resolve(item, calls)
        assert isinstance(found, UnknownAttributeError)
        await store.attributes.ensure({"CRM score": "number"})
        (found,) = await runtime.resolver.resolve(item, calls)
        assert isinstance(found, AttributeValueUpsert)


async def test_definitions_that_were_read_during_a_change_are_not_remembered() -> None:
    item = [NamedValue(5, "CRM score", 0.5)]
    async with opened(latency_ms=50) as (sandbox, resolver, calls):
        reading = asyncio.create_task(resolver.resolve(item, calls))
        await until(lambda: sandbox.in_flight("list_attributes") > 0)
        resolver.forget_definitions()
        await reading
        await sandbox.define(attributes={"CRM score": "number"})
        (found,) = await resolver.resolve(item, calls)
        assert isinstance(found, AttributeValueUpsert)


async def test_a_change_whose_caller_was_cancelled_is_seen() -> None:
    item = [NamedValue(5, "CRM score", 0.5)]
    sandbox = Sandbox(quota=None, attributes=TYPES, latency_ms=50)
    async with sandbox, make_store(sandbox) as store:
        runtime, calls, _ = store._state.bound(store._options)
        (found,) = await runtime.resolver.resolve(item, calls)
        assert isinstance(found, UnknownAttributeError)
        renaming = asyncio.create_task(store.attributes.rename(2, "CRM score"))
        await until(lambda: sandbox.in_flight("rename_attributes") > 0)
        renaming.cancel()
        await until(lambda: sum(store.statistics().in_flight.values()) == 0)
        (found,) = await runtime.resolver.resolve(item, calls)
        assert found == AttributeValueUpsert(5, 2, "0.5")


def test_a_bounded_number_of_addresses_is_remembered_the_oldest_forgotten_first() -> None:
    addresses = Addresses(most=3)
    for number in range(1, 4):
        addresses.remember(f"{number}@x", number)
    assert addresses.get("1@x") == 1
    addresses.remember("4@x", 4)
    assert [addresses.get(f"{number}@x") for number in range(1, 5)] == [1, None, 3, 4]
    addresses.forget("1@x")
    assert addresses.get("1@x") is None
    assert len(addresses) == 2


def test_nearest_names_regard_neither_case_nor_blanks() -> None:
    names = ["Loyalty tier", "Shoe size", "Birthday"]
    assert nearest_names("loyalty  Tier ", names) == ["Loyalty tier"]
    assert nearest_names("xyz", names) == []
