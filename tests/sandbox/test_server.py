"""Start and end, addresses and tokens, the log, restarts, and the quirks of listings."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
from pathlib import Path

import aiohttp
import attrs
import pytest

from bc_attrvals import sandbox as package
from bc_attrvals.sandbox import Fault, Operation, Quirks, Sandbox
from tests.sandbox.api import item, running, until


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


async def test_requests_are_logged_as_they_were_sent_and_without_the_token() -> None:
    async with running(access_token="top-secret", latency_ms=1) as (sandbox, api):
        raw = "date_created%3Amin=2024-05-14T09:34:00Z&customer_id:in=1,2&name=a%20b"
        await api.get(raw)
        await api.put(item(1), item(2))
        await api.delete("id:in=1,2,3")
        listed, upserted, deleted = sandbox.requests
        shown = repr(sandbox) + repr(sandbox.requests) + repr(list(sandbox.requests))
    assert listed.query_string == raw
    assert listed.path == "/stores/sandbox/v3/customers/attribute-values"
    assert listed.headers["x-auth-token"] == "***"
    assert (listed.sequence, listed.method, listed.operation) == (1, "GET", "list")
    assert upserted.body.startswith(b"[{")
    assert (upserted.item_count, deleted.item_count) == (2, 3)
    assert [request.status for request in (listed, upserted, deleted)] == [200, 200, 204]
    assert listed.ended_at_s is not None
    assert listed.ended_at_s - listed.started_at_s >= 0.001
    assert "top-secret" not in shown
    assert sandbox.calls == {Operation.LIST: 1, Operation.UPSERT: 1, Operation.DELETE: 1}
    assert sandbox.statuses == {200: 2, 204: 1}
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        listed.status = 500  # type: ignore[misc] # the point of the test


async def test_the_log_is_bounded_and_shows_open_requests() -> None:
    async with running(request_log_size=3) as (sandbox, api):
        for _ in range(5):
            await api.get()
        await api.put(item(1))
        assert [request.sequence for request in sandbox.requests] == [4, 5, 6]
        assert sandbox.requests.seen == 6
        assert [request.sequence for request in sandbox.requests[:2]] == [4, 5]
        assert [request.sequence for request in sandbox.requests.of("upsert")] == [6]
        sandbox.faults.script(["hang"])
        call = asyncio.create_task(api.get())
        await until(lambda: sandbox.requests.seen == 7)
        assert (sandbox.requests[-1].ended_at_s, sandbox.requests[-1].status) == (None, None)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)


async def test_a_file_keeps_the_rows_for_the_next_sandbox(tmp_path: Path) -> None:
    database = tmp_path / "store.db"
    before = os.umask(0)
    try:
        async with running(database) as (sandbox, api):
            await api.put(item(1, 1, "a"), item(2, 1, "b"))
            await api.delete("id:in=2")
            kept = await sandbox.rows()
    finally:
        os.umask(before)
    assert stat.S_IMODE(database.stat().st_mode) == 0o600
    async with running(database) as (sandbox, api):
        assert await sandbox.rows() == kept
        assert (await api.put(item(3))).data[0]["id"] == 3
    async with running(database, quirks=Quirks(order="shuffled")) as (_, api):
        assert len((await api.get()).data) == 2


async def test_a_foreign_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    database = tmp_path / "foreign.db"
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    content = database.read_bytes()
    with pytest.raises(ValueError, match="not a sandbox's"):
        await Sandbox(database).start()
    assert database.read_bytes() == content
    assert not database_threads()


def database_threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("bc-attrvals")]


async def test_closing_leaves_no_task_and_no_thread_and_may_be_repeated() -> None:
    before = asyncio.all_tasks()
    sandbox = Sandbox(faults=[Fault("hang", operation="delete")], latency_ms=20)
    await sandbox.start()
    with pytest.raises(RuntimeError, match="already"):
        await sandbox.start()
    path = f"{sandbox.url}/stores/sandbox/v3/customers/attribute-values"
    headers = {"X-Auth-Token": sandbox.access_token}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.get(path) as response:
            assert response.status == 200
        calls = [asyncio.create_task(session.delete(path)) for _ in range(3)]
        calls += [asyncio.create_task(session.put(path, data=b"[]")) for _ in range(3)]
        await until(lambda: sandbox.in_flight() == 6)
        async with asyncio.timeout(2):
            await sandbox.aclose()
        await sandbox.aclose()
        failed = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(one, aiohttp.ClientError) for one in failed)
    assert asyncio.all_tasks() == before
    assert not database_threads()
    assert "closed" in repr(sandbox)
    with pytest.raises(RuntimeError, match="not running"):
        await sandbox.rows()
    with pytest.raises(RuntimeError, match="not running"):
        _ = sandbox.url


async def test_a_taken_port_is_an_error_that_leaves_nothing_behind() -> None:
    async with running() as (sandbox, _):
        other = Sandbox(port=sandbox.port)
        with pytest.raises(OSError, match="address already in use"):
            await other.start()
        assert len(database_threads()) == 1


async def test_sandboxes_side_by_side_share_nothing() -> None:
    async with running() as (one, one_api), running() as (two, two_api):
        await one_api.put(item(1))
        assert (await one.count(), await two.count()) == (1, 0)
        assert two.requests.seen == 0
        assert (await two_api.get()).data == []


def test_a_second_loop_works() -> None:
    async def session() -> int:
        async with running() as (_, api):
            return (await api.get()).status

    assert [asyncio.run(session()) for _ in range(2)] == [200, 200]


async def test_reset_returns_to_an_empty_healthy_store() -> None:
    async with running(quota=3, faults=[Fault("500", operation="list")]) as (sandbox, api):
        sandbox.reject_customers([9])
        await api.put(item(1))
        await api.get()
        await sandbox.reset()
        assert (len(sandbox.requests), sandbox.quota_left) == (0, 3)
        assert (await sandbox.count(), sandbox.statuses, sandbox.calls) == (0, {}, {})
        assert (await api.get()).data == []
        assert [row["id"] for row in (await api.put(item(9))).data] == [1]


async def test_the_quirks_of_listings() -> None:
    quirks = Quirks(
        value_field="value",
        clamp_pages=True,
        date_bounds="exclusive",
        omit_links=True,
        over_limit="clamp",
        max_limit=4,
        zoneless_dates=True,
        request_id=False,
    )
    async with running(quirks=quirks) as (sandbox, api):
        await sandbox.seed((i, 1, "v", 1_714_521_600 + i) for i in range(1, 11))
        clamped = await api.get("page=9&limit=100")
        bounded = await api.get("date_created:min=1714521602&date_created:max=1714521605")
        put = await api.put(item(50))
    assert clamped.pagination == {
        "total": 10,
        "count": 2,
        "per_page": 4,
        "current_page": 3,
        "total_pages": 3,
    }
    assert [row["id"] for row in clamped.data] == [9, 10]
    assert clamped.data[0]["value"] == "v"
    assert "attribute_value" not in clamped.data[0]
    assert clamped.data[0]["date_created"] == "2024-05-01T00:00:09"
    assert "X-Request-Id" not in clamped.headers
    assert [row["id"] for row in bounded.data] == [3, 4]
    assert put.data[0]["value"] == "v"
    assert not put.data[0]["date_created"].endswith("Z")


def test_quirks_and_options_are_checked() -> None:
    with pytest.raises(ValueError, match="order"):
        Quirks(order="random")  # type: ignore[arg-type] # the point of the test
    with pytest.raises(ValueError, match="latency_ms"):
        Sandbox(latency_ms=-1)
    for latency_ms in (float("nan"), float("inf"), 1e12):
        with pytest.raises(ValueError, match="latency_ms"):
            Sandbox(latency_ms=latency_ms)
        with pytest.raises(ValueError, match="latency_ms"):
            Sandbox().latency_ms = latency_ms
    with pytest.raises(ValueError, match="max_concurrent_puts"):
        Sandbox(max_concurrent_puts=0)


def test_public_names() -> None:
    assert sorted(package.__all__) == package.__all__
    assert all(hasattr(package, name) for name in package.__all__)
