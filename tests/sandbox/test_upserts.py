"""Upserts and deletes: what is stored, what is refused, and what the refusal says."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from bc_attrvals.sandbox import Quirks
from tests.sandbox.api import Clock, item, running


async def test_an_upsert_creates_and_then_changes_by_customer_and_attribute() -> None:
    clock = Clock(1_700_000_000.9)
    async with running(wall_clock=clock) as (sandbox, api):
        created = await api.put(item(5, 1, "a"), item(5, 2, "b"))
        clock.now_s += 10
        changed = await api.put(item(5, 2, "c"), item(5, 1, "a"))
        rows = await sandbox.rows()
    assert created.json["meta"] == {}
    assert [(row["id"], row["attribute_value"]) for row in created.data] == [(1, "a"), (2, "b")]
    assert created.data[0]["date_created"] == "2023-11-14T22:13:20Z"
    assert [(row["id"], row["attribute_value"]) for row in changed.data] == [(2, "c"), (1, "a")]
    assert [(row.value, row.date_modified_s - row.date_created_s) for row in rows] == [
        ("a", 0),
        ("c", 10),
    ]


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


BAD_ITEMS: list[tuple[Any, str]] = [
    ({"customer_id": 1, "attribute_id": 1}, "data"),
    ({"customer_id": 1, "value": "v"}, "attribute_id"),
    ({"attribute_id": 1, "value": "v"}, "customer_id"),
    (item(1, value="x" * 256), "value"),
    ({**item(1), "value": 5}, "value"),
    ({**item(1), "value": None}, "value"),
    (item(0), "customer_id"),
    (item(2**31), "customer_id"),
    ({**item(1), "customer_id": "1"}, "customer_id"),
    ({**item(1), "customer_id": True}, "customer_id"),
    ({**item(1), "attribute_id": 1.0}, "attribute_id"),
    (item(1, id=0), "id"),
    (item(1, id=None), "id"),
    (["not", "an", "object"], "data"),
]


@pytest.mark.parametrize(("bad", "field"), BAD_ITEMS)
async def test_only_the_first_bad_item_is_reported_and_nothing_is_stored(
    bad: Any, field: str
) -> None:
    async with running() as (sandbox, api):
        reply = await api.put(item(11), item(12), bad, item(13), bad)
        assert await sandbox.count() == 0
    assert reply.status == 422
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.json["status"] == 422
    assert reply.json["title"] == "Set customer attribute values failed."
    assert reply.json["type"].endswith("/api-status-codes")
    assert list(reply.json["errors"]) == [f"2.{field}"]


async def test_an_earlier_unknown_customer_is_reported_before_a_later_malformed_item() -> None:
    async with running() as (sandbox, api):
        sandbox.reject_customers([7])
        reply = await api.put(item(6), item(7), {"customer_id": 8})
        assert list(reply.json["errors"]) == ["1.customer_id"]
        reply = await api.put({"customer_id": 8}, item(7))
        assert list(reply.json["errors"]) == ["0.attribute_id"]
        assert (await api.put(item(6))).status == 200
        assert await sandbox.values() == {(6, 1): "v"}


async def test_values_of_255_characters_and_of_none_are_stored() -> None:
    async with running() as (sandbox, api):
        values = ["", "😀" * 255, 'q"\\\0\n']
        await api.put(*(item(i + 1, value=value) for i, value in enumerate(values)))
        assert list((await sandbox.values()).values()) == values


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"{}", 422),
        (b"[]", 422),
        (b'["\\ud800"]', 422),
        (b"\xff", 422),
        (json.dumps([item(i + 1) for i in range(11)]).encode(), 413),
        (b"[" + b" " * 1024**2 + b"]", 413),
        (json.dumps([item(i + 1) for i in range(10)]).encode(), 200),
    ],
)
async def test_a_body_is_an_array_of_one_to_ten_items(body: bytes, status: int) -> None:
    async with running() as (sandbox, api):
        reply = await api.call("PUT", data=io.BytesIO(body))
        assert reply.status == status
        assert reply.json.get("status", 200) == status
        assert await sandbox.count() == (10 if status == 200 else 0)


async def test_a_customer_holds_at_most_fifty_values() -> None:
    async with running() as (sandbox, api):
        await sandbox.seed((1, a, "v") for a in range(1, 50))
        over = await api.put(item(1, 50), item(1, 51))
        assert (over.status, list(over.json["errors"])) == (422, ["1.customer_id"])
        assert await sandbox.count() == 49
        assert (await api.put(item(1, 50))).status == 200
        assert (await api.put(item(1, 7, "changed"), item(2, 51))).status == 200
        assert (await api.put(item(1, 51))).status == 422


@pytest.mark.parametrize(
    ("style", "errors"),
    [
        ("indexed", {"1.data": "missing attribute value"}),
        ("field", {".customer_create": "missing attribute value"}),
        ("empty", {}),
    ],
)
async def test_error_styles(style: Any, errors: dict[str, str]) -> None:
    async with running(quirks=Quirks(error_style=style)) as (_, api):
        reply = await api.put(item(1), {"customer_id": 2, "attribute_id": 1})
    assert (reply.status, reply.json["errors"]) == (422, errors)


async def test_good_items_of_a_refused_batch_may_be_stored() -> None:
    async with running(quirks=Quirks(store_good_items_of_refused_batch=True)) as (sandbox, api):
        sandbox.reject_customers([3])
        reply = await api.put(item(1), {"customer_id": 2}, item(3), item(4))
        assert (reply.status, list(reply.json["errors"])) == (422, ["1.attribute_id"])
        assert set(await sandbox.values()) == {(1, 1), (4, 1)}


async def test_an_answer_may_omit_what_did_not_change_and_be_turned_round() -> None:
    quirks = Quirks(omit_unchanged=True, answer_order="reversed")
    async with running(quirks=quirks) as (_, api):
        assert [row["id"] for row in (await api.put(item(1), item(2), item(3))).data] == [3, 2, 1]
        again = await api.put(item(1), item(2, value="new"), item(3))
        assert [row["customer_id"] for row in again.data] == [2]
        assert (await api.put(item(1))).data == []


async def test_delete_removes_the_named_rows_and_ignores_unknown_ids() -> None:
    async with running() as (sandbox, api):
        await sandbox.seed((i, 1, "v") for i in range(1, 6))
        reply = await api.delete("id:in=2,4,99")
        assert (reply.status, reply.body) == (204, b"")
        assert [row.id for row in await sandbox.rows()] == [1, 3, 5]
        assert (await api.delete("id%3Ain=1")).status == 204
        assert await sandbox.delete_rows([3, 77]) == 1
        assert [row.id for row in await sandbox.rows()] == [5]


async def test_ids_are_never_given_twice() -> None:
    async with running() as (_, api):
        await api.put(item(1), item(2))
        await api.delete("id:in=2")
        assert [row["id"] for row in (await api.put(item(3))).data] == [3]


@pytest.mark.parametrize(
    ("query", "status"),
    [("", 204), ("id:in=x", 422), ("id:in=", 422), ("customer_id:in=1", 422), ("id:in=1,2,3", 413)],
)
async def test_other_deletes_delete_nothing(query: str, status: int) -> None:
    async with running(quirks=Quirks(max_delete_ids=2)) as (sandbox, api):
        await sandbox.seed((i, 1, "v") for i in range(1, 6))
        assert (await api.delete(query)).status == status
        assert await sandbox.count() == 5
