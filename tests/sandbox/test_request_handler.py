"""The service's requests on their way: addresses, tokens, media types."""

from __future__ import annotations

import asyncio
import threading

import pytest

from bc_attrvals.sandbox.resources import Applied, Request, Resources
from tests.sandbox.api import item, running


async def test_wrong_addresses_and_tokens_cost_no_unit() -> None:
    async with running(quota=10) as (sandbox, api):
        wrong = await api.call("GET", headers={"X-Auth-Token": "wrong"})
        missing = await api.call("PUT", headers={}, data=b"[]")
        store = await api.call("GET", url=api.path.replace("sandbox", "other"))
        path = await api.call("GET", url=api.path + "/1")
        method = await api.call("POST", data=b"[]")
        assert sandbox.quota_left == 10
    replies = [wrong, missing, store, path, method]
    assert [reply.status for reply in replies] == [401, 401, 404, 404, 405]
    assert [reply.json["status"] for reply in replies] == [401, 401, 404, 404, 405]
    assert method.headers["Allow"] == "GET, PUT, DELETE"
    assert all(reply.headers["X-Request-Id"] for reply in replies)


async def test_long_urls_are_served_and_too_long_ones_refused() -> None:
    ids = ",".join(map(str, range(1000, 2500)))
    async with running() as (_, api):
        assert (await api.get(f"customer_id:in={ids}")).status == 200
    async with running(max_url_bytes=4096) as (_, api):
        assert (await api.get(f"customer_id:in={ids}")).status == 414
        assert (await api.get(f"customer_id:in={ids[:3999]}")).status == 200


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("PUT", {"Content-Type": "application/json; charset=utf-8"}, 200),
        ("PUT", {"Content-Type": "application/vnd.bc+json"}, 200),
        ("PUT", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ("PUT", {"Content-Type": "text/plain"}, 415),
        ("GET", {"Content-Type": "text/plain"}, 200),
        ("GET", {"Accept": "application/json"}, 200),
        ("GET", {"Accept": "text/html, */*;q=0.1"}, 200),
        ("GET", {"Accept": "application/*"}, 200),
        ("GET", {"Accept": "text/html"}, 406),
        ("DELETE", {"Accept": "application/xml"}, 406),
        ("GET", {"Accept": "application/json;q=0"}, 406),
        ("GET", {"Accept": "text/html, application/json; q=0.000"}, 406),
        ("GET", {"Accept": "application/json;q=0, */*;q=0.1"}, 406),
        ("GET", {"Accept": "APPLICATION/JSON; q=0.001, */*;q=0"}, 200),
    ],
)
async def test_other_media_types_than_json_are_refused(
    method: str, headers: dict[str, str], status: int
) -> None:
    async with running(quota=10) as (sandbox, api):
        body = b'[{"customer_id":1,"attribute_id":1,"value":"v"}]' if method == "PUT" else None
        reply = await api.call(method, headers={"X-Auth-Token": api.token, **headers}, data=body)
        assert reply.status == status
        assert sandbox.quota_left == (9 if status == 200 else 10)


async def test_each_resource_has_its_methods() -> None:
    async with running() as (_, api):
        customers = api.path.replace("/attribute-values", "")
        refused = await api.call("PUT", url=customers, data=b"[]")
        assert (refused.status, refused.headers["Allow"]) == (405, "GET")
        attributes = await api.call("PATCH", url=f"{customers}/attributes", data=b"[]")
        assert attributes.headers["Allow"] == "GET, POST, PUT, DELETE"
        bare = await api.call("GET", url=customers[: customers.index("/stores")] + "/customers")
        assert bare.status == 404


async def test_store_and_token_can_be_changed() -> None:
    async with running() as (sandbox, api):
        sandbox.store_hash, sandbox.access_token = "other", "new"
        assert (await api.get()).status == 404
        api.path = api.path.replace("/stores/sandbox/", "/stores/other/")
        assert (await api.get()).status == 401
        api.token = "new"
        assert (await api.get()).status == 200
        with pytest.raises(ValueError, match="max_concurrent_puts"):
            sandbox.max_concurrent_puts = 0


async def test_short_writes_are_done_in_the_loop_and_reads_in_the_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[tuple[str, bool]] = []
    apply = Resources.apply

    def recorded(resources: Resources, request: Request) -> Applied:
        done.append((request.operation, threading.current_thread() is threading.main_thread()))
        return apply(resources, request)

    monkeypatch.setattr(Resources, "apply", recorded)
    async with running() as (_, api):
        for _ in range(2):
            await api.get()
            await api.delete("id:in=1")
            await api.attributes("GET")
    assert done == [("list", False), ("delete", True), ("list_attributes", False)] * 2


async def test_a_latency_that_is_set_meanwhile_holds_for_the_next_write() -> None:
    async with running() as (sandbox, api):
        await api.put(item(1))
        sandbox.latency_ms = 20
        before_s = asyncio.get_running_loop().time()
        await api.put(item(2))
        assert asyncio.get_running_loop().time() - before_s >= 0.02
