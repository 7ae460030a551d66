"""Customers and attributes: what is defined, what values may name, and the calls on both."""

from __future__ import annotations

from typing import Any

import pytest

from bc_attrvals.sandbox import Quirks, Sandbox
from tests.sandbox.api import Clock, item, running

PEOPLE = {7: "Ann@Example.org", 8: "bob+news@example.org"}
KINDS = {"Tier": "string", "Shoe size": "number", "Birthday": "date"}


async def test_values_name_only_what_is_defined() -> None:
    async with running(customers=PEOPLE, attributes=KINDS) as (sandbox, api):
        assert (await api.put(item(7, 1), item(8, 3))).status == 200
        customer = await api.put(item(7, 1), item(9, 1), item(7, 9))
        attribute = await api.put(item(7, 1), item(7, 4), item(9, 1))
        assert (customer.status, list(customer.json["errors"])) == (422, ["1.customer_id"])
        assert (attribute.status, list(attribute.json["errors"])) == (422, ["1.attribute_id"])
        assert set(await sandbox.values()) == {(7, 1), (8, 3)}


async def test_without_definitions_any_ids_are_accepted() -> None:
    async with running() as (sandbox, api):
        assert (await api.put(item(99, 99))).status == 200
        assert (await api.customers()).data == []
        assert (await api.attributes("GET")).data == []
        await sandbox.define(customers=["ann@example.org"])
        assert (await api.put(item(99, 99))).status == 422
        assert (await api.put(item(1, 99))).status == 200
        await sandbox.delete_customers([1])
        assert (await api.put(item(1, 99))).status == 422


@pytest.mark.parametrize(
    ("asked", "found", "found_by_case"),
    [
        ("Ann%40Example.org", [7], [7]),
        ("ann@example.ORG", [7], []),
        ("bob%2Bnews%40example.org,nobody@example.org,ann@example.org", [7, 8], [8]),
        ("bob+news@example.org", [], []),
    ],
)
async def test_customers_are_found_by_address(
    asked: str, found: list[int], found_by_case: list[int]
) -> None:
    async with running(customers=PEOPLE) as (sandbox, api):
        reply = await api.customers(f"email:in={asked}")
        assert [row["id"] for row in reply.data] == found
        assert reply.pagination["total"] == len(found)
        await sandbox.set_quirks(Quirks(case_sensitive_emails=True))
        exact = await api.customers(f"email%3Ain={asked}")
        assert [row["id"] for row in exact.data] == found_by_case


async def test_customers_are_listed_by_page_and_id() -> None:
    clock = Clock(1_700_000_000)
    people = {number: f"c{number}@example.org" for number in range(1, 121)}
    async with running(customers=people, wall_clock=clock) as (_, api):
        page = await api.customers("page=3&limit=50")
        (one,) = (await api.customers("id:in=5,999")).data
        later = await api.customers("date_created:min=2023-11-15")
        unknown = await api.customers("company:in=x")
    assert [row["id"] for row in page.data] == list(range(101, 121))
    assert page.pagination["total_pages"] == 3
    assert one == {
        "id": 5,
        "email": "c5@example.org",
        "first_name": "Customer",
        "last_name": "5",
        "company": "",
        "customer_group_id": 0,
        "date_created": "2023-11-14T22:13:20Z",
        "date_modified": "2023-11-14T22:13:20Z",
    }
    assert (later.data, unknown.status) == ([], 422)


async def test_more_addresses_than_a_quirk_allows_are_refused() -> None:
    async with running(customers=PEOPLE, quirks=Quirks(max_emails=1)) as (_, api):
        assert (await api.customers("email:in=a@b.c")).status == 200
        assert (await api.customers("email:in=a@b.c,d@e.f")).status == 422


