"""Attribute values as they are stored."""

from __future__ import annotations

from bc_attrvals.sandbox import Quirks
from tests.sandbox.api import item, running


async def test_of_equal_keys_in_a_call_the_last_wins() -> None:
    async with running() as (sandbox, api):
        reply = await api.put(item(5, 1, "a"), item(6, 1, "b"), item(5, 1, "c"))
        assert {row["customer_id"]: row["attribute_value"] for row in reply.data} == {
            5: "c",
            6: "b",
        }
        assert await sandbox.values() == {(5, 1): "c", (6, 1): "b"}


async def test_an_id_finds_its_row_and_must_fit_it() -> None:
    async with running() as (sandbox, api):
        await api.put(item(5, 1, "a"), item(6, 1, "b"))
        assert (await api.put(item(6, 1, "z", id=2))).status == 200
        misfit = await api.put(item(6, 1, "y", id=1))
        unknown = await api.put(item(5, 1, "y", id=99))
        assert await sandbox.values() == {(5, 1): "a", (6, 1): "z"}
    assert (misfit.status, list(misfit.json["errors"])) == (422, ["0.id"])
    assert (unknown.status, list(unknown.json["errors"])) == (422, ["0.id"])


async def test_values_of_255_characters_and_of_none_are_stored() -> None:
    async with running() as (sandbox, api):
        values = ["", "😀" * 255, 'q"\\\0\n']
        await api.put(*(item(i + 1, value=value) for i, value in enumerate(values)))
        assert list((await sandbox.values()).values()) == values


async def test_a_customer_holds_at_most_fifty_values() -> None:
    async with running() as (sandbox, api):
        await sandbox.seed((1, a, "v") for a in range(1, 50))
        over = await api.put(item(1, 50), item(1, 51))
        assert (over.status, list(over.json["errors"])) == (422, ["1.customer_id"])
        assert await sandbox.count() == 49
        assert (await api.put(item(1, 50))).status == 200
        assert (await api.put(item(1, 7, "changed"), item(2, 51))).status == 200
        assert (await api.put(item(1, 51))).status == 422


async def test_good_items_of_a_refused_batch_may_be_stored() -> None:
    async with running(quirks=Quirks(store_good_items_of_refused_batch=True)) as (sandbox, api):
        sandbox.reject_customers([3])
        reply = await api.put(item(1), {"customer_id": 2}, item(3), item(4))
        assert (reply.status, list(reply.json["errors"])) == (422, ["1.attribute_id"])
        assert set(await sandbox.values()) == {(1, 1), (4, 1)}


async def test_ids_are_never_given_twice() -> None:
    async with running() as (_, api):
        await api.put(item(1), item(2))
        await api.delete("id:in=2")
        assert [row["id"] for row in (await api.put(item(3))).data] == [3]
