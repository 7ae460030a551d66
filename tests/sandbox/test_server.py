"""Start and end."""

from __future__ import annotations

import asyncio
import threading

import aiohttp
import pytest

from bc_attrvals import sandbox as package
from bc_attrvals.sandbox import Fault, Sandbox
from tests.sandbox.api import item, running, until


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
        calls += [asyncio.create_task(session.put(path, json=[])) for _ in range(3)]
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


def test_public_names() -> None:
    assert sorted(package.__all__) == package.__all__
    assert all(hasattr(package, name) for name in package.__all__)