async def test_attributes_are_created_renamed_and_deleted_with_their_values() -> None:
    clock = Clock(1_700_000_000)
    async with running(wall_clock=clock) as (sandbox, api):
        new = [{"name": "Tier", "type": "string"}, {"name": "Size", "type": "number"}]
        created = await api.attributes("POST", "", *new)
        assert [(row["id"], row["name"], row["type"]) for row in created.data] == [
            (1, "Tier", "string"),
            (2, "Size", "number"),
        ]
        assert created.json["meta"] == {}
        await api.put(item(5, 1, "gold"), item(5, 2, "9"))
        clock.now_s += 60
        renamed = await api.attributes("PUT", "", {"id": 1, "name": "Level"})
        assert (renamed.data[0]["name"], renamed.data[0]["type"]) == ("Level", "string")
        assert renamed.data[0]["date_modified"] == "2023-11-14T22:14:20Z"
        assert [row["attribute_id"] for row in (await api.get("name=Level")).data] == [1]
        assert (await api.get("name=Tier")).data == []
        deleted = await api.attributes("DELETE", "id:in=1,77")
        assert (deleted.status, deleted.body) == (204, b"")
        assert await sandbox.values() == {(5, 2): "9"}
        assert [row["id"] for row in (await api.attributes("GET")).data] == [2]
        assert (await api.put(item(5, 1))).status == 422
        again = await api.attributes("POST", "", {"name": "Tier", "type": "date"})
        assert again.data[0]["id"] == 3


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", [1, 2, 3]),
        ("name=Tier", [1]),
        ("name=tier", []),
        ("name:like=i", [1, 2, 3]),
        ("name:like=Shoe", [2]),
        ("type=date", [3]),
        ("type=date&name=Tier", []),
        ("limit=2&page=2", [3]),
        ("date_modified:max=2000-01-01", []),
    ],
)
async def test_attributes_are_filtered(query: str, ids: list[int]) -> None:
    async with running(attributes=KINDS) as (sandbox, api):
        assert [row["id"] for row in (await api.attributes("GET", query)).data] == ids
        await sandbox.set_quirks(Quirks(attributes_pagination=False))
        assert (await api.attributes("GET", query)).json["meta"] == {}


async def test_attributes_cannot_be_asked_for_by_several_names() -> None:
    async with running(attributes=KINDS) as (_, api):
        assert (await api.attributes("GET", "name:in=Tier")).status == 422


@pytest.mark.parametrize(
    ("method", "items", "field"),
    [
        ("POST", [{"name": "A"}], "0.type"),
        ("POST", [{"name": "A", "type": "text"}], "0.type"),
        ("POST", [{"name": "A", "type": "string"}, {"type": "string"}], "1.name"),
        ("POST", [{"name": "", "type": "string"}], "0.name"),
        ("POST", [{"name": "x" * 256, "type": "string"}], "0.name"),
        ("POST", [{"name": "Tier", "type": "string"}], "0.name"),
        ("POST", [{"name": "A", "type": "date"}, {"name": "A", "type": "date"}], "1.name"),
        ("PUT", [{"id": 1, "name": "Shoe size"}], "0.name"),
        ("PUT", [{"id": 9, "name": "A"}], "0.id"),
        ("PUT", [{"name": "A"}], "0.id"),
        ("PUT", ["A"], "0.data"),
    ],
)
async def test_bad_attributes_are_refused_and_change_nothing(
    method: str, items: list[Any], field: str
) -> None:
    async with running(attributes=KINDS) as (sandbox, api):
        before = await sandbox.attributes()
        reply = await api.attributes(method, "", *items)
        assert (reply.status, list(reply.json["errors"])) == (422, [field])
        assert await sandbox.attributes() == before


async def test_a_store_has_at_most_fifty_attributes() -> None:
    async with running(attributes={f"a{n}": "string" for n in range(49)}) as (sandbox, api):
        new = [{"name": "x", "type": "string"}, {"name": "y", "type": "string"}]
        over = await api.attributes("POST", "", *new)
        assert (over.status, list(over.json["errors"])) == (422, ["1.name"])
        assert (await api.attributes("POST", "", new[0])).status == 200
        with pytest.raises(ValueError, match="at most 50"):
            await sandbox.define(attributes={"one": "string", "more": "string"})
        assert len(await sandbox.attributes()) == 50


async def test_a_post_may_be_bounded_and_names_may_be_shared() -> None:
    quirks = Quirks(max_new_attributes=1, unique_attribute_names=False)
    async with running(attributes=KINDS, quirks=quirks) as (_, api):
        one = {"name": "Tier", "type": "date"}
        refused = await api.attributes("POST", "", one, one)
        assert (refused.status, refused.json["title"]) == (422, "Max batch size allowed is 1")
        assert refused.json["errors"] == {}
        assert (await api.attributes("POST", "", one)).data[0]["id"] == 4
        assert len((await api.attributes("GET", "name=Tier")).data) == 2


