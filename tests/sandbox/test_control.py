"""The control routes as another language's test suite uses them, and as a foreign page must not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from bc_attrvals.sandbox import Fault, Sandbox, control
from tests.sandbox.api import Api, Reply, item, running, until

MINE = {"customer_id": 1, "attribute_id": 2, "value": "a"}


class Control:
    """Calls the control routes as curl does: without token, Origin or Accept."""

    def __init__(self, sandbox: Sandbox, api: Api) -> None:
        self._url = sandbox.url
        self._api = api

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        path, _, query = path.partition("?")
        return await self._api.call(method, query, url=self._url + path, data=data, headers=named)


async def test_state_tells_what_there_is_and_no_token() -> None:
    async with running(quota=9, latency_ms=1.5, access_token="s3cret") as (sandbox, api):
        ask = Control(sandbox, api)
        await sandbox.seed([(1, 1, "a")])
        sandbox.faults.add("hang,operation=delete")
        hanging = asyncio.create_task(api.delete("id:in=1"))
        await until(lambda: sandbox.in_flight("delete"))
        state = (await ask("GET", "/sandbox/state")).json
        assert (state["rows"], state["latency_ms"], state["max_concurrent_puts"]) == (1, 1.5, 3)
        assert (state["quota"]["quota"], state["quota"]["left"]) == (9, 8)
        assert 0 < state["quota"]["reset_ms"] <= state["quota"]["window_ms"] == 30_000
        assert state["in_flight"] == {"list": 0, "upsert": 0, "delete": 1, "other": 0}
        assert [(one["kind"], one["hits"]) for one in state["faults"]] == [("hang", 1)]
        assert state["quirks"]["order"] == "id"
        replies = [await ask("GET", path) for path in ("/", "/sandbox", "/sandbox/requests")]
        assert [reply.status for reply in replies] == [200, 200, 200]
        assert not any(b"s3cret" in reply.body for reply in replies)
        # Nothing of all that was a call of the store's.
        assert (sandbox.requests.seen, sandbox.quota_left, sandbox.calls.total()) == (1, 8, 1)
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)


async def test_every_documented_route_exists_and_no_other() -> None:
    async with running() as (sandbox, api):
        listed = (await Control(sandbox, api)("GET", "/sandbox")).json["routes"]
    documented = [
        " ".join(line.split()[:2])
        for line in (control.__doc__ or "").splitlines()
        if line.startswith("    ") and line.split()[0] in ("GET", "POST", "PUT", "DELETE")
    ]
    assert sorted(listed) == sorted(documented)


async def test_rows_are_put_in_replaced_filtered_paged_and_deleted() -> None:
    async with running() as (sandbox, api):
        ask = Control(sandbox, api)
        dated = {
            **MINE,
            "customer_id": 2,
            "value": "50%_\\",
            "date_created": "2024-05-01T02:00:00+02:00",
        }
        assert (await ask("POST", "/sandbox/rows", {"rows": [MINE, dated]})).json["rows"] == 2
        page = (await ask("GET", "/sandbox/rows?limit=1&page=2")).json
        assert (page["total"], page["pages"], page["page"]) == (2, 2, 2)
        assert page["rows"] == [
            {
                "id": 2,
                "customer_id": 2,
                "attribute_id": 2,
                "value": "50%_\\",
                "date_created": "2024-05-01T00:00:00Z",
                "date_modified": "2024-05-01T00:00:00Z",
            }
        ]
        for query, ids in (
            ("customer_id=1,2", [1, 2]),
            ("customer_id=2&attribute_id=2", [2]),
            ("attribute_id=3", []),
            ("value=%25_%5C", [2]),
            ("value=A", [1]),
            ("value=%25%25", []),
            ("page=9", []),
        ):
            found = (await ask("GET", f"/sandbox/rows?{query}")).json["rows"]
            assert [row["id"] for row in found] == ids, query
        assert (await ask("PUT", "/sandbox/rows", {"rows": [{**MINE, "value": "b"}]})).status == 200
        assert await sandbox.values() == {(1, 2): "b"}
        (row,) = await sandbox.rows()
        assert (await ask("DELETE", f"/sandbox/rows?id={row.id},99")).json == {"deleted": 1}


async def test_faults_are_added_listed_ended_and_scripted() -> None:
    async with running() as (sandbox, api):
        ask = Control(sandbox, api)
        one = (await ask("POST", "/sandbox/faults", {"kind": "503", "operation": "list"})).json
        await ask("POST", "/sandbox/faults", "429=10%,operation=upsert,times=2")
        assert list(sandbox.faults) == [
            Fault("503", operation="list"),
            Fault("429", probability=0.1, operation="upsert", times=2),
        ]
        assert (await api.get()).status == 503
        path = f"/sandbox/faults/{one['number']}"
        assert [one["kind"] for one in (await ask("DELETE", path)).json["faults"]] == ["429"]
        assert (await ask("DELETE", path)).status == 404
        await ask("PUT", "/sandbox/faults", ["500,after=5"])
        script = {"faults": ["503", None, {"kind": "504"}], "operation": "list"}
        assert (await ask("POST", "/sandbox/faults/script", script)).json["scripted"] == 3
        assert [(await api.get()).status for _ in range(4)] == [503, 200, 504, 200]
        assert (await ask("DELETE", "/sandbox/faults")).json == {"faults": [], "scripted": 0}


async def test_the_log_is_read_from_where_one_was() -> None:
    async with running(access_token="s3cret/") as (sandbox, api):
        ask = Control(sandbox, api)
        for number in range(5):
            await api.get(f"name={number}&token=s3cret%2F")
        await api.put(item(1))
        logged = (await ask("GET", "/sandbox/requests?after=3&limit=2")).json
        assert [one["sequence"] for one in logged["requests"]] == [5, 6]
        assert logged["requests"][0]["query"] == "name=4&token=***"
        assert (logged["requests"][1]["status"], logged["requests"][1]["open"]) == (200, False)
        only = (await ask("GET", "/sandbox/requests?operation=list&limit=1")).json["requests"]
        assert [one["sequence"] for one in only] == [5]
        assert (await ask("GET", "/sandbox/requests?after=9")).json["requests"] == []
        await ask("DELETE", "/sandbox/requests")
        assert len(sandbox.requests) == 0


async def test_latency_quota_and_customers_are_set() -> None:
    async with running() as (sandbox, api):
        ask = Control(sandbox, api)
        assert (await ask("PUT", "/sandbox/latency", {"latency_ms": 2})).json == {"latency_ms": 2}
        assert (await ask("PUT", "/sandbox/quota", {"quota": 5, "spend": 4})).json["left"] == 1
        assert [(await api.get()).status for _ in range(2)] == [200, 429]
        assert (await ask("PUT", "/sandbox/quota", {"quota": None})).json["left"] is None
        await ask("POST", "/sandbox/customers", {"customer_ids": [7]})
        assert (await api.put(item(7))).status == 422
        assert (await ask("PUT", "/sandbox/customers", {"customer_ids": [8]})).json == {
            "customer_ids": [8]
        }
        assert (await api.put(item(7))).status == 200
        assert sandbox.latency_ms == 2


async def test_reset_takes_all_or_parts() -> None:
    async with running(quota=9) as (sandbox, api):
        ask = Control(sandbox, api)
        await api.put(item(1))
        sandbox.faults.add("500")
        sandbox.reject_customers([1])
        await ask("POST", "/sandbox/reset", {"only": ["log", "faults"]})
        assert (await sandbox.count(), len(sandbox.requests), len(sandbox.faults)) == (1, 0, 0)
        assert (sandbox.quota_left, sandbox.rejected_customers) == (8, {1})
        state = (await ask("POST", "/sandbox/reset")).json
        assert (state["rows"], state["quota"]["left"], state["rejected_customers"]) == (0, 9, 0)


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
        ("PUT", "/customers", {"customer_ids": [1, "2"]}, "customer_ids[1]"),
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


async def test_wrong_paths_methods_and_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MAX_BODY_BYTES", 1000)
    async with running() as (sandbox, api):
        ask = Control(sandbox, api)
        assert (await ask("GET", "/sandbox/nothing")).status == 404
        assert (await ask("GET", "/sandbox/faults/1")).status == 405
        assert (await ask("POST", "/sandbox/state")).status == 405
        assert (await ask("POST", "/")).status == 404
        assert (await ask("POST", "/sandbox/rows", b" " * 2000)).status == 413
        # Not a control route, but a path the store does not have.
        assert (await ask("GET", "/sandboxes")).status == 404
        assert sandbox.requests.seen == 1


@pytest.mark.parametrize(
    ("headers", "reads", "writes"),
    [
        ({}, 200, 200),
        ({"Host": "localhost:1"}, 200, 200),
        ({"Host": "[::1]:1"}, 200, 200),
        ({"Host": "evil.example"}, 403, 403),
        ({"Host": "127.0.0.1.evil.example:80"}, 403, 403),
        ({"Host": ""}, 403, 403),
        ({"Host": "localhost:5", "Origin": "http://localhost:5"}, 200, 200),
        ({"Host": "localhost:5", "Origin": "http://localhost:6"}, 200, 403),
        ({"Origin": "https://evil.example"}, 200, 403),
        ({"Origin": "null"}, 200, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 200, 403),
        ({"Sec_Fetch_Site": "same-site"}, 200, 403),
        ({"Sec_Fetch_Site": "same-origin"}, 200, 200),
    ],
)
async def test_pages_from_elsewhere_change_nothing(
    headers: dict[str, str], reads: int, writes: int
) -> None:
    async with running() as (sandbox, api):
        ask = Control(sandbox, api)
        assert (await ask("GET", "/sandbox/rows", **headers)).status == reads
        assert (await ask("GET", "/", **headers)).status == reads
        body = {"rows": [MINE]}
        assert (await ask("POST", "/sandbox/rows", body, **headers)).status == writes
        assert await sandbox.count() == (1 if writes == 200 else 0)


async def test_the_page_lets_only_its_own_script_run() -> None:
    async with running() as (sandbox, api):
        reply = await Control(sandbox, api)("GET", "/")
        head = await Control(sandbox, api)("HEAD", "/")
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert policy.count("'sha256-") == 2
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in reply.headers
    assert (head.status, head.body) == (200, b"")
    assert b"innerHTML" not in reply.body
    assert b"//" not in reply.body.replace(b"http://www.w3.org/2000/svg", b"").split(b"<script>")[0]
