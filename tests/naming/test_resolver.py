"""Names and addresses become ids: each asked for once, each failing its own item only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast
from urllib.parse import parse_qs, unquote

import pytest

from bc_attrvals import (
    AttributeTypeError,
    AttributeValueUpsert,
    NamedValue,
    UnknownAttributeError,
    UnknownCustomerError,
)
from bc_attrvals.core.definitions import Attribute, Customer
from bc_attrvals.core.limits import Limits
from bc_attrvals.naming.addresses import Addresses, look_up
from bc_attrvals.naming.definitions import KnownDefinitions, nearest_names
from bc_attrvals.naming.resolver import Resolver
from bc_attrvals.sandbox import Quirks, Sandbox
from bc_attrvals.scheduling.calls import Calls, LearntSizes
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


def asked_for(sandbox: Sandbox) -> list[str]:
    """Return the addresses that were asked for, over all look-ups."""
    queries = [parse_qs(one.query_string).get("email:in", []) for one in sandbox.requests]
    return [address for query in queries for texts in query for address in texts.split(",")]


async def test_spellings_are_asked_for_once_where_case_is_disregarded() -> None:
    items = [
        NamedValue(spelling, "Loyalty tier", "gold")
        for address in list(PEOPLE.values())[:100]
        for spelling in (address.upper(), address.title(), address)
    ]
    items.append(NamedValue("Nobody@Example.org", "Loyalty tier", "gold"))
    async with opened(quirks=Quirks(case_sensitive_emails=False)) as (sandbox, resolver, calls):
        found = await resolver.resolve(items, calls)
        assert [one.customer_id for one in found[:-1]] == [n for n in range(1, 101) for _ in "abc"]  # type: ignore[union-attr]
        assert isinstance(found[-1], UnknownCustomerError)
        assert len(asked_for(sandbox)) == 101
        # It is known from now on.
        await resolver.resolve([NamedValue("NoOne@Example.org", "Loyalty tier", "x")], calls)
        assert asked_for(sandbox)[101:] == ["NoOne@Example.org"]


async def test_spellings_are_customers_of_their_own_where_case_is_regarded() -> None:
    people = {"Ann@example.org": 1, "ann@example.org": 2, "bob@example.org": 3}
    asked: list[str] = []

    class Regarding:
        """The calls of `/customers`, answered by a service that regards case."""

        sizes = LearntSizes(Limits())

        def parts(self, parameter: str, texts: list[str]) -> list[list[str]]:
            return [texts]

        async def rows(self, query: str, number: int, limit: int, decode: object) -> object:
            addresses = [unquote(one) for one in query.removeprefix("email:in=").split(",")]
            asked.extend(addresses)
            rows = [Customer(people[one], one) for one in addresses if one in people]
            return SimpleNamespace(data=rows, pagination=None)

    spellings = ["Ann@example.org", "ann@example.org", "BOB@example.org", "Bob@example.org"]
    found, ambiguous = await look_up(cast("Calls", Regarding()), spellings)
    assert found == dict(zip(spellings, [1, 2, 3, 3], strict=True))
    assert not ambiguous
    assert sorted(asked) == sorted([*spellings, "bob@example.org"])


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


@pytest.mark.looptime
async def test_a_job_sees_what_others_defined_before_it_and_reads_again_once_a_minute() -> None:
    asked: list[int] = []
    names = ["Loyalty tier"]

    class Listed:
        """The calls of `/customers/attributes`, answered by what others have defined."""

        async def rows(self, query: str, number: int, limit: int, decode: object) -> object:
            asked.append(number)
            rows = [Attribute(one, name, "string", None, None) for one, name in enumerate(names, 1)]
            return SimpleNamespace(data=rows, pagination=None)

    known, calls = KnownDefinitions(), cast("Calls", Listed())
    loop = asyncio.get_running_loop()
    began_at_s = loop.time()

    async def lacks(name: str, began_at_s: float) -> bool:
        return (await known.get(calls, [name], began_at_s)).find(name) is None

    assert not await lacks("Loyalty tier", began_at_s)
    for _ in range(3):
        assert await lacks("Shoe size", began_at_s)
    assert len(asked) == 1
    names.append("Shoe size")
    await asyncio.sleep(59)
    # In this job a minute later, in the next job at once, and there not again.
    assert await lacks("Shoe size", began_at_s)
    next_began_at_s = loop.time()
    assert not await lacks("Shoe size", next_began_at_s)
    assert await lacks("Birthday", next_began_at_s)
    assert len(asked) == 2
    await asyncio.sleep(60)
    assert await lacks("Birthday", next_began_at_s)
    assert not await lacks("Loyalty tier", loop.time())
    assert len(asked) == 3


async def test_a_definition_that_others_made_is_seen_by_the_next_job() -> None:
    async with opened() as (sandbox, resolver, calls):
        item = [NamedValue(5, "CRM score", 0.5)]
        (found,) = await resolver.resolve(item, calls)
        assert isinstance(found, UnknownAttributeError)
        await sandbox.define(attributes={"CRM score": "number"})
        (found,) = await resolver.resolve(item, calls)
        assert isinstance(found, AttributeValueUpsert)
        assert len(list(sandbox.requests)) == 2


async def test_definitions_that_were_read_during_a_change_are_not_remembered() -> None:
    item = [NamedValue(5, "CRM score", 0.5)]
    async with opened(latency_ms=50) as (sandbox, resolver, calls):
        reading = asyncio.create_task(resolver.resolve(item, calls))
        await until(lambda: sandbox.in_flight("list_attributes") > 0)
        resolver.definitions.forget()
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
