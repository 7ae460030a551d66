"""Attribute values as they are stored."""

from __future__ import annotations

import json
import time
from typing import Any

from bc_attrvals.sandbox import Quirks
from bc_attrvals.sandbox.operations import Operation
from bc_attrvals.sandbox.resources import Request, Resources
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


def put_together(resources: Resources, *bodies: list[Any]) -> list[tuple[int, Any]]:
    """Apply PUTs as one group; returns the status and the content of each answer."""
    requests = [Request(Operation.UPSERT, "", json.dumps(body).encode()) for body in bodies]
    answers = [applied.answer for applied in resources.apply_together(requests)]
    return [(answer.status, json.loads(answer.body)) for answer in answers]


def test_upserts_of_a_group_see_the_rows_of_those_before_them() -> None:
    resources = Resources(":memory:", quirks=Quirks(omit_unchanged=True), wall_clock=time.time)
    answers = put_together(
        resources,
        [item(1), item(2)],
        [item(1, value="w"), item(2)],
        [item(3), {"customer_id": 4}],
        [],
        [item(2, value="x", id=2), item(4)],
        [item(4, id=3, value="y")],
        [item(5, id=3)],
        [item(5, id=9)],
        [item(6, id=4), item(6)],
    )
    assert [status for status, _ in answers] == [200, 200, 422, 422, 200, 200, 422, 422, 422]
    data = [[row["id"] for row in content.get("data", ())] for _, content in answers]
    assert data == [[1, 2], [1], [], [], [2, 3], [3], [], [], []]
    messages = [content["errors"].get("0.id") for _, content in answers[6:]]
    unknown = "attribute value does not exist"
    assert messages == ["belongs to another customer or attribute", unknown, unknown]
    assert resources.rows.values() == {(1, 1): "w", (2, 1): "x", (4, 1): "y"}
    assert put_together(resources, [item(6)])[0][1]["data"][0]["id"] == 4
    resources.close()


def test_a_customer_is_filled_by_a_group_up_to_its_limit() -> None:
    resources = Resources(":memory:", quirks=Quirks(max_items=100), wall_clock=time.time)
    answers = put_together(
        resources,
        [item(1, attribute) for attribute in range(1, 50)],
        [item(1, 50), item(2, 60)],
        [item(1, 51)],
        [item(2, 51), item(1, 50, "w")],
    )
    assert [status for status, _ in answers] == [200, 200, 422, 200]
    assert (resources.rows.values()[1, 50], len(resources.rows.values())) == ("w", 52)
    resources.close()


def test_a_group_may_be_larger_than_a_statement() -> None:
    resources = Resources(":memory:", quirks=Quirks(max_items=7_000), wall_clock=time.time)
    items = [item(number) for number in range(1, 7_001)]
    for value in ("v", "w"):
        (answer,) = put_together(resources, [{**one, "value": value} for one in items])
        assert [row["id"] for row in answer[1]["data"]] == list(range(1, 7_001))
        assert set(resources.rows.values().values()) == {value}
    resources.close()