@pytest.mark.parametrize(
    ("attribute_id", "value", "fits"),
    [
        (1, "anything", True),
        (2, "-12.5e3", True),
        (2, "", True),
        (2, "twelve", False),
        (2, "1,5", False),
        (3, "2024-02-29", True),
        (3, "2024-02-29T10:00:00Z", True),
        (3, "2023-02-29", False),
    ],
)
async def test_types_are_checked_only_where_a_quirk_says_so(
    attribute_id: int, value: str, fits: bool
) -> None:
    async with running(attributes=KINDS) as (sandbox, api):
        assert (await api.put(item(1, attribute_id, value))).status == 200
        await sandbox.set_quirks(Quirks(check_value_types=True))
        reply = await api.put(item(2, attribute_id, value))
        assert reply.status == (200 if fits else 422)
        assert fits or list(reply.json["errors"]) == ["0.value"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"customers": {0: "a@b.c"}}, "customers.0.*32-bit"),
        ({"customers": {True: "a@b.c"}}, "customers"),
        ({"customers": ["ab"]}, "customers: item 0"),
        ({"customers": ["a@b.c", 5]}, "customers: item 1"),
        ({"attributes": {"": "string"}}, "attributes: item 0"),
        ({"attributes": {"Tier": "text"}}, "attributes: item 0: type"),
        ({"attributes": [("Tier", "string", 0)]}, "attributes: item 0.*id"),
    ],
)
def test_bad_definitions_are_refused_with_their_place(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sandbox(**options)


async def test_definitions_that_contradict_each_other_change_nothing() -> None:
    async with running(customers=PEOPLE, attributes=KINDS) as (sandbox, _):
        with pytest.raises(ValueError, match="customers: two have"):
            await sandbox.define(customers={1: "new@example.org", 9: "ANN@example.org"})
        with pytest.raises(ValueError, match="another type"):
            await sandbox.define(attributes={"New": "string", "Tier": "number"})
        assert [one.id for one in await sandbox.customers()] == [7, 8]
        assert [one.name for one in await sandbox.attributes()] == list(KINDS)


async def test_two_customers_can_swap_their_addresses() -> None:
    async with running(customers=PEOPLE) as (sandbox, api):
        await sandbox.define(customers={7: PEOPLE[8], 8: PEOPLE[7]})
        assert [one.email for one in await sandbox.customers()] == [PEOPLE[8], PEOPLE[7]]
        (found,) = (await api.customers("email:in=ann@example.org")).data
        assert found["id"] == 8


async def test_definitions_are_added_updated_and_replaced(tmp_path: Any) -> None:
    database = tmp_path / "store.db"
    options: dict[str, Any] = {"customers": PEOPLE, "attributes": KINDS}
    async with running(database, **options) as (sandbox, _):
        await sandbox.define(customers=["new@example.org", "ANN@example.org"])
        assert [(one.id, one.email) for one in await sandbox.customers()] == [
            (7, "ANN@example.org"),
            (8, "bob+news@example.org"),
            (9, "new@example.org"),
        ]
        await sandbox.define(attributes=[("Level", "string", 1), ("Other", "date")], replace=True)
        assert [(one.id, one.name) for one in await sandbox.attributes()] == [
            (1, "Level"),
            (4, "Other"),
        ]
        assert len(await sandbox.customers()) == 3
    async with running(database) as (sandbox, _):
        assert [one.id for one in await sandbox.customers()] == [7, 8, 9]


async def test_reset_returns_to_the_definitions_of_the_options() -> None:
    async with running(customers=PEOPLE, attributes=KINDS) as (sandbox, api):
        await sandbox.define(customers={50: "x@example.org"}, attributes={"More": "date"})
        await api.attributes("DELETE", "id:in=1")
        await sandbox.reset(["customers"])
        assert [one.id for one in await sandbox.customers()] == [7, 8]
        assert [one.name for one in await sandbox.attributes()] == ["Shoe size", "Birthday", "More"]
        await sandbox.reset()
        assert [(one.id, one.name) for one in await sandbox.attributes()] == [
            (1, "Tier"),
            (2, "Shoe size"),
            (3, "Birthday"),
        ]
