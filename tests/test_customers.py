"""`Store.customers`: addresses and ids are looked up in chunks, without regard to case."""

from __future__ import annotations

import re
from typing import Any

import pytest
from aioresponses import aioresponses

from bc_attrvals import (
    InvalidInputError,
    ListingDriftError,
    NamedValue,
    Store,
    UnknownCustomerError,
)
from bc_attrvals.sandbox import Quirks
from tests.people import PEOPLE, opened
from tests.raw_server import Connection, RawRequest, answer, page_body, store_on


async def test_addresses_are_looked_up_in_chunks_that_a_url_holds() -> None:
    async with opened() as (sandbox, store):
        found = await store.customers.ids_by_email(PEOPLE.values())
        assert found == {address: number for number, address in PEOPLE.items()}
        assert len(list(sandbox.requests)) <= 10
        assert all(len(one.query_string) < 4_096 for one in sandbox.requests)
        assert await store.customers.emails_by_id(PEOPLE) == PEOPLE


@pytest.mark.parametrize("regards_case", [True, False])
async def test_case_and_blanks_do_not_count_and_keys_are_as_given(regards_case: bool) -> None:
    given = ["  Person1@Example.ORG ", "PERSON2@example.org", "nobody@example.org"]
    async with opened(quirks=Quirks(case_sensitive_emails=regards_case)) as (_, store):
        assert await store.customers.ids_by_email(given) == {given[0]: 1, given[1]: 2}


async def test_signs_of_an_address_are_encoded() -> None:
    people = {1: "ann+shop@example.org", 2: "o'neil&co=50%@example.org", 3: "ünal@exämple.org"}
    async with opened(customers=people) as (_, store):
        found = await store.customers.ids_by_email(people.values())
        assert found == {address: number for number, address in people.items()}


async def test_a_refused_chunk_is_halved_and_the_size_is_learnt() -> None:
    async with opened(quirks=Quirks(max_emails=20)) as (sandbox, store):
        found = await store.customers.ids_by_email(PEOPLE.values())
        assert len(found) == 800
        before = len(list(sandbox.requests))
        await store.customers.ids_by_email(PEOPLE.values())
        assert len(list(sandbox.requests)) - before <= 60


@pytest.mark.parametrize("over_limit", ["refuse", "clamp"])
async def test_a_service_of_smaller_pages_is_asked_for_fewer_customers_a_call(
    over_limit: str,
) -> None:
    quirks = Quirks(max_limit=50, over_limit=over_limit)
    async with opened(quirks=quirks) as (sandbox, store):
        found = await store.customers.ids_by_email(PEOPLE.values())
        assert len(found) == 800
        addresses = await store.customers.emails_by_id(PEOPLE)
        assert addresses == PEOPLE
        before = len(list(sandbox.requests))
        await store.customers.ids_by_email(PEOPLE.values())
        assert len(list(sandbox.requests)) - before <= 40


@pytest.mark.parametrize(
    "bad",
    ["", "  ", "ann", "@example.org", "ann@", "a,b@example.org", "a\nb@c.d", "x" * 255 + "@y", 5],
)
async def test_what_is_no_address_is_refused_with_its_place(bad: object) -> None:
    async with opened() as (sandbox, store):
        with pytest.raises(InvalidInputError) as refused:
            await store.customers.ids_by_email(["ann@example.org", bad])
        assert (refused.value.field, refused.value.place) == ("emails", "emails[1]")
        assert not list(sandbox.requests)


async def test_customers_are_streamed() -> None:
    async with opened() as (_, store):
        assert [one.id async for one in store.customers.stream()] == list(PEOPLE)
        some = [one.email async for one in store.customers.stream(id_in=[3, 5, 900])]
        assert some == [PEOPLE[3], PEOPLE[5]]
        some = [one.id async for one in store.customers.stream(email_in=["PERSON7@example.org"])]
        assert some == [7]


async def test_a_service_that_ignores_the_filter_is_not_believed() -> None:
    async with opened(quirks=Quirks(ignore_filters=True)) as (_, store):
        with pytest.raises(ListingDriftError):
            await store.customers.ids_by_email(["person1@example.org"])
        with pytest.raises(ListingDriftError):
            await store.customers.emails_by_id([1])


def answering(mocked: aioresponses, *people: tuple[int, str]) -> None:
    rows = [{"id": number, "email": address} for number, address in people]
    body = page_body(rows, total=len(rows), per_page=50, page=1, total_pages=1)
    mocked.get(re.compile("https://api.bigcommerce.com/.*"), body=body, repeat=True)


async def test_an_address_that_several_have_in_different_case_is_ambiguous(
    mocked: aioresponses,
) -> None:
    answering(mocked, (2, "aNN@example.org"), (1, "Ann@example.org"))
    async with Store("hash", "token") as store:
        with pytest.raises(UnknownCustomerError, match="1, 2"):
            await store.customers.ids_by_email(["ann@example.org"])
        # The exact spelling is nobody else's.
        found = await store.customers.ids_by_email([" Ann@example.org"])
        assert found == {" Ann@example.org": 1}


async def test_a_value_for_an_ambiguous_address_fails_and_names_the_customers() -> None:
    people = [{"id": 1, "email": "Ann@example.org"}, {"id": 2, "email": "aNN@example.org"}]

    async def script(request: RawRequest, connection: Connection) -> None:
        rows: list[dict[str, Any]] = people
        if "/customers/attributes" in request.target:
            rows = [{"id": 1, "name": "Size", "type": "string"}]
        body = page_body(rows, total=len(rows), per_page=50, page=1, total_pages=1)
        await connection.say(answer(body))

    async with store_on(script) as (store, server):
        items = [NamedValue("ann@example.org", "Size", "v")]
        report = await store.attribute_values.upsert(items, raise_on_failure=False)
        assert {one.method for one in server.requests} == {"GET"}
    (failure,) = report.failures
    assert isinstance(failure.error, UnknownCustomerError)
    assert "several customers" in str(failure.error)
