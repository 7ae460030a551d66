"""Bad input to the control routes: refused with its field."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sandbox.api import Control, running

MINE = {"customer_id": 1, "attribute_id": 2, "value": "a"}


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/rows", {"rows": [MINE, {**MINE, "customer_id": 0}]}, "rows[1].customer_id"),
        ("POST", "/rows", {"rows": [{**MINE, "value": "x" * 256}]}, "rows[0].value"),
        ("POST", "/rows", {"rows": [{**MINE, "value": None}]}, "rows[0].value"),
        ("POST", "/rows", {"rows": [{**MINE, "colour": 1}]}, "rows[0].colour"),
        ("POST", "/rows", {"rows": [{"customer_id": 1}]}, "rows[0].attribute_id"),
        (
            "POST",
            "/rows",
            {"rows": [{**MINE, "date_created": "2024-05-01"}]},
            "rows[0].date_created",
        ),
        ("PUT", "/rows", {}, "rows"),
        ("PUT", "/rows", b'{"rows": [', ""),
        ("PUT", "/rows", b'{"rows": [{"value": "\xff"}]}', ""),
        ("PUT", "/rows", b'{"rows":[{"customer_id":1,"attribute_id":1,"value":"\\ud800"}]}', ""),
        ("DELETE", "/rows", None, "id"),
        ("DELETE", "/rows?id=x", None, "id"),
        ("GET", "/rows?page=0", None, "page"),
        ("GET", "/rows?limit=1001", None, "limit"),
        ("GET", "/rows?customer_id=1,,2", None, "customer_id"),
        ("GET", "/rows?customer=1", None, "customer"),
        ("GET", "/rows?page=1&page=2", None, "page"),
        ("GET", f"/rows?value={'x' * 256}", None, "value"),
        ("POST", "/reset", {"only": ["row"]}, "only"),
        ("POST", "/faults", {"kind": "503x"}, "kind"),
        ("POST", "/faults", {"kind": "503", "times": 0}, "times"),
        ("POST", "/faults", {"kind": "503", "probability": "1"}, "probability"),
        ("POST", "/faults", "slow,delay_s=nan", "delay_s"),
        ("POST", "/faults", {"kind": "503", "operation": "get"}, "operation"),
        ("PUT", "/faults", ["503", {"kind": "503", "after": -1}], "[1].after"),
        ("DELETE", "/faults/x", None, "number"),
        ("POST", "/faults/script", {"faults": ["503", "x"]}, "faults[1].kind"),
        ("POST", "/faults/script", {"faults": [], "operation": "x"}, "operation"),
        ("GET", "/requests?after=-1", None, "after"),
        ("GET", "/requests?operation=x", None, "operation"),
        ("PUT", "/latency", {"latency_ms": -1}, "latency_ms"),
        ("PUT", "/latency", {"latency_ms": 1e300}, "latency_ms"),
        ("PUT", "/latency", b'{"latency_ms": NaN}', ""),
        ("PUT", "/latency", {}, "latency_ms"),
        ("PUT", "/quota", {"quota": -1}, "quota"),
        ("PUT", "/quota", {"spend": 1.5}, "spend"),
        ("PUT", "/rejected-customers", {"customer_ids": [1, "2"]}, "customer_ids[1]"),
        ("POST", "/customers", {"customers": {"0": "a@b.c"}}, "customers"),
        ("POST", "/customers", {"customers": ["a@b.c", "a@b.c", "x"]}, "customers"),
        ("POST", "/customers", {}, "customers"),
        ("DELETE", "/customers", None, "id"),
        ("POST", "/attributes", {"attributes": {"Tier": "text"}}, "attributes"),
        ("POST", "/attributes", {"attributes": [{"name": "T"}]}, "attributes[0].type"),
        ("PATCH", "/quirks", {"max_limit": 0}, "max_limit"),
        ("PATCH", "/quirks", {"max_limt": 5}, "max_limt"),
        ("PUT", "/quirks", {"order": None}, "order"),
        ("PUT", "/quirks", [], ""),
        ("PUT", "/settings", {"quota": "x"}, "quota"),
        ("GET", "/state?x=1", None, "x"),
    ],
)
async def test_bad_input_is_answered_400_with_the_field(
    method: str, path: str, body: Any, field: str
) -> None:
    async with running() as (sandbox, api):
        await sandbox.seed([(5, 5, "kept")])
        reply = await Control(sandbox, api)(method, f"/sandbox{path}", body)
        assert (reply.status, reply.json["error"]["field"]) == (400, field), reply.body
        assert reply.json["error"]["message"]
        assert await sandbox.values() == {(5, 5): "kept"}
        assert (len(sandbox.faults), sandbox.faults.scripted, sandbox.latency_ms) == (0, 0, 0)
