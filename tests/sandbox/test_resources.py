"""Upserts and deletes: what is stored, and what is answered."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    ("query", "status"),
    [("", 204), ("id:in=x", 422), ("id:in=", 422), ("customer_id:in=1", 422), ("id:in=1,2,3", 413)],
)
async def test_other_deletes_delete_nothing(query: str, status: int) -> None:
    async with running(quirks=Quirks(max_delete_ids=2)) as (sandbox, api):
        await sandbox.seed((i, 1, "v") for i in range(1, 6))
        assert (await api.delete(query)).status == status
        assert await sandbox.count() == 5
