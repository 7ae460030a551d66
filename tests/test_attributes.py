"""`Store.attributes`: definitions are read, made, renamed and deleted, each once."""

from __future__ import annotations

import re

import pytest
from aioresponses import aioresponses

from bc_attrvals import (
    AttributeType,
    AttributeTypeError,
    AttributeValueUpsert,
    InvalidInputError,
    PermissionDeniedError,
    RetryPolicy,
    Store,
    UnconfirmedError,
    UnknownAttributeError,
)
from bc_attrvals.sandbox import Fault, Quirks
from tests.people import TYPES, opened
from tests.raw_server import Connection, RawRequest, answer, page_body, rows_body, store_on


@pytest.mark.parametrize("page", [1, 2])
async def test_definitions_come_to_their_end_in_pages_of_any_size(page: int) -> None:
    """One that was missed would be made a second time, or be unknown."""
    async with opened(quirks=Quirks(max_limit=page, over_limit="clamp")) as (_, store):
        assert {one.name async for one in store.attributes.stream()} == set(TYPES)
        assert (await store.attributes.ensure(TYPES)).keys() == TYPES.keys()
        assert len([one async for one in store.attributes.stream()]) == len(TYPES)


async def test_a_definition_is_found_by_exact_name_or_by_id() -> None:
    async with opened() as (_, store):
        found = await store.attributes.get("Shoe size")
        assert found is not None
        assert (found.name, found.type) == ("Shoe size", AttributeType.NUMBER)
        assert await store.attributes.get(found.id) == found
        assert await store.attributes.get("shoe size") is None
        assert await store.attributes.get(2**31 - 1) is None


async def test_definitions_are_streamed_and_filtered() -> None:
    async with opened() as (_, store):
        everything = [one.name async for one in store.attributes.stream()]
        assert sorted(everything) == sorted(TYPES)
        numbers = [one.name async for one in store.attributes.stream(type="number")]
        assert numbers == ["Shoe size"]
        assert [one.name async for one in store.attributes.stream(name="Birthday")] == ["Birthday"]
        alike = [one.name async for one in store.attributes.stream(name_like="size")]
        assert alike == ["Shoe size"]


async def test_ensure_makes_what_is_missing_and_nothing_twice() -> None:
    wanted = {"Loyalty tier": "string", "CRM score": AttributeType.NUMBER, "Churned": "date"}
    async with opened() as (sandbox, store):
        first = await store.attributes.ensure(wanted)
        assert list(first) == list(wanted)
        assert {name: one.type for name, one in first.items()} == wanted
        creations = [one for one in sandbox.requests if one.method == "POST"]
        assert len(creations) == 1
        assert await store.attributes.ensure(wanted) == first
        assert len([one for one in sandbox.requests if one.method == "POST"]) == 1


async def test_ensure_makes_them_one_by_one_where_several_are_refused() -> None:
    wanted = {f"Score {number}": "number" for number in range(5)}
    async with opened(quirks=Quirks(max_new_attributes=1)) as (sandbox, store):
        found = await store.attributes.ensure(wanted)
        assert set(found) == set(wanted)
        assert [one.status for one in sandbox.requests if one.method == "POST"] == [422, *[200] * 5]


async def test_ensure_makes_them_one_by_one_where_several_are_too_large() -> None:
    fault = Fault("413", operation="create_attributes", times=1)
    async with opened(faults=[fault]) as (sandbox, store):
        await store.attributes.ensure({"A": "string", "B": "number"})
        assert [one.status for one in sandbox.requests if one.method == "POST"] == [413, 200, 200]


@pytest.mark.parametrize("kind", ["drop_before", "drop_after", "502", "cut_body", "html_body"])
@pytest.mark.parametrize("unique", [True, False])
async def test_a_creation_without_an_answer_is_not_made_twice(kind: str, unique: bool) -> None:
    fault = Fault(kind, operation="create_attributes", times=2)
    quirks = Quirks(unique_attribute_names=unique)
    async with opened(faults=[fault], quirks=quirks) as (_, store):
        found = await store.attributes.ensure({"CRM score": "number"})
        names = [one.name async for one in store.attributes.stream()]
        assert names.count("CRM score") == 1
        assert found["CRM score"].type == "number"


