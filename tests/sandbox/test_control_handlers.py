"""The control routes as another language's test suite uses them."""

from __future__ import annotations

import asyncio

import msgspec

from bc_attrvals.sandbox import Fault
from bc_attrvals.sandbox.control_handlers import ROUTES
from bc_attrvals.sandbox.control_input import read_body
from tests.sandbox.api import Control, item, running, until

MINE = {"customer_id": 1, "attribute_id": 2, "value": "a"}


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
        assert {name: count for name, count in state["in_flight"].items() if count} == {"delete": 1}
        assert [(one["kind"], one["hits"]) for one in state["faults"]] == [("hang", 1)]
        assert state["quirks"]["order"] == "id"
        replies = [await ask("GET", path) for path in ("/", "/sandbox", "/sandbox/requests")]
        assert [reply.status for reply in replies] == [200, 200, 200]
        assert not any(b"s3cret" in reply.body for reply in replies)
        # Nothing of all that was a call of the store's.
        assert (sandbox.requests.seen, sandbox.quota_left, sandbox.calls.total()) == (1, 8, 1)
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)


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
                "email": None,
                "attribute_id": 2,
                "attribute": None,
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
        await ask("POST", "/sandbox/rejected-customers", {"customer_ids": [7]})
        assert (await api.put(item(7))).status == 422
        assert (await ask("PUT", "/sandbox/rejected-customers", {"customer_ids": [8]})).json == {
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


async def test_customers_and_attributes_are_defined_shown_and_deleted() -> None:
    async with running() as (sandbox, api):
        ask = Control(sandbox, api)
        await ask("POST", "/sandbox/customers", {"customers": {"7": "ann@example.org"}})
        added = await ask("POST", "/sandbox/customers", {"customers": ["bob@example.org"]})
        assert added.json["customers"] == [
            {"id": 7, "email": "ann@example.org"},
            {"id": 8, "email": "bob@example.org"},
        ]
        kinds = {"attributes": [{"name": "Tier", "type": "string", "id": 3}]}
        assert (await ask("PUT", "/sandbox/attributes", kinds)).json == kinds
        await ask("POST", "/sandbox/rows", {"rows": [{**MINE, "customer_id": 7}]})
        await api.put(item(7, 3, "gold"))
        rows = (await ask("GET", "/sandbox/rows")).json["rows"]
        assert [(row["email"], row["attribute"]) for row in rows] == [
            ("ann@example.org", None),
            ("ann@example.org", "Tier"),
        ]
        state = (await ask("GET", "/sandbox/state")).json
        assert (state["customers"], state["attributes"]) == (2, 1)
        assert (await ask("DELETE", "/sandbox/customers?id=8,9")).json == {"deleted": 1}
        left = await ask("PUT", "/sandbox/customers", {"customers": {"1": "eve@example.org"}})
        assert [one["id"] for one in left.json["customers"]] == [1]


async def test_quirks_are_switched_while_it_runs() -> None:
    async with running() as (sandbox, api):
        ask = Control(sandbox, api)
        await sandbox.seed((i, 1, "v") for i in range(1, 4))
        told = (await ask("PATCH", "/sandbox/quirks", {"order": "id_desc"})).json["quirks"]
        assert (told["order"], told["omit_links"]) == ("id_desc", False)
        assert [row["id"] for row in (await api.get()).data] == [3, 2, 1]
        await ask("PATCH", "/sandbox/quirks", {"omit_links": True})
        assert "links" not in (await api.get()).pagination
        assert sandbox.quirks.order == "id_desc"
        await ask("PUT", "/sandbox/quirks", {"reset_granularity_ms": 1000})
        assert [row["id"] for row in (await api.get()).data] == [1, 2, 3]
        names = [one["name"] for one in (await ask("GET", "/sandbox/quirks")).json["described"]]
        assert names == list(told)


async def test_settings_are_changed_together_or_not_at_all() -> None:
    async with running(quota=9) as (sandbox, api):
        ask = Control(sandbox, api)
        settings = {
            "store_hash": "other",
            "access_token": "new",
            "quota": None,
            "latency_ms": 1,
            "max_concurrent_puts": 7,
            "quirks": {"max_limit": 100},
            "faults": ["503,operation=delete"],
            "customers": {"7": "ann@example.org"},
            "attributes": {"Tier": "string"},
        }
        for wrong, field in (
            ({"quirks": {"max_limit": 0}}, "quirks.max_limit"),
            ({"faults": ["503", "x"]}, "faults[1].kind"),
            ({"customers": ["x"]}, "customers"),
            ({"latency_ms": -1}, "latency_ms"),
            ({"port": 5}, "port"),
        ):
            reply = await ask("PUT", "/sandbox/settings", {**settings, **wrong})
            assert (reply.status, reply.json["error"]["field"]) == (400, field)
            assert (sandbox.store_hash, sandbox.quota, len(sandbox.faults)) == ("sandbox", 9, 0)
            assert await sandbox.customers() == []
        state = (await ask("PUT", "/sandbox/settings", settings)).json
        assert (state["store_hash"], state["quota"]["quota"]) == ("other", None)
        assert (state["max_concurrent_puts"], state["latency_ms"]) == (7, 1)
        assert (state["customers"], state["attributes"]) == (1, 1)
        assert (state["quirks"]["max_limit"], state["faults"][0]["kind"]) == (100, "503")
        assert sandbox.access_token == "new"
        assert (await ask("PUT", "/sandbox/settings", {})).json["store_hash"] == "other"


def test_every_route_is_explained_and_stands_once() -> None:
    routes = ROUTES
    assert len({(route.method, route.path) for route in routes}) == len(routes)
    for route in routes:
        assert route.says[0].isupper()
        assert (route.method == "GET") <= (route.body is None)


def test_every_example_is_a_body_of_its_route() -> None:
    typed = [route for route in ROUTES if route.body is not None]
    assert len(typed) > 10
    for route in typed:
        decoded = read_body(msgspec.json.encode(route.example), route.body)
        assert msgspec.to_builtins(decoded)
