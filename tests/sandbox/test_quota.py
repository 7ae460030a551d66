"""The shared quota and the most upserts at once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from yarl import URL

from bc_attrvals.sandbox import Quirks, Window
from bc_attrvals.sandbox.quota import QuotaWindow
from tests.sandbox.api import Clock, Reply, item, running, until

LEFT, RESET = "X-Rate-Limit-Requests-Left", "X-Rate-Limit-Time-Reset-Ms"
QUOTA, WINDOW = "X-Rate-Limit-Requests-Quota", "X-Rate-Limit-Time-Window-Ms"


def limits(reply: Reply) -> dict[str, int]:
    return {name: int(reply.headers[name]) for name in (LEFT, RESET, QUOTA, WINDOW)}


async def test_every_answer_shows_the_quota_and_each_request_costs_one() -> None:
    clock = Clock()
    async with running(quota=5, clock=clock) as (_, api):
        clock.now_s += 1.25
        assert limits(await api.get()) == {LEFT: 4, RESET: 28_750, QUOTA: 5, WINDOW: 30_000}
        deleted = await api.delete("id:in=1")
        assert (deleted.status, limits(deleted)[LEFT]) == (204, 3)
        refused = await api.get("nonsense=1")
        assert (refused.status, limits(refused)[LEFT]) == (422, 2)
        assert limits(await api.put(item(1)))[LEFT] == 1


async def test_beyond_the_quota_comes_429_until_the_next_window() -> None:
    clock = Clock()
    async with running(quota=2, window_s=10, clock=clock) as (sandbox, api):
        clock.now_s += 3.5
        assert [(await api.get()).status for _ in range(3)] == [200, 200, 429]
        over = await api.put(item(1))
        assert over.status == 429
        assert limits(over) == {LEFT: 0, RESET: 6_500, QUOTA: 2, WINDOW: 10_000}
        assert over.headers["X-Retry-After"] == "7"
        assert over.json["status"] == 429
        clock.now_s += 6.499
        assert (await api.get()).status == 429
        clock.now_s += 0.002
        assert limits(await api.get())[LEFT] == 1
        assert await sandbox.count() == 0
        assert sandbox.count_429 == 3
        clock.now_s += 25
        await api.get()
        assert sandbox.windows == [Window(0, 2, 3, 0), Window(1, 1, 0, 0), Window(3, 1, 0, 0)]


async def test_other_apps_and_a_change_of_plan_move_the_quota() -> None:
    async with running(quota=10, clock=Clock()) as (sandbox, api):
        sandbox.spend(6)
        assert limits(await api.get())[LEFT] == 3
        sandbox.set_quota(5)
        assert sandbox.quota_left == 0
        assert (await api.get()).status == 429
        sandbox.set_quota(20)
        assert limits(await api.get()) == {LEFT: 12, RESET: 30_000, QUOTA: 20, WINDOW: 30_000}
        sandbox.set_quota(None)
        assert LEFT not in (await api.get()).headers
        with pytest.raises(ValueError, match="negative"):
            sandbox.set_quota(-1)
        with pytest.raises(ValueError, match="negative"):
            sandbox.spend(-1)


async def test_without_a_quota_there_are_no_headers_and_no_429() -> None:
    async with running(quota=None) as (sandbox, api):
        replies = [await api.get() for _ in range(20)]
        assert sandbox.quota_left is None
    assert {reply.status for reply in replies} == {200}
    assert not any(name.startswith("X-Rate") for reply in replies for name in reply.headers)


async def test_hidden_headers_still_count() -> None:
    async with running(quota=1, quirks=Quirks(rate_headers=False)) as (_, api):
        replies = [await api.get(), await api.get()]
    assert [reply.status for reply in replies] == [200, 429]
    hidden = ("x-rate", "x-retry")
    assert not any(name.lower().startswith(hidden) for reply in replies for name in reply.headers)


def test_the_countdown_is_rounded_down_to_its_granularity() -> None:
    clock = Clock()
    window = QuotaWindow(5, 30.0, clock, reset_granularity_ms=1000)
    shown = []
    for step_s in (0.0, 0.0005, 1.2, 28.7):
        clock.now_s += step_s
        headers = dict(line.split(": ") for line in window.header_lines().splitlines())
        shown.append(int(headers[RESET]))
    assert shown == [30_000, 29_000, 28_000, 0]


async def test_a_fourth_upsert_at_once_is_refused_without_rate_headers() -> None:
    async with running(quota=100, latency_ms=20) as (sandbox, api):
        replies = await asyncio.gather(*(api.put(item(i)) for i in range(1, 7)))
        refused = [reply for reply in replies if reply.status == 429]
        assert sorted(reply.status for reply in replies) == [200] * 3 + [429] * 3
        assert not any(name.startswith("X-Rate") for reply in refused for name in reply.headers)
        assert await sandbox.count() == 3
        assert sandbox.quota_left == 94
        found = {(request.in_flight > 3, request.status) for request in sandbox.requests}
        assert found == {(False, 200), (True, 429)}
        assert sandbox.peak_in_flight("upsert") >= 4
        assert sandbox.in_flight() == 0
        reads = await asyncio.gather(*(api.get() for _ in range(8)))
        assert {reply.status for reply in reads} == {200}
        assert sandbox.peak_in_flight("list") == 8


async def test_three_upserts_at_once_are_never_refused() -> None:
    async with running(latency_ms=1) as (sandbox, api):

        async def worker(customer_id: int) -> set[int]:
            return {(await api.put(item(customer_id, i))).status for i in range(1, 31)}

        assert await asyncio.gather(*map(worker, (1, 2, 3))) == [{200}] * 3
        assert sandbox.peak_in_flight("upsert") == 3


@pytest.mark.parametrize("kept", [False, True])
async def test_upserts_that_arrive_together_are_in_flight_together(
    kept: bool, tmp_path: Path
) -> None:
    async with running(tmp_path / "store.db" if kept else ":memory:") as (sandbox, api):
        body = json.dumps([item(1)]).encode()
        head = (
            f"PUT {URL(api.path).raw_path} HTTP/1.1\r\nHost: localhost\r\n"
            f"X-Auth-Token: {api.token}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        streams = [await asyncio.open_connection("127.0.0.1", sandbox.port) for _ in range(4)]
        for _, writer in streams:
            writer.write(head.encode() + body)
        statuses = [(await reader.readline()).split()[1] for reader, _ in streams]
        assert sorted(statuses) == [b"200"] * 3 + [b"429"]
        assert sandbox.peak_in_flight("upsert") == 4
        for _, writer in streams:
            writer.close()
            await writer.wait_closed()
        await until(lambda: not sandbox.in_flight())


async def test_a_later_client_that_goes_away_frees_no_place_of_an_earlier_one() -> None:
    async with running(latency_ms=50) as (sandbox, api):
        body = json.dumps([item(1)]).encode()
        head = (
            f"PUT {URL(api.path).raw_path} HTTP/1.1\r\nHost: localhost\r\n"
            f"X-Auth-Token: {api.token}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        streams = [await asyncio.open_connection("127.0.0.1", sandbox.port) for _ in range(5)]
        for _, writer in streams[:3]:
            writer.write(head.encode() + body)
        await until(lambda: sandbox.in_flight("upsert") == 3)
        for _, writer in streams[3:]:
            writer.write(head.encode() + body)
        await asyncio.sleep(0)
        streams[4][1].transport.abort()
        statuses = [(await reader.readline()).split()[1] for reader, _ in streams[:4]]
        assert statuses == [b"200"] * 3 + [b"429"]
        assert len(sandbox.requests) == 5
        for _, writer in streams[:4]:
            writer.close()
            await writer.wait_closed()


@pytest.mark.parametrize("keeps_slot", [False, True])
async def test_a_client_that_goes_away_frees_its_place_but_is_applied(keeps_slot: bool) -> None:
    quirks = Quirks(abandoned_keeps_slot=keeps_slot)
    async with running(latency_ms=20, max_concurrent_puts=1, quirks=quirks) as (sandbox, api):
        first = asyncio.create_task(api.put(item(1)))
        await until(lambda: sandbox.in_flight("upsert"))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        second = await api.put(item(2))
        await until(lambda: sandbox.requests[0].ended_at_s is not None)
        assert second.status == (429 if keeps_slot else 200)
        assert (1, 1) in await sandbox.values()
        assert sandbox.requests[0].status is None


def test_impossible_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="quota"):
        QuotaWindow(-1, 30, Clock())
    with pytest.raises(ValueError, match="window_s"):
        QuotaWindow(1, 0, Clock())