async def test_ensure_refuses_another_type_before_anything_is_made() -> None:
    async with opened() as (sandbox, store):
        with pytest.raises(AttributeTypeError, match="'Shoe size' is a number, not a string"):
            await store.attributes.ensure({"New": "string", "Shoe size": "string"})
        assert [one.method for one in sandbox.requests] == ["GET"]


@pytest.mark.parametrize(
    ("types", "place"),
    [
        ({"": "string"}, "types['']"),
        ({"x" * 256: "string"}, f"types[{'x' * 256!r}]"),
        ({"Tier": "text"}, "types['Tier']"),
        ({5: "string"}, "types[5]"),
    ],
)
async def test_bad_definitions_are_refused_before_anything_is_sent(
    types: dict[str, str], place: str
) -> None:
    async with opened() as (sandbox, store):
        with pytest.raises(InvalidInputError) as refused:
            await store.attributes.ensure(types)
        assert (refused.value.field, refused.value.place) == ("types", place)
        assert not list(sandbox.requests)


async def test_a_store_has_fifty_attributes_at_most() -> None:
    async with opened() as (sandbox, store):
        with pytest.raises(InvalidInputError, match="it can have 50"):
            await store.attributes.ensure({f"Score {number}": "number" for number in range(48)})
        assert [one.method for one in sandbox.requests] == ["GET"]
        assert len(await store.attributes.ensure({f"S {n}": "number" for n in range(47)})) == 47


async def test_a_name_that_two_definitions_have_is_refused_and_an_id_is_not(
    mocked: aioresponses,
) -> None:
    rows = [{"id": 7, "name": "Tier", "type": "string"}, {"id": 8, "name": "Tier", "type": "date"}]
    url = re.compile("https://api.bigcommerce.com/.*")
    mocked.get(url, payload={"data": rows, "meta": {}}, repeat=True)
    async with Store("hash", "token") as store:
        with pytest.raises(UnknownAttributeError, match="ids 7, 8"):
            await store.attributes.get("Tier")
        found = await store.attributes.get(8)
        assert found is not None
        assert found.type == "date"


@pytest.mark.parametrize("is_made", [True, False], ids=["cached listing", "nothing made"])
async def test_a_definition_that_is_accepted_and_not_listed_is_made_once(is_made: bool) -> None:
    """An old listing, from a cache say, would make it again and again."""
    made: list[str] = []

    async def script(request: RawRequest, connection: Connection) -> None:
        if request.method == "POST":
            made.extend(item["name"] for item in request.items)
            status = 200 if len(made) == 2 else 401
            await connection.say(answer(rows_body(request.items if is_made else []), status))
            return
        await connection.say(answer(page_body([], total=0, per_page=50, page=1, total_pages=0)))

    async with store_on(script, retry=RetryPolicy(attempts=3, base_s=0.001)) as (store, server):
        with pytest.raises(UnconfirmedError, match="accepted, yet not listed: 'A', 'B'"):
            await store.attributes.ensure({"A": "string", "B": "number"})
        assert made == ["A", "B"]
        assert len(server.requests) <= 5


async def test_a_renamed_attribute_keeps_its_values() -> None:
    async with opened() as (_, store):
        tier = await store.attributes.get("Loyalty tier")
        assert tier is not None
        await store.attribute_values.upsert([AttributeValueUpsert(5, tier.id, "gold")])
        renamed = await store.attributes.rename(tier.id, "Tier")
        assert (renamed.id, renamed.name) == (tier.id, "Tier")
        value = await store.attribute_values.get(5, tier.id)
        assert value is not None
        assert value.value == "gold"


async def test_values_go_with_a_definition_only_when_that_is_said() -> None:
    async with opened() as (sandbox, store):
        tier = await store.attributes.get("Loyalty tier")
        assert tier is not None
        await store.attribute_values.upsert([AttributeValueUpsert(5, tier.id, "gold")])
        with pytest.raises(InvalidInputError, match="with_values=True"):
            await store.attributes.delete([tier.id])
        report = await store.attributes.delete([tier.id], with_values=True)
        assert report.deleted == 1
        assert await sandbox.count() == 0
        assert await store.attributes.get(tier.id) is None
        with pytest.raises(InvalidInputError, match="at least one"):
            await store.attributes.delete([], with_values=True)


async def test_a_missing_scope_is_the_services_own_error() -> None:
    fault = Fault("403", operation="list_attributes")
    async with opened(faults=[fault]) as (_, store):
        with pytest.raises(PermissionDeniedError):
            await store.attributes.ensure({"New": "string"})
