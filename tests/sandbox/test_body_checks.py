"""Bodies of upserts: what is refused, and what the refusal says."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from bc_attrvals.sandbox import Quirks
from tests.sandbox.api import item, running

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
