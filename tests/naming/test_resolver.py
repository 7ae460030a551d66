"""Names and addresses become ids: each asked for once, each failing its own item only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs

import pytest

from bc_attrvals import (
    AttributeTypeError,
    AttributeValueUpsert,
    NamedValue,
    UnknownAttributeError,
    UnknownCustomerError,
    UnresolvedError,
)
from bc_attrvals.naming.resolver import Resolver
from bc_attrvals.sandbox import Quirks, Sandbox
from bc_attrvals.scheduling.calls import Calls
from tests.conftest import make_store
from tests.people import PEOPLE, TYPES, opened
from tests.probes import until
from tests.raw_server import Connection, RawRequest, answer, page_body, store_on


@asynccontextmanager
async def resolving(**options: object) -> AsyncIterator[tuple[Sandbox, Resolver, Calls]]:
    async with opened(**options) as (sandbox, store):
        runtime, calls, _ = store._state.bound(store._options)
        yield sandbox, runtime.shared.resolver, calls.for_job()


async def test_ids_names_and_addresses_are_mixed_at_will() -> None:
    items = [
        NamedValue(5, "Shoe size", 43),
        NamedValue(" Person7@Example.org ", 1, "gold"),
        NamedValue("person7@example.org", "Birthday", "1980-02-29"),
        NamedValue(5, 1, "silver"),
    ]
    async with resolving() as (sandbox, resolver, calls):
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
    async with resolving(quirks=quirks) as (_, resolver, calls):
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
    async with resolving(quirks=Quirks(case_sensitive_emails=False)) as (sandbox, resolver, calls):
        found = await resolver.resolve(items, calls)
        assert [one.customer_id for one in found[:-1]] == [n for n in range(1, 101) for _ in "abc"]  # type: ignore[union-attr]
        assert isinstance(found[-1], UnknownCustomerError)
        assert len(asked_for(sandbox)) == 101
        # It is known from now on.
        await resolver.resolve([NamedValue("NoOne@Example.org", "Loyalty tier", "x")], calls)
        assert asked_for(sandbox)[101:] == ["NoOne@Example.org"]


async def test_what_is_not_known_fails_alone_and_names_the_nearest() -> None:
    items = [
        NamedValue("nobody@example.org", "Loyalty tier", "gold"),
        NamedValue(5, "Loyality tier", "gold"),
        NamedValue(5, "Shoe size", "12,5"),
        NamedValue(5, 99, "x"),
        NamedValue(5, "Birthday", 7),
        NamedValue(5, "Loyalty tier", 7),
    ]
    async with resolving() as (_, resolver, calls):
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
        (found,) = await runtime.shared.resolver.resolve(item, calls)
        assert isinstance(found, UnknownAttributeError)
        await store.attributes.ensure({"CRM score": "number"})
        (found,) = await runtime.shared.resolver.resolve(item, calls)
        assert isinstance(found, AttributeValueUpsert)


async def test_a_definition_that_others_made_is_seen_by_the_next_job() -> None:
    async with resolving() as (sandbox, resolver, calls):
        item = [NamedValue(5, "CRM score", 0.5)]
        (found,) = await resolver.resolve(item, calls)
        assert isinstance(found, UnknownAttributeError)
        await sandbox.define(attributes={"CRM score": "number"})
        (found,) = await resolver.resolve(item, calls)
        assert isinstance(found, AttributeValueUpsert)
        assert len(list(sandbox.requests)) == 2


async def test_definitions_that_were_read_during_a_change_are_not_remembered() -> None:
    item = [NamedValue(5, "CRM score", 0.5)]
    async with resolving(latency_ms=50) as (sandbox, resolver, calls):
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
        (found,) = await runtime.shared.resolver.resolve(item, calls)
        assert isinstance(found, UnknownAttributeError)
        renaming = asyncio.create_task(store.attributes.rename(2, "CRM score"))
        await until(lambda: sandbox.in_flight("rename_attributes") > 0)
        renaming.cancel()
        await until(lambda: sum(store.statistics().in_flight.values()) == 0)
        (found,) = await runtime.shared.resolver.resolve(item, calls)
        assert found == AttributeValueUpsert(5, 2, "0.5")


@pytest.mark.parametrize("odd_id", [0, -3, 2**31])
async def test_an_id_that_no_value_can_have_fails_its_own_item(odd_id: int) -> None:
    """The service's mistake is no bad input of the caller, and stops no neighbour."""
    people = {5: "a@example.org", odd_id: "b@example.org"}

    async def script(request: RawRequest, connection: Connection) -> None:
        rows = [{"id": 1, "name": "Tier", "type": "string"}]
        if not request.target.partition("?")[0].endswith("attributes"):
            rows = [{"id": number, "email": email} for number, email in people.items()]
        body = page_body(rows, total=len(rows), per_page=50, page=1, total_pages=1)
        await connection.say(answer(body))

    async with store_on(script) as (store, _):
        runtime, calls, _ = store._state.bound(store._options)
        items = [NamedValue(email, "Tier", "gold") for email in people.values()]
        good, bad = await runtime.shared.resolver.resolve(items, calls.for_job())
    assert good == AttributeValueUpsert(5, 1, "gold")
    assert isinstance(bad, UnresolvedError)
    assert str(odd_id) in str(bad)
